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

use std::borrow::Cow;
use std::io::{self, BufReader, Read};
use std::ops::Range;

use super::RejectReason;
use super::fields::is_known_key;
use super::scan::{self, Members, Stop};

/// A payload, decompressed where it was compressed.
#[derive(Clone, Debug)]
pub struct Unpacked<'p> {
    /// What is to be decoded.
    pub text: Cow<'p, [u8]>,
    /// Why the text is not all of the payload: rejects the payload as it came, beside what the text still gives.
    pub fault: Option<RejectReason>,
    /// The payload as it came.
    pub payload: &'p [u8],
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Decompresses a payload that begins as gzip or zstd does, to at most `max_bytes`.
///
/// What could be read of a damaged or too large one is its text, so that good records survive.
pub fn unpack(payload: &[u8], max_bytes: u64) -> Unpacked<'_> {
    let inflated = if payload.starts_with(GZIP) {
        inflate(
            max_bytes,
            || Ok(flate2::bufread::MultiGzDecoder::new(payload)),
            || Ok(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(SIP, payload))),
        )
    } else if payload.starts_with(ZSTD) {
        inflate(
            max_bytes,
            || zstd::stream::read::Decoder::with_buffer(payload),
            || zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(SIP, payload)),
        )
    } else if payload.len() as u64 > max_bytes {
        (Vec::new(), Some(RejectReason::PayloadTooLarge))
    } else {
        return Unpacked { text: Cow::Borrowed(payload), fault: None, payload };
    };
    Unpacked { text: Cow::Owned(inflated.0), fault: inflated.1, payload }
}

/// Small enough that a decoder which fails has handed out nearly all that it could read before.
const SIP: usize = 16;

/// Reads it all; where that fails, again in sips, since a decoder that fails keeps what the same call produced.
fn inflate<A: Read, B: Read>(
    max_bytes: u64,
    whole: impl FnOnce() -> io::Result<A>,
    sips: impl FnOnce() -> io::Result<B>,
) -> (Vec<u8>, Option<RejectReason>) {
    let (text, fault) = read_bounded(whole(), max_bytes);
    if fault != Some(RejectReason::DecompressionFailed) {
        return (text, fault);
    }
    let (again, _) = read_bounded(sips(), max_bytes);
    (if again.len() > text.len() { again } else { text }, fault)
}

fn read_bounded(reader: io::Result<impl Read>, max_bytes: u64) -> (Vec<u8>, Option<RejectReason>) {
    let mut text = Vec::new();
    let fault = match reader.and_then(|reader| reader.take(max_bytes.saturating_add(1)).read_to_end(&mut text)) {
        Ok(length) if length as u64 > max_bytes => {
            text.pop();
            Some(RejectReason::PayloadTooLarge)
        }
        Ok(_) => None,
        Err(_) => Some(RejectReason::DecompressionFailed),
    };
    (text, fault)
}

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
    /// More may come: nothing is decided by the end.
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
        if self.bad_line.is_some() {
            self.place = Place::Torn { array, before };
            return Step::Moved;
        }
        if self.end == End::Open {
            return Step::Starved;
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
            (_, None) if self.end == End::Open => return Step::Starved,
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
        if self.end == End::Open && line.end == self.bytes.len() {
            self.bad_line = Some(line);
            return Step::Starved;
        }
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
            Place::Top => Place::Top,
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
        let (key_end, value) = scan::key(text, at)?;
        let key = &text[at + 1..key_end - 1];
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
