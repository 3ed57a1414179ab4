//! Strict JSON (RFC 8259) in one pass, without building anything: where does a value end, and what are an object's
//! members? The text is UTF-8 already; nothing here recurses.
//!
//! What counts as JSON is what `serde_json` takes for a `Value`, numbers beyond its range aside: no leading zeros, no
//! raw control characters, no lone surrogates in `\u` escapes, at most 127 levels.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::key_log::{KeyLog, Keys};
use super::strings::{Ends, unescape};

/// Why no value ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes so far begin no JSON value.
    Invalid,
    /// The bytes so far may begin a value; they end inside of it.
    Incomplete,
}

/// One member of an object, as it is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Between the quotes, escapes and all.
    pub(super) key: &'a str,
    /// The value's text.
    pub(super) value: &'a str,
}

impl<'a> Member<'a> {
    /// The key without escapes.
    #[inline]
    pub(super) fn name(&self) -> Cow<'a, str> {
        unescape(self.key)
    }
}

/// As many levels as `serde_json` allows.
pub(super) const MAX_DEPTH: u32 = 127;

/// The white space of JSON.
#[inline]
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The first place from `at` on that is no white space.
#[inline]
pub(super) fn skip_blank(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| is_blank(*byte)) {
        at += 1;
    }
    at
}

/// What stands at `at`, white space passed over.
#[inline]
fn next(text: &[u8], at: usize) -> Result<(usize, u8), Stop> {
    let at = skip_blank(text, at);
    text.get(at).map(|byte| (at, *byte)).ok_or(Stop::Incomplete)
}

/// The end of the value that begins at `start`.
pub(super) fn value(text: &[u8], start: usize) -> Result<usize, Stop> {
    value_in(text, start, &mut Nest::of(()))
}

/// The members of an object.
#[derive(Default)]
pub(super) struct Members<'a> {
    /// In order.
    pub(super) list: Vec<Member<'a>>,
    /// Whether some object, this one or one inside of it, may have a key twice. Errs on the side of `true`.
    pub(super) may_repeat: bool,
    /// Whether some string has escapes.
    pub(super) has_escapes: bool,
    /// Room for finding that out.
    keys: Keys,
}

/// The members of the object that begins at `start`, and its end.
pub(super) fn object<'a>(text: &'a str, start: usize, members: &mut Members<'a>) -> Result<usize, Stop> {
    members.list.clear();
    // A record has about ten.
    members.list.reserve(16);
    members.keys.clear();
    let mut nest = Nest::of(&mut members.keys);
    let end = each_member(text, start, &mut nest, |member| members.list.push(member))?;
    members.has_escapes = nest.ends.escaped_since(start);
    members.may_repeat = members.keys.repeated;
    Ok(end)
}

/// Hands over the members of the object that begins at `start`; its end.
#[inline]
fn each_member<'a, K: KeyLog>(
    text: &'a str,
    start: usize,
    nest: &mut Nest<K>,
    mut take: impl FnMut(Member<'a>),
) -> Result<usize, Stop> {
    each_member_until(text, start, nest, |member| {
        take(member);
        ControlFlow::Continue(())
    })
}

/// As [`each_member`], until `take` has enough; then the end of the member that it took last.
#[inline]
fn each_member_until<'a, K: KeyLog>(
    text: &'a str,
    start: usize,
    nest: &mut Nest<K>,
    mut take: impl FnMut(Member<'a>) -> ControlFlow<()>,
) -> Result<usize, Stop> {
    let bytes = text.as_bytes();
    if bytes.get(start) != Some(&b'{') {
        return Err(Stop::Invalid);
    }
    nest.open(true)?;
    let (mut at, byte) = next(bytes, start + 1)?;
    if byte == b'}' {
        return Ok(at + 1);
    }
    loop {
        let value_start = nest.key(bytes, at)?;
        let key = &text[at + 1..nest.key_end - 1];
        let value_end = value_in(bytes, value_start, nest)?;
        let member = Member { key, value: &text[value_start..value_end] };
        if take(member).is_break() {
            return Ok(value_end);
        }
        match next(bytes, value_end)? {
            (comma, b',') => at = next(bytes, comma + 1)?.0,
            (end, b'}') => return Ok(end + 1),
            _ => return Err(Stop::Invalid),
        }
    }
}

/// The end of a value inside of the containers that `nest` has open.
#[inline]
fn value_in<K: KeyLog>(text: &[u8], start: usize, nest: &mut Nest<K>) -> Result<usize, Stop> {
    let base = nest.depth;
    let (mut at, mut key_first) = (start, false);
    loop {
        if key_first {
            at = nest.key(text, at)?;
        }
        at = match text.get(at) {
            None => return Err(Stop::Incomplete),
            Some(b'"') => nest.ends.string(text, at)?,
            Some(open @ (b'{' | b'[')) => {
                let (object, close) = if *open == b'{' { (true, b'}') } else { (false, b']') };
                nest.open(object)?;
                let (first, byte) = next(text, at + 1)?;
                if byte != close {
                    (at, key_first) = (first, object);
                    continue;
                }
                first
            }
            Some(_) => scalar(text, at)?,
        };
        // Behind a value, or before the end of a container that is empty.
        loop {
            if nest.depth == base {
                return Ok(at);
            }
            let object = nest.in_object();
            match next(text, at)? {
                (comma, b',') => {
                    (at, key_first) = (next(text, comma + 1)?.0, object);
                    break;
                }
                (end, b'}') if object => at = end + 1,
                (end, b']') if !object => at = end + 1,
                _ => return Err(Stop::Invalid),
            }
            nest.close();
        }
    }
}

/// Which containers are open: one bit a level, set for objects.
struct Nest<K> {
    objects: u128,
    depth: u32,
    keys: K,
    /// Behind the closing quote of the key that was met last.
    key_end: usize,
    ends: Ends,
}

impl<K: KeyLog> Nest<K> {
    #[inline]
    fn of(keys: K) -> Self {
        Self { objects: 0, depth: 0, keys, key_end: 0, ends: Ends::default() }
    }

    #[inline]
    fn open(&mut self, object: bool) -> Result<(), Stop> {
        if self.depth == MAX_DEPTH {
            return Err(Stop::Invalid);
        }
        self.keys.open(self.depth);
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        Ok(())
    }

    #[inline]
    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.keys.close(self.depth);
    }

    /// Whether the innermost one is an object.
    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    /// Where the value of the key at `at` begins.
    #[inline]
    fn key(&mut self, text: &[u8], at: usize) -> Result<usize, Stop> {
        let end = self.ends.key(text, at)?;
        self.keys.add(self.depth, &text[at + 1..end - 1], self.ends.escaped_since(at));
        self.key_end = end;
        behind_colon(text, end)
    }
}

/// Where the value of a key begins that ends at `end`.
#[inline]
pub(super) fn behind_colon(text: &[u8], end: usize) -> Result<usize, Stop> {
    match next(text, end)? {
        (colon, b':') => Ok(next(text, colon + 1)?.0),
        _ => Err(Stop::Invalid),
    }
}

/// The end of the literal or number at `at`.
#[inline]
pub(super) fn scalar(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text[at] {
        b't' => literal(text, at, b"true"),
        b'f' => literal(text, at, b"false"),
        b'n' => literal(text, at, b"null"),
        b'-' | b'0'..=b'9' => number(text, at),
        _ => Err(Stop::Invalid),
    }
}

#[inline]
fn literal(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Stop> {
    let rest = &text[at..];
    if rest.starts_with(word) {
        Ok(at + word.len())
    } else if word.starts_with(rest) {
        Err(Stop::Incomplete)
    } else {
        Err(Stop::Invalid)
    }
}

#[inline]
fn number(text: &[u8], at: usize) -> Result<usize, Stop> {
    let mut at = at + usize::from(text[at] == b'-');
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        at = digits(text, at)?;
    }
    Ok(at)
}

/// The end of one or more digits.
#[inline]
fn digits(text: &[u8], at: usize) -> Result<usize, Stop> {
    let rest = text.get(at..).unwrap_or_default();
    match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
        0 if rest.is_empty() => Err(Stop::Incomplete),
        0 => Err(Stop::Invalid),
        count => Ok(at + count),
    }
}

/// The elements of a valid JSON array; `None` for another kind of value.
pub(super) fn elements_of(array: &str) -> Option<Vec<&str>> {
    let bytes = array.as_bytes();
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let mut elements = Vec::new();
    let mut at = skip_blank(bytes, 1);
    while bytes.get(at) != Some(&b']') {
        let end = value(bytes, at).ok()?;
        elements.push(&array[at..end]);
        at = skip_blank(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = skip_blank(bytes, at + 1);
        }
    }
    Some(elements)
}

/// The members of a valid JSON object; `None` for another kind of value.
pub(super) fn members_of(object_text: &str) -> Option<Vec<Member<'_>>> {
    let mut members = Vec::new();
    each_member_of(object_text, |member| members.push(member)).then_some(members)
}

/// Hands over the members of a valid JSON object; `false` for another kind of value.
#[inline]
pub(super) fn each_member_of<'a>(object_text: &'a str, take: impl FnMut(Member<'a>)) -> bool {
    each_member(object_text, 0, &mut Nest::of(()), take) == Ok(object_text.len())
}

/// The value of a valid JSON object's first member of this key, as it is spelled. What comes behind it is not looked at.
#[inline]
pub(super) fn first_member<'a>(object_text: &'a str, key: &str) -> Option<&'a str> {
    let mut found = None;
    let stop_there = |member: Member<'a>| {
        if member.key != key {
            return ControlFlow::Continue(());
        }
        found = Some(member.value);
        ControlFlow::Break(())
    };
    // Both ends of the search are as good: at the member, or behind all of them.
    let _ = each_member_until(object_text, 0, &mut Nest::of(()), stop_there);
    found
}

/// Whether `text` is exactly one JSON value with no space around it.
pub(super) fn is_value(text: &str) -> bool {
    value(text.as_bytes(), 0) == Ok(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Pieces of JSON in any order: most texts are nearly valid.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"b\":1",
            "\"c\":",
            " ",
            "\n",
            "\t",
            "\r",
            "0",
            "1",
            "-",
            "01",
            ".5",
            "1.5",
            "1e5",
            "1E+5",
            "e",
            "2e-",
            "true",
            "false",
            "null",
            "nul",
            "\\",
            "\\n",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude80\"",
            "\"\\ud83d\"",
            "\"\\udc00\"",
            "\"\\ud83dx\"",
            "\"é🚀\"",
            "\u{1}",
            "\u{7f}",
            "\"long enough for a word\"",
            "\"with \\\" quote in it\"",
            "[]",
            "{}",
            "\"\\x\"",
            "\"\\u12G4\"",
            "[[",
            "]]",
            "{\"k\":",
        ]);
        prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
    }

    fn agrees(text: &str) -> Result<(), TestCaseError> {
        let trimmed = text.trim_matches([' ', '\n', '\r', '\t']);
        let ours = is_value(trimmed);
        let theirs = serde_json::from_str::<Value>(trimmed);
        if theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
            // JSON knows no range; a value behind the number may still be bad.
            return Ok(());
        }
        prop_assert_eq!(ours, theirs.is_ok(), "{:?}", trimmed);
        if ours && trimmed.starts_with('{') {
            let members = members_of(trimmed).unwrap();
            let Value::Object(theirs) = serde_json::from_str(trimmed).unwrap() else { unreachable!() };
            for (name, value) in &theirs {
                let last = members.iter().rev().find(|member| member.name() == *name).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Value>(last.value).unwrap(), value);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn what_is_json_is_what_serde_json_takes(text in nearly_json()) {
            agrees(&text)?;
            agrees(&format!("{{\"k\":{text}}}"))?;
            agrees(&format!("[{text}]"))?;
            agrees(&format!("\"{text}\""))?;
        }

        #[test]
        fn an_incomplete_value_is_one_that_could_go_on(text in nearly_json()) {
            // Every prefix of a value is incomplete or a value itself.
            if is_value(&text) {
                for (end, _) in text.char_indices().skip(1) {
                    let prefix = &text.as_bytes()[..end];
                    prop_assert!(!matches!(value(prefix, 0), Err(Stop::Invalid)), "{:?}", &text[..end]);
                }
            }
        }
    }

    #[test]
    fn nesting_is_bounded_as_serde_json_bounds_it() {
        for depth in [126, 127, 128, 100_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = open.repeat(depth) + "1" + &close.repeat(depth);
                let theirs = serde_json::from_str::<Value>(&text).is_ok();
                assert_eq!(is_value(&text), theirs, "{depth}");
                let mut members = Members::default();
                assert_eq!(object(&text, 0, &mut members).is_ok(), theirs && open != "[", "{depth}");
            }
        }
    }

    #[test]
    fn a_key_that_may_come_twice_is_noticed_at_any_depth() {
        let may_repeat = |text: &str| {
            let mut members = Members::default();
            object(text, 0, &mut members).unwrap();
            members.may_repeat
        };
        let wide = |count: usize| {
            let keys: Vec<_> = (0..count).map(|key| format!("\"long_common_prefix_{key}_and_suffix\":{key}")).collect();
            format!("{{{}}}", keys.join(","))
        };
        assert!(may_repeat(r#"{"a":1,"a":2}"#));
        assert!(may_repeat(r#"{"x":[{"y":{"a":1,"b":{},"a":2}}]}"#));
        assert!(may_repeat(r#"{"x":{"y":1},"a":1,"x":2}"#));
        assert!(may_repeat(r#"{"a":1,"\u0061":2}"#));
        assert!(may_repeat(&wide(65)), "more than are counted");
        assert!(!may_repeat(r#"{"a":{"a":{"a":1},"b":{"a":2}},"b":[{"a":1},{"a":2}]}"#));
    }
}
