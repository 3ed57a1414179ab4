//! Cuts a file into units, each a payload of its own, while it is being read (and while it grows).
//!
//! Decoding the units one by one gives the values and rejects of the whole file, in order. A unit is a line, or as many
//! lines as a value spans; an array or an API page is one unit, however long it is.

use memchr::{memchr, memchr_iter, memrchr};

use super::framing::{Elements, End, Step, skip_between};
use super::scan::{self, Members};

/// What a buffer begins with; see [`split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// A unit of `len` bytes, behind `skip` bytes that hold nothing. Its line break is not part of it: the next buffer
    /// begins right behind the unit.
    Unit {
        /// Lines in front that hold white space, separators and byte order marks only.
        skip: usize,
        /// The unit's length; not 0.
        len: usize,
    },
    /// Nothing: lines of white space, separators and byte order marks. At the end of the file this is all of the buffer;
    /// before it, up to the last line break, more must come.
    Blank {
        /// How many bytes hold nothing.
        len: usize,
    },
    /// The unit may go on behind the buffer.
    NeedMore,
}

/// The first unit of a buffer that begins where a file or a unit's successor begins; `at_end` where the file ends with
/// the buffer. [`Split::NeedMore`] is never the answer at the end.
///
/// Costs a few comparisons per line where a line is an object by its looks, else about as much as decoding the unit.
/// A caller that doubles its buffer on [`Split::NeedMore`] pays at most twice.
pub fn split(buffer: &[u8], at_end: bool) -> Split {
    let first = skip_between(buffer, 0);
    // Units begin with their line, so that a line which is not UTF-8 is rejected as it stands.
    let skip = memrchr(b'\n', &buffer[..first]).map_or(0, |line_break| line_break + 1);
    if first == buffer.len() && (at_end || skip > 0) {
        return Split::Blank { len: if at_end { first } else { skip } };
    }
    let rest = &buffer[skip..];
    let line = match memchr(b'\n', rest) {
        Some(line_break) => &rest[..line_break],
        None if at_end => rest,
        None => return Split::NeedMore,
    };
    let unit = trim_blank_end(line);
    if is_object_by_its_looks(&unit[first - skip..]) && ends_by_what_follows(&rest[line.len()..], at_end) {
        return Split::Unit { skip, len: unit.len() };
    }
    // A line that is not complete may yet turn out not to be UTF-8: nothing is read out of it.
    let complete = if at_end { rest.len() } else { memrchr(b'\n', rest).map_or(0, |line_break| line_break + 1) };
    by_decoding(&rest[..complete], line.len(), at_end).map_or(Split::NeedMore, |len| Split::Unit { skip, len })
}

/// Whether a line begins and ends as an object does and has no array or page at its top, which alone could reach into
/// the next line in spite of [`ends_by_what_follows`].
fn is_object_by_its_looks(line: &[u8]) -> bool {
    line.first() == Some(&b'{')
        && line.last() == Some(&b'}')
        && memchr_iter(b'[', line).all(|bracket| {
            let before = trim_blank_end(&line[..bracket]);
            match before.last() {
                Some(b',' | b'[') => true,
                // A page's array follows its key; every other array that follows a colon is inside of an object.
                Some(b':') => !trim_blank_end(&before[..before.len() - 1]).ends_with(b"\"logs\""),
                _ => false,
            }
        })
}

/// Whether a value that is incomplete after a closing brace fails at what follows: only these could continue it.
fn ends_by_what_follows(rest: &[u8], at_end: bool) -> bool {
    match rest.get(scan::skip_blank(rest, 0)) {
        Some(byte) => !matches!(byte, b',' | b'}' | b']'),
        None => at_end,
    }
}

/// The length of the unit that `rest` begins with, found by decoding: first its first line, then twice as much.
fn by_decoding(rest: &[u8], first_line: usize, at_end: bool) -> Option<usize> {
    let mut length = (first_line + 1).min(rest.len());
    loop {
        let all = length == rest.len();
        if let Some(len) = decode_unit(&rest[..length], at_end && all) {
            return Some(len);
        }
        if all {
            return None;
        }
        let twice = (2 * length).min(rest.len());
        length = memchr(b'\n', &rest[twice..]).map_or(rest.len(), |line_break| twice + line_break + 1);
    }
}

/// Decodes up to the first line break at which nothing is open.
fn decode_unit(view: &[u8], at_end: bool) -> Option<usize> {
    let mut elements = Elements::new(view, if at_end { End::Whole } else { End::Open });
    let mut members = Members::default();
    loop {
        let at = elements.position();
        if elements.at_top() && at > 0 {
            let next = skip_between(view, at);
            if view[at - 1] == b'\n' || view[at..next].contains(&b'\n') {
                return Some(trim_blank_end(&view[..at]).len());
            }
        }
        match elements.step(&mut members) {
            Step::Found(_) | Step::Moved => {}
            Step::End if at_end => return Some(trim_blank_end(view).len()),
            Step::End | Step::Starved => return None,
        }
    }
}

fn trim_blank_end(text: &[u8]) -> &[u8] {
    let kept = text.iter().rposition(|byte| !scan::is_blank(*byte)).map_or(0, |last| last + 1);
    &text[..kept]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::framing::tests::{Seen, seen};
    use super::*;

    /// Reads a file in chunks as a caller does, and decodes its units one by one.
    fn seen_by_units(file: &[u8], chunk: usize) -> Vec<Seen> {
        units(file, chunk).into_iter().flat_map(seen).collect()
    }

    fn units(file: &[u8], chunk: usize) -> Vec<&[u8]> {
        let (mut at, mut wanted) = (0, chunk);
        let mut units = Vec::new();
        loop {
            let end = (at + wanted).min(file.len());
            let buffer = &file[at..end];
            match split(buffer, end == file.len()) {
                Split::Unit { skip, len } => {
                    assert!(len > 0);
                    units.push(&buffer[skip..skip + len]);
                    at += skip + len;
                    wanted = chunk;
                }
                Split::Blank { len } if end == file.len() => {
                    assert_eq!(len, buffer.len());
                    return units;
                }
                Split::Blank { len } => {
                    assert!(len > 0);
                    at += len;
                }
                Split::NeedMore => {
                    assert!(end < file.len(), "the end of the file decides everything");
                    wanted *= 2;
                }
            }
        }
    }

    fn unit(buffer: &str, at_end: bool) -> Option<&str> {
        match split(buffer.as_bytes(), at_end) {
            Split::Unit { skip, len } => Some(&buffer[skip..skip + len]),
            _ => None,
        }
    }

    #[test]
    fn a_line_is_a_unit_without_its_line_break() {
        assert_eq!(unit("{\"a\":1}\n{\"b\":2}\n", false), Some("{\"a\":1}"));
        assert_eq!(unit("\n \r\n**********\n{\"a\":1}\r\n{", false), Some("{\"a\":1}"));
        assert_eq!(unit("garbage }\n{\"a\":1}\n", false), Some("garbage }"));
    }

    #[test]
    fn the_last_complete_line_of_a_growing_file_does_not_wait_for_the_next() {
        assert_eq!(unit("{\"a\":1}\n", false), Some("{\"a\":1}"));
        assert_eq!(unit("{\"a\":[1]}\n\n", false), Some("{\"a\":[1]}"));
        assert_eq!(unit("[1,2]\n", false), Some("[1,2]"));
        assert_eq!(split(b"{\"a\":1}", false), Split::NeedMore, "the line may go on");
    }

    #[test]
    fn a_value_that_spans_lines_is_one_unit_and_waits_for_its_end() {
        let pretty = "{\n \"a\": {}\n,\n \"b\": 1\n}\n";
        assert_eq!(unit(pretty, false), Some(pretty.trim_end()));
        for end in 1..pretty.trim_end().len() {
            assert_eq!(split(&pretty.as_bytes()[..end], false), Split::NeedMore, "{:?}", &pretty[..end]);
        }
    }

    #[test]
    fn a_truncated_line_costs_only_itself() {
        assert_eq!(unit("{\"a\":{\"b\":1}\n{\"c\":2}\n", false), Some("{\"a\":{\"b\":1}"));
        assert_eq!(unit("{\"a\":\n{\"c\":2}\n{\"d\":3}\n", false), Some("{\"a\":"));
        assert_eq!(unit("{\"a\":\"b", true), Some("{\"a\":\"b"));
    }

    #[test]
    fn an_array_or_a_page_is_one_unit() {
        for document in ["[\n{\"a\":1},\n{\"b\":2}\n]", "{\"logs\":[{\"a\":1},\n{\"b\":2}],\n\"nextPageToken\":\"\"}"] {
            let file = format!("{document}\n{{\"c\":3}}\n");
            assert_eq!(units(file.as_bytes(), 8), [document.as_bytes(), b"{\"c\":3}"]);
        }
    }

    #[test]
    fn nothing_is_blank_at_the_end_and_waits_before_it() {
        assert_eq!(split(b"", true), Split::Blank { len: 0 });
        assert_eq!(split(b"", false), Split::NeedMore);
        assert_eq!(split(b" \r\n***", true), Split::Blank { len: 6 });
        assert_eq!(split(b" \r\n***", false), Split::Blank { len: 3 });
        assert_eq!(split(b"***", false), Split::NeedMore);
    }

    #[test]
    fn garbage_is_cut_into_lines_without_reading_far() {
        let file = "[INFO] x\n".repeat(1000);
        assert!(units(file.as_bytes(), 16).iter().all(|unit| unit.len() < 200));
    }

    #[test]
    fn a_line_that_is_not_complete_decides_nothing_since_it_may_turn_out_not_to_be_utf8() {
        // Found by the property below.
        for file in
            [b"{\n\"a\":1\n}\xc3\xa9".as_slice(), b"[{\"a\":1}\n{\"b\":2}\xff", b"[{\"a\":1}\n{\"b\":2}\xff\n{}]"]
        {
            for chunk in 1..file.len() {
                assert_eq!(seen_by_units(file, chunk), seen(file), "{}", file.escape_ascii());
            }
        }
    }

    #[test]
    fn a_line_that_looks_like_an_object_but_goes_on_is_not_taken_for_one() {
        for file in [
            "{\"a\":{}\n,\"b\":1}\n",
            "{\"a\":{\"b\":{}\n}\n}\n{}\n",
            "{\"a\":[{}\n]}\n",
            "{\"logs\":[{\"a\":oops}\n{\"b\":2},{\"c\":3}\n]}\n{\"d\":4}\n",
            "{\"logs\" : [{\"a\":1}\n,{\"b\":2}]}\n{\"d\":4}\n",
            "{}[{\"a\":oops}\n{\"b\":2},{\"c\":3}]\n",
            "{} ** [[{\"a\":oops}\n{\"b\":2},{\"c\":3}]\n",
        ] {
            for chunk in 1..=file.len() {
                assert_eq!(seen_by_units(file.as_bytes(), chunk), seen(file.as_bytes()), "{file}");
            }
        }
    }

    /// What a file may be made of, good and bad.
    fn file() -> impl Strategy<Value = Vec<u8>> {
        let record = || {
            (0..100_u32, prop::sample::select(vec!["", " ", "\n", "\r\n  "])).prop_map(|(id, gap)| {
                format!("{{{gap}\"log_id\":{gap}\"{id}\",\"details\":{{\"x\":[1,{{}}]}}{gap}}}").into_bytes()
            })
        };
        let token = prop::sample::select(vec![
            "\n",
            "\n",
            "\n",
            "\r\n",
            " ",
            ",",
            ",\n",
            "[",
            "]",
            "{",
            "}",
            "]\n",
            "}\n",
            ":",
            "\"",
            "**********\n",
            "*",
            "\u{feff}",
            "{\"logs\":[",
            "]}",
            "],\"nextPageToken\":\"\"}",
            ",\"logs\":[",
            "[{\"a\":oops},",
            "12",
            "null",
            "true",
            "-",
            "text",
            "\"s\"",
            "{\"a\":{}\n",
            ",\"b\":1}\n",
            "{\"logs\":[{\"a\":oops}\n",
            "\"logs\":",
            "{\"operation\":1,",
            "\"\\ud800\"",
            "é",
        ])
        .prop_map(|token| token.as_bytes().to_vec());
        let truncated = (record(), any::<prop::sample::Index>())
            .prop_map(|(record, at)| [&record[..at.index(record.len())], b"\n"].concat());
        let bytes = prop::sample::select(vec![
            b"\xff".to_vec(),
            b"\xc3".to_vec(),
            b"\xe2\x82".to_vec(),
            b"\xff\n".to_vec(),
            b"\x00".to_vec(),
            b"\x0c".to_vec(),
        ]);
        let line = record().prop_map(|record| [record.as_slice(), b"\n"].concat());
        let piece = prop_oneof![3 => record(), 4 => line, 6 => token, 2 => truncated, 1 => bytes];
        prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn units_one_by_one_give_what_the_whole_file_gives(file in file(), chunk in 1..40_usize) {
            prop_assert_eq!(seen_by_units(&file, chunk), seen(&file));
        }

        #[test]
        fn any_bytes_are_split_as_they_are_decoded(file in prop::collection::vec(any::<u8>(), 0..60), chunk in 1..9_usize) {
            prop_assert_eq!(seen_by_units(&file, chunk), seen(&file));
        }
    }
}
