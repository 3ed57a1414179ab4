//! Bytes to JSON values (RECORDS.md, framing).
//!
//! | what stands in a payload | what comes of it |
//! |---|---|
//! | values, with or without white space, byte order marks or runs of `*` between them | each value |
//! | a top-level array; an API page (an object with an array `logs` and no key of a record) | each element |
//! | what begins no value, or a value that fails | one reject: from its start to the first line break |
//! | an array or page that is never closed, or misses a comma | its elements, and one reject: its opening |
//! | a line that is not UTF-8 | one reject: the line; no value reaches across it |
//!
//! An array whose element failed is *torn*: reading goes on as at the top, and for as long as the commas and the
//! bracket of the array still follow its elements they are passed over.

use std::ops::Range;

use super::RejectReason;
use super::fields::is_known_key;
use super::scan::{self, Members, Stop};
use super::strings::Ends;
use super::unpack::Unpacked;

/// One thing that stands in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// A valid JSON value of any kind.
    Value {
        /// Its place among the payload's values and rejects.
        index: u32,
        /// Its text.
        json: &'a str,
    },
    /// What is no value.
    Reject {
        /// Its place among the payload's values and rejects.
        index: u32,
        /// Why.
        reason: RejectReason,
        /// Its bytes.
        raw: &'a [u8],
    },
}

/// The values and rejects of a payload, in order.
pub fn elements<'a>(unpacked: &'a Unpacked<'_>) -> Elements<'a> {
    let mut elements = Elements::new(&unpacked.text, if unpacked.fault.is_some() { End::Cut } else { End::Whole });
    elements.fault = unpacked.fault.map(|reason| (reason, unpacked.payload));
    elements
}

/// What it means that the bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is no more.
    Whole,
    /// They were cut off: what ends inside of a value is rejected by whoever cut.
    Cut,
    /// More lines may come: nothing is decided by the end, which is that of a line.
    Open,
}

/// What one step of [`Elements`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A value or a reject.
    Found(Element<'a>),
    /// Something else was passed.
    Moved,
    /// All is read.
    End,
    /// The next step depends on bytes that have not come yet ([`End::Open`]).
    Starved,
}

/// Iterates over the values and rejects of a payload; see [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    end: End,
    fault: Option<(RejectReason, &'a [u8])>,
    /// Lines of UTF-8, and where they begin.
    text: &'a str,
    base: usize,
    /// The line behind them, which is not UTF-8.
    bad_line: Option<Range<usize>>,
    /// Where reading stands in `text`.
    at: usize,
    place: Place,
    index: u32,
}

/// Where reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between values.
    Top,
    /// In an array.
    Inside { array: Array, before: Before },
    /// Between values, behind an element of an array that failed.
    Torn { array: Array, before: Before },
}

/// An array that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Array {
    /// Its opening: `[`, or a page from its brace to the bracket.
    opening: (usize, usize),
    /// Whether it is a page's.
    page: bool,
    /// How many elements failed.
    failures: u8,
}

impl Array {
    /// After so many failures it is no longer believed to be one; bounds what must be read to know where it ends.
    const MOST_FAILURES: u8 = 16;
}

/// What an array expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    First,
    Element,
    Separator,
}

impl<'a> Elements<'a> {
    pub(super) fn new(bytes: &'a [u8], end: End) -> Self {
        let mut elements =
            Self { bytes, end, fault: None, text: "", base: 0, bad_line: None, at: 0, place: Place::Top, index: 0 };
        elements.load(0);
        elements
    }

    /// Where reading stands in the bytes.
    pub(super) fn position(&self) -> usize {
        self.base + self.at
    }

    /// Whether what follows is read as if nothing stood before it.
    pub(super) fn at_top(&self) -> bool {
        self.place == Place::Top
    }

    /// Makes the UTF-8 lines from `base` on the text.
    fn load(&mut self, base: usize) {
        let rest = self.bytes.get(base..).unwrap_or_default();
        let (text, bad_line) = match std::str::from_utf8(rest) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = error.valid_up_to();
                let start = memchr::memrchr(b'\n', &rest[..valid]).map_or(0, |line_break| line_break + 1);
                let end = memchr::memchr(b'\n', &rest[valid..]).map_or(rest.len(), |line_break| valid + line_break);
                // Up to `valid` it is UTF-8, so no character is lost here.
                (std::str::from_utf8(&rest[..start]).unwrap_or_default(), Some(base + start..base + end))
            }
        };
        (self.text, self.base, self.bad_line, self.at) = (text, base, bad_line, 0);
    }

    /// The next value or reject; an object's members are left in `members`.
    pub(super) fn advance(&mut self, members: &mut Members<'a>) -> Option<Element<'a>> {
        loop {
            match self.step(members) {
                Step::Found(element) => return Some(element),
                Step::Moved => {}
                Step::End | Step::Starved => {
                    let (reason, raw) = self.fault.take()?;
                    return Some(self.reject(reason, raw));
                }
            }
        }
    }

    pub(super) fn step(&mut self, members: &mut Members<'a>) -> Step<'a> {
        match self.place {
            Place::Top => self.top(members),
            Place::Torn { array, before } => self.torn(array, before, members),
            Place::Inside { array, before } => self.inside(array, before, members),
        }
    }

    /// Reads what stands between values: a value, or the end of the text.
    fn top(&mut self, members: &mut Members<'a>) -> Step<'a> {
        let text = self.text.as_bytes();
        self.at = skip_between(text, self.at);
        match text.get(self.at) {
            None => self.text_end(),
            Some(b'{') => self.top_object(members),
            Some(b'[') => {
                self.enter(self.at, self.at + 1, false);
                Step::Moved
            }
            Some(byte) => match scan::value(text, self.at) {
                Ok(end) if *byte == b'"' || is_delimiter(text.get(end)) => {
                    if end == text.len() && self.end == End::Open && *byte != b'"' {
                        return Step::Starved;
                    }
                    self.found(end)
                }
                Ok(_) => self.fail(self.at, Stop::Invalid),
                Err(stop) => self.fail(self.at, stop),
            },
        }
    }

    fn top_object(&mut self, members: &mut Members<'a>) -> Step<'a> {
        let start = self.at;
        match scan::object(self.text, start, members) {
            Ok(end) if !is_page(&members.list) => self.found(end),
            Err(Stop::Incomplete) if self.starves() => Step::Starved,
            outcome => match (page_opening(self.text.as_bytes(), start), outcome) {
                (Some(behind), _) => {
                    self.enter(start, behind, true);
                    Step::Moved
                }
                (None, Ok(end)) => self.found(end),
                (None, Err(stop)) => self.fail(start, stop),
            },
        }
    }

    fn enter(&mut self, start: usize, behind: usize, page: bool) {
        let array = Array { opening: (start, behind), page, failures: 0 };
        self.at = behind;
        self.place = Place::Inside { array, before: Before::First };
    }

    /// Reads on in an array that is still whole.
    fn inside(&mut self, array: Array, before: Before, members: &mut Members<'a>) -> Step<'a> {
        let text = self.text.as_bytes();
        self.at = scan::skip_blank(text, self.at);
        let Some(byte) = text.get(self.at) else { return self.unclosed(array, before) };
        match (before, byte) {
            (Before::First | Before::Separator, b']') => self.close(array),
            (Before::Separator, b',') => {
                self.at += 1;
                self.place = Place::Inside { array, before: Before::Element };
                Step::Moved
            }
            (Before::Separator, _) => {
                self.place = Place::Top;
                self.reject_opening(array)
            }
            (Before::First | Before::Element, _) => {
                let scanned = match byte {
                    b'{' => scan::object(self.text, self.at, members),
                    _ => scan::value(text, self.at),
                };
                match scanned {
                    // A number may go on behind the end.
                    Ok(end) if end == text.len() && self.end == End::Open => Step::Starved,
                    Ok(end) => {
                        self.place = Place::Inside { array, before: Before::Separator };
                        self.found(end)
                    }
                    Err(stop) => {
                        // The opening belongs to the first element's line: `[INFO] text` is rejected as it stands.
                        let bare = before == Before::First && !text[array.opening.0..self.at].contains(&b'\n');
                        self.fail(if bare { array.opening.0 } else { self.at }, stop)
                    }
                }
            }
        }
    }

    /// The text ends inside of an array.
    fn unclosed(&mut self, array: Array, before: Before) -> Step<'a> {
        if self.starves() {
            return Step::Starved;
        }
        if self.bad_line.is_some() {
            self.place = Place::Torn { array, before };
            return Step::Moved;
        }
        self.place = Place::Top;
        if self.end == End::Cut { Step::Moved } else { self.reject_opening(array) }
    }

    fn reject_opening(&mut self, array: Array) -> Step<'a> {
        let raw = &self.text.as_bytes()[array.opening.0..array.opening.1];
        Step::Found(self.reject(RejectReason::InvalidJson, raw))
    }

    /// Leaves an array at its bracket; a page goes on to its brace.
    fn close(&mut self, array: Array) -> Step<'a> {
        let bracket = self.at;
        self.at += 1;
        self.place = Place::Top;
        if array.page {
            match page_closing(self.text.as_bytes(), self.at) {
                Ok(Closing::End(end)) => self.at = end,
                Ok(Closing::More(behind)) => self.enter(bracket, behind, true),
                Err(stop) => return self.fail(bracket, stop),
            }
        }
        Step::Moved
    }

    /// Reads on behind a failed element: separators of the array are passed for as long as they follow its elements.
    fn torn(&mut self, array: Array, before: Before, members: &mut Members<'a>) -> Step<'a> {
        let text = self.text.as_bytes();
        let at = skip_between(text, self.at);
        match (before, text.get(at)) {
            (_, None) if self.bad_line.is_some() => {
                self.at = at;
                return self.text_end();
            }
            (_, None) if self.starves() => return Step::Starved,
            (_, Some(b']')) => {
                self.at = at + 1;
                self.place = Place::Top;
                if array.page {
                    match page_closing(text, self.at) {
                        Ok(Closing::End(end)) => self.at = end,
                        Ok(Closing::More(behind)) => self.enter(at, behind, true),
                        Err(Stop::Incomplete) if self.starves() => return Step::Starved,
                        // The page's line is rejected already.
                        Err(_) => {}
                    }
                }
            }
            (_, Some(b',')) => {
                self.at = at + 1;
                self.place = Place::Torn { array, before: Before::Element };
            }
            (Before::First | Before::Element, Some(b'{')) => {
                self.at = at;
                let step = self.top_object(members);
                if matches!(step, Step::Found(Element::Value { .. })) {
                    self.place = Place::Torn { array, before: Before::Separator };
                }
                return step;
            }
            // What follows is no part of the array any more.
            _ => self.place = Place::Top,
        }
        Step::Moved
    }

    /// The text is read: the line behind it is rejected, or all is done.
    fn text_end(&mut self) -> Step<'a> {
        let Some(line) = self.bad_line.take() else { return Step::End };
        self.load(line.end + 1);
        self.base = self.base.min(self.bytes.len());
        let raw = self.bytes[line].trim_ascii_end();
        Step::Found(self.reject(RejectReason::NotUtf8, raw))
    }

    /// Whether more bytes could make a value of what ends too early.
    fn starves(&self) -> bool {
        self.end == End::Open && self.bad_line.is_none()
    }

    fn found(&mut self, end: usize) -> Step<'a> {
        let json = &self.text[self.at..end];
        self.at = end;
        let index = self.count();
        Step::Found(Element::Value { index, json })
    }

    /// Rejects from `start`, where a value failed, to the first line break, and goes on behind it.
    fn fail(&mut self, start: usize, stop: Stop) -> Step<'a> {
        let text = self.text.as_bytes();
        if stop == Stop::Incomplete && self.starves() {
            return Step::Starved;
        }
        let line_break = memchr::memchr(b'\n', &text[start..]).map(|offset| start + offset);
        let end = line_break.unwrap_or(text.len());
        if line_break.is_none() {
            match self.end {
                End::Open if self.bad_line.is_none() => return Step::Starved,
                End::Cut if stop == Stop::Incomplete => {
                    (self.at, self.place) = (end, Place::Top);
                    return Step::Moved;
                }
                _ => {}
            }
        }
        self.at = line_break.map_or(end, |line_break| line_break + 1);
        self.place = match self.place {
            Place::Inside { array, .. } | Place::Torn { array, .. } if array.failures < Array::MOST_FAILURES => {
                let array = Array { failures: array.failures + 1, ..array };
                Place::Torn { array, before: Before::Element }
            }
            _ => Place::Top,
        };
        let raw = text[start..end].trim_ascii_end();
        Step::Found(self.reject(RejectReason::InvalidJson, raw))
    }

    fn reject(&mut self, reason: RejectReason, raw: &'a [u8]) -> Element<'a> {
        Element::Reject { index: self.count(), reason, raw }
    }

    fn count(&mut self) -> u32 {
        let index = self.index;
        self.index = index.saturating_add(1);
        index
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.advance(&mut Members::default())
    }
}

/// The first place from `at` on that is neither white space, nor `*`, nor a byte order mark.
pub(super) fn skip_between(text: &[u8], mut at: usize) -> usize {
    loop {
        match text.get(at) {
            Some(byte) if scan::is_blank(*byte) || *byte == b'*' => at += 1,
            Some(0xef) if text[at..].starts_with("\u{feff}".as_bytes()) => at += 3,
            _ => return at,
        }
    }
}

/// Whether a number or literal may end before this.
fn is_delimiter(byte: Option<&u8>) -> bool {
    byte.is_none_or(|byte| scan::is_blank(*byte) || matches!(byte, b'{' | b'[' | b'"' | b'*' | b',' | b']'))
}

/// Whether an object is an API page: an array `logs`, and no key of a record.
fn is_page(members: &[scan::Member<'_>]) -> bool {
    members.iter().any(|member| member.key == "logs" && member.value.starts_with('['))
        && !members.iter().any(|member| is_known_key(&member.name()))
}

/// Behind the bracket of the array `logs` of the object at `start`, if only unknown keys stand before it.
fn page_opening(text: &[u8], start: usize) -> Option<usize> {
    match page_member(text, scan::skip_blank(text, start + 1)) {
        Ok(Closing::More(behind)) => Some(behind),
        _ => None,
    }
}

/// What follows the array `logs` of a page.
enum Closing {
    /// The page's end.
    End(usize),
    /// Another array `logs`, entered.
    More(usize),
}

/// From behind the bracket of a page's array to the page's end.
fn page_closing(text: &[u8], at: usize) -> Result<Closing, Stop> {
    let at = scan::skip_blank(text, at);
    match text.get(at) {
        None => Err(Stop::Incomplete),
        Some(b'}') => Ok(Closing::End(at + 1)),
        Some(b',') => page_member(text, scan::skip_blank(text, at + 1)),
        Some(_) => Err(Stop::Invalid),
    }
}

/// Passes the members of a page from the key at `at` on.
fn page_member(text: &[u8], mut at: usize) -> Result<Closing, Stop> {
    loop {
        if at >= text.len() {
            return Err(Stop::Incomplete);
        }
        let end = Ends::default().key(text, at)?;
        let value = scan::behind_colon(text, end)?;
        let key = &text[at + 1..end - 1];
        if key == b"logs" && text.get(value) == Some(&b'[') {
            return Ok(Closing::More(value + 1));
        }
        if std::str::from_utf8(key).is_ok_and(is_known_key) {
            return Err(Stop::Invalid);
        }
        let end = scan::skip_blank(text, scan::value(text, value)?);
        match text.get(end) {
            None => return Err(Stop::Incomplete),
            Some(b'}') => return Ok(Closing::End(end + 1)),
            Some(b',') => at = scan::skip_blank(text, end + 1),
            Some(_) => return Err(Stop::Invalid),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::unpack::unpack;
    use super::*;

    /// A value, or a reject.
    pub(in super::super) type Seen = Result<String, (RejectReason, Vec<u8>)>;

    /// What stands in a payload; the indices are checked.
    pub(in super::super) fn seen(payload: &[u8]) -> Vec<Seen> {
        let unpacked = unpack(payload, 1 << 20);
        let mut place = 0;
        let see = |element| {
            let (index, seen) = match element {
                Element::Value { index, json } => (index, Ok(json.to_owned())),
                Element::Reject { index, reason, raw } => (index, Err((reason, raw.to_owned()))),
            };
            assert_eq!(index, place);
            place += 1;
            seen
        };
        elements(&unpacked).map(see).collect()
    }

    fn values(payload: impl AsRef<[u8]>) -> Vec<String> {
        seen(payload.as_ref()).into_iter().map(|seen| seen.expect("a value")).collect()
    }

    /// `=value` or `!raw` of an `invalid_json`.
    fn mixed(payload: &str) -> Vec<String> {
        let show = |seen: Seen| match seen {
            Ok(json) => format!("={json}"),
            Err((RejectReason::InvalidJson, raw)) => format!("!{}", String::from_utf8(raw).unwrap()),
            Err((reason, _)) => panic!("{reason:?}"),
        };
        seen(payload.as_bytes()).into_iter().map(show).collect()
    }

    #[test]
    fn blank_payloads_hold_nothing() {
        for payload in
            ["", " \r\n\t", "\u{feff}", "**********\n**\n", "[]", "[ ]\n[]", "{\"logs\":[],\"nextPageToken\":\"\"}"]
        {
            assert_eq!(values(payload), [""; 0], "{payload}");
        }
    }

    #[test]
    fn values_come_with_or_without_separators() {
        for payload in [
            "{\"a\":1}\n{\"b\":2}\n",
            "{\"a\":1}\r\n{\"b\":2}",
            "{\"a\":1}{\"b\":2}",
            "\u{feff}{\"a\":1}\u{feff}\n\u{feff}{\"b\":2}",
            "**********\n{\"a\":1}\n**********\n{\"b\":2}\n**********",
            "[{\"a\":1},{\"b\":2}]",
            "[\r\n  {\"a\":1},\r\n  {\"b\":2}\r\n]",
            "[{\"a\":1}][{\"b\":2}]",
            "{\"logs\":[{\"a\":1},{\"b\":2}],\"nextPageToken\":\"\"}",
            "{\"nextPageToken\":\"t\", \"logs\": [ {\"a\":1} ] , \"x\": {} }{\"b\":2}",
            "{\"logs\":[{\"a\":1}],\"logs\":[{\"b\":2}]}",
        ] {
            assert_eq!(values(payload), ["{\"a\":1}", "{\"b\":2}"], "{payload}");
        }
    }

    #[test]
    fn an_object_is_a_page_only_with_an_array_logs_and_no_key_of_a_record() {
        for payload in [
            "{\"logs\":{}}",
            "{\"logs\":[{}],\"operation\":\"x\"}",
            "{\"log_id\":1,\"logs\":[1]}",
            "{\"x\":{\"logs\":[1]}}",
        ] {
            assert_eq!(values(payload), [payload]);
        }
    }

    #[test]
    fn values_of_other_kinds_are_values_too() {
        assert_eq!(values("12 null true \"x\" [[1],2,\"y\"]"), ["12", "null", "true", "\"x\"", "[1]", "2", "\"y\""]);
    }

    #[test]
    fn what_fails_is_rejected_from_its_start_to_the_first_line_break() {
        assert_eq!(mixed("{\"a\":1} oops {\"b\":2}\n{\"c\":3}"), ["={\"a\":1}", "!oops {\"b\":2}", "={\"c\":3}"]);
        assert_eq!(mixed("{\"a\":\n{\"b\":2}\n{\"c\":3}\n"), ["!{\"a\":", "={\"b\":2}", "={\"c\":3}"]);
        assert_eq!(mixed("{\"a\":1}\n{\"b\":"), ["={\"a\":1}", "!{\"b\":"]);
        assert_eq!(mixed("2026-11-05 panic\n{\"c\":3}"), ["!2026-11-05 panic", "={\"c\":3}"]);
        assert_eq!(mixed("truex\nnullnull"), ["!truex", "!nullnull"]);
        assert_eq!(mixed("{\"a\":01}\r\n"), ["!{\"a\":01}"]);
    }

    #[test]
    fn a_bad_element_never_costs_its_neighbours() {
        let broken = "[\n{\"a\":1},\n{\"b\":oops},\n{\"c\":3},{\"d\":4}\n]\n{\"e\":5}";
        assert_eq!(mixed(broken), ["={\"a\":1}", "!{\"b\":oops},", "={\"c\":3}", "={\"d\":4}", "={\"e\":5}"]);
        assert_eq!(mixed("[{\"a\":1},{\"b\":oops}]\n{\"c\":3}"), ["={\"a\":1}", "!{\"b\":oops}]", "={\"c\":3}"]);
        let page = "{\"logs\":[{\"a\":1},\n{\"b\":oops},\n{\"c\":3}],\"nextPageToken\":\"\"}\n{\"d\":4}";
        assert_eq!(mixed(page), ["={\"a\":1}", "!{\"b\":oops},", "={\"c\":3}", "={\"d\":4}"]);
        let pages = "{\"logs\":[{\"a\":oops}]}\n{\"logs\":[{\"b\":2},{\"c\":3}]}";
        assert_eq!(
            mixed(pages),
            ["!{\"a\":oops}]}", "={\"b\":2}", "={\"c\":3}"].map(|x| x.replace("!{\"a", "!{\"logs\":[{\"a"))
        );
        assert_eq!(mixed("[{\"a\":1}\n{\"b\":2}]"), ["={\"a\":1}", "![", "={\"b\":2}", "!]"]);
    }

    #[test]
    fn an_array_that_is_never_closed_gives_its_elements_and_a_reject() {
        assert_eq!(mixed("[{\"a\":1},"), ["={\"a\":1}", "!["]);
        assert_eq!(mixed("[{\"a\":1},{\"b\""), ["={\"a\":1}", "!{\"b\""]);
        assert_eq!(mixed("{\"logs\":[{\"a\":1}"), ["={\"a\":1}", "!{\"logs\":["]);
        assert_eq!(mixed("{\"logs\":[{\"a\":1}],"), ["={\"a\":1}", "!],"]);
        assert_eq!(mixed("[{\"a\":1},]\n{\"b\":2}"), ["={\"a\":1}", "!]", "={\"b\":2}"]);
        assert_eq!(mixed("[INFO] started\n{\"a\":1}"), ["![INFO] started", "={\"a\":1}"]);
    }

    #[test]
    fn a_line_that_is_not_utf8_is_rejected_by_itself() {
        let reject = |raw: &[u8]| Err((RejectReason::NotUtf8, raw.to_vec()));
        assert_eq!(seen(b"\xff\xfe\xfb\x00"), [reject(b"\xff\xfe\xfb\x00")]);
        let lines = b"{\"a\":1}\n{\"b\":\"\xff\"}\r\n\xff\n{\"c\":3}";
        assert_eq!(
            seen(lines),
            [Ok("{\"a\":1}".into()), reject(b"{\"b\":\"\xff\"}"), reject(b"\xff"), Ok("{\"c\":3}".into())]
        );
        let array = b"[\n{\"a\":1},\n{\"b\":\"\xff\"},\n{\"c\":3}\n]\n";
        assert_eq!(seen(array), [Ok("{\"a\":1}".into()), reject(b"{\"b\":\"\xff\"},"), Ok("{\"c\":3}".into())]);
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_payloads_of_several_members_or_frames_are_read_through() {
        let zstd = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        for compress in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zstd] {
            let payload = [compress(b"{\"a\":1}\n{\"b\""), compress(b":2}\n")].concat();
            assert_eq!(values(payload), ["{\"a\":1}", "{\"b\":2}"]);
        }
    }

    #[test]
    fn a_truncated_payload_gives_what_could_be_read_and_one_reject() {
        let lines: Vec<_> = (0..2000).map(|id| format!("{{\"id\":{}}}\n", id * 7919)).collect();
        let text = lines.concat();
        let whole = gzip(text.as_bytes());
        let cut = &whole[..whole.len() / 2];
        let mut seen = seen(cut);
        assert_eq!(seen.pop(), Some(Err((RejectReason::DecompressionFailed, cut.to_vec()))));
        assert!(seen.len() > 500);
        assert!(seen.iter().all(Result::is_ok), "the line that was cut is in the payload's reject");
        let mut corrupt = whole.clone();
        let middle = corrupt.len() / 2;
        corrupt[middle..].fill(0xff);
        let unpacked = unpack(&corrupt, 1 << 20);
        assert_eq!(unpacked.fault, Some(RejectReason::DecompressionFailed));
        assert!(unpacked.text.len() > text.len() / 3);
        assert!(text.as_bytes().starts_with(&unpacked.text[..text.len() / 3]));
    }

    #[test]
    fn a_payload_that_is_too_large_gives_what_fits_and_one_reject() {
        let payload = gzip(&b"{\"a\":1}\n".repeat(10));
        let unpacked = unpack(&payload, 20);
        assert_eq!((unpacked.text.len(), unpacked.fault), (20, Some(RejectReason::PayloadTooLarge)));
        let found: Vec<_> = elements(&unpacked).collect();
        let reject = Element::Reject { index: 2, reason: RejectReason::PayloadTooLarge, raw: &payload };
        assert_eq!((found.len(), found[2]), (3, reject));
        assert_eq!(unpack(&gzip(b"12345"), 5).fault, None, "the limit itself is allowed");
        let plain = unpack(b"{} {}", 4);
        assert_eq!((plain.text.len(), plain.fault), (0, Some(RejectReason::PayloadTooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn good_lines_survive_any_bad_line(bad in "[^\n]{0,30}", before in 0..3_usize, after in 1..3_usize) {
            // A line that opens something its successors close is no bad line, but a part of a value.
            prop_assume!(scan::value(bad.trim().as_bytes(), 0) != Err(Stop::Incomplete));
            let good = "{\"log_id\":\"x\"}\n";
            let file = [&good.repeat(before), bad.as_str(), "\n", &good.repeat(after)].concat();
            let survivors = seen(file.as_bytes()).iter().filter(|seen| **seen == Ok(good.trim().to_owned())).count();
            prop_assert_eq!(survivors, before + after);
        }

        #[test]
        fn good_elements_survive_any_bad_element(bad in "[^\n\\]\\[]{1,20}", page in any::<bool>()) {
            let (open, close) = if page { ("{\"logs\":[", "]}") } else { ("[", "]") };
            let text = format!("{open}\n{{\"a\":1}},\n{bad},\n{{\"b\":2}},\n{{\"c\":3}}\n{close}\n{{\"d\":4}}\n");
            let seen = seen(text.as_bytes());
            for good in ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}", "{\"d\":4}"] {
                prop_assert!(seen.contains(&Ok(good.to_owned())), "{good} of {text}: {seen:?}");
            }
        }
    }
}
