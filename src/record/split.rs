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
    by_decoding(rest, line.len(), at_end).map_or(Split::NeedMore, |len| Split::Unit { skip, len })
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
