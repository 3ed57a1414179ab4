//! `details`: one line of JSON out of whatever `raw_details` came as (N8).

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::fields::{last_of_each, note_repeats_of};
use super::notes::{Note, Notes};
use super::scan::{self, Member, Members};
use super::strings;

/// The content of `raw_details`: an object as it is; a string is parsed if it is JSON, else kept as a JSON string; a
/// protobuf Struct is unwrapped. `None` for what parses to nothing. Other kinds of value are refused by the caller.
pub(super) fn unwrap_raw<'a>(value: &'a str, repeats: bool, notes: &mut Notes) -> Option<Content<'a>> {
    let mut content = Content { text: Cow::Borrowed(value), repeats };
    if let Some(inside) = strings::string_of(value) {
        notes.take(Note::RawDetailsWasString);
        if let Some(parsed) = json_in(inside) {
            if matches!(&*parsed, "null" | "\"\"") {
                return None;
            }
            content = Content { repeats: note_repeats_in(&parsed, notes), text: parsed };
        }
    }
    if let Some(plain) = unwrap_struct(&content.text) {
        notes.take(Note::RawDetailsWasStruct);
        content = Content { repeats: note_repeats_in(&plain, notes), text: Cow::Owned(plain) };
    }
    content.text = match content.text {
        Cow::Borrowed(text) => one_line(text, content.repeats),
        Cow::Owned(text) => Cow::Owned(one_line(&text, content.repeats).into_owned()),
    };
    Some(content)
}

/// Text of details, and whether some object in it may have a key twice.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) repeats: bool,
}

/// The JSON value that a string is, space around it cut off.
fn json_in(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let blank = [' ', '\n', '\r', '\t'];
    match text {
        Cow::Borrowed(text) => Some(text.trim_matches(blank)).filter(|text| scan::is_value(text)).map(Cow::Borrowed),
        Cow::Owned(text) => {
            let text = text.trim_matches(blank);
            scan::is_value(text).then(|| Cow::Owned(text.to_owned()))
        }
    }
}

fn note_repeats_in(text: &str, notes: &mut Notes) -> bool {
    let mut members = Members::default();
    // Only an object tells whether it may; other kinds are looked through.
    let may = scan::object(text, 0, &mut members).is_err() || members.may_repeat;
    may && note_repeats_of(text, notes)
}

/// JSON without line breaks, and without keys that come again in their object: as it is where it can be.
#[inline]
pub(super) fn one_line(json: &str, repeats: bool) -> Cow<'_, str> {
    if repeats {
        let mut out = String::with_capacity(json.len());
        keep_last(json, &mut out);
        Cow::Owned(out)
    } else if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        Cow::Owned(compact(json))
    } else {
        Cow::Borrowed(json)
    }
}

/// JSON without white space between its tokens.
fn compact(json: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    let keep = |character: &char| {
        let blank = character.is_ascii() && scan::is_blank(*character as u8);
        let kept = in_string || !blank;
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        kept
    };
    json.chars().filter(keep).collect()
}

/// Compact JSON in which each key stands once per object, with its last value (N13).
fn keep_last(json: &str, out: &mut String) {
    if let Some(members) = scan::members_of(json) {
        out.push('{');
        for (place, Member { key, value }) in last_of_each(members).into_iter().enumerate() {
            push_key(out, place, key);
            keep_last(value, out);
        }
        out.push('}');
    } else if let Some(elements) = scan::elements_of(json) {
        out.push('[');
        for (place, element) in elements.into_iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            keep_last(element, out);
        }
        out.push(']');
    } else {
        out.push_str(json);
    }
}

/// Writes the key of an object's member, with the comma that separates it from the one before.
#[inline]
pub(super) fn push_key(out: &mut String, place: usize, key: &str) {
    if place > 0 {
        out.push(',');
    }
    out.extend(["\"", key, "\":"]);
}

/// A string `namespace` at the top of details.
#[inline]
pub(super) fn namespace(details: &str, repeats: bool) -> Option<Cow<'_, str>> {
    // Where no key comes twice none is spelled with escapes either.
    let found = if repeats {
        let mut last = None;
        scan::each_member_of(details, |member| {
            if member.name() == "namespace" {
                last = Some(member.value);
            }
        });
        last
    } else if mentions_namespace(details) {
        scan::first_member(details, "namespace")
    } else {
        None
    };
    strings::string_of(found?).filter(|namespace| !namespace.is_empty())
}

fn mentions_namespace(details: &str) -> bool {
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"namespace\""));
    KEY.find(details.as_bytes()).is_some()
}

/// The plain JSON of a protobuf Struct in message form: exactly `{"fields": …}`, a map of Values or a list of
/// `{key, value}`. `None` for anything else.
fn unwrap_struct(json: &str) -> Option<String> {
    let fields = only_member(json, "fields")?;
    let mut out = String::with_capacity(json.len());
    push_fields(fields, &mut out)?;
    Some(out)
}

/// The value of the only member of an object, if it has this name.
fn only_member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    if !json.starts_with('{') {
        return None;
    }
    let first = scan::skip_blank(json.as_bytes(), 1);
    // Nearly every object that is no Struct ends the search here.
    if json.as_bytes().get(first + 1) != name.as_bytes().first() {
        return None;
    }
    match scan::members_of(json)?.as_slice() {
        [Member { key, value }] if *key == name => Some(value),
        _ => None,
    }
}

fn push_fields(fields: &str, out: &mut String) -> Option<()> {
    out.push('{');
    if let Some(members) = scan::members_of(fields) {
        for (place, Member { key, value }) in members.into_iter().enumerate() {
            push_key(out, place, key);
            push_value(value, out)?;
        }
    } else {
        for (place, entry) in scan::elements_of(fields)?.into_iter().enumerate() {
            let members = scan::members_of(entry)?;
            let (key, value) = match members.as_slice() {
                [key, value] | [value, key] if key.key == "key" && value.key == "value" => (key.value, value.value),
                _ => return None,
            };
            push_key(out, place, key.strip_prefix('"')?.strip_suffix('"')?);
            push_value(value, out)?;
        }
    }
    out.push('}');
    Some(())
}

/// The plain JSON of a Value: an object with exactly one kind, which is of the kind's type.
fn push_value(json: &str, out: &mut String) -> Option<()> {
    let members = scan::members_of(json)?;
    let [Member { key, value }] = members.as_slice() else { return None };
    match (*key, value.as_bytes().first()?) {
        ("nullValue" | "null_value", _) if matches!(*value, "null" | "0" | "\"NULL_VALUE\"") => out.push_str("null"),
        ("numberValue" | "number_value", b'-' | b'0'..=b'9') => out.push_str(integral(value)),
        ("stringValue" | "string_value", b'"') | ("boolValue" | "bool_value", b't' | b'f') => out.push_str(value),
        ("structValue" | "struct_value", b'{') if is_empty(value) => out.push_str("{}"),
        ("structValue" | "struct_value", b'{') => push_fields(only_member(value, "fields")?, out)?,
        ("listValue" | "list_value", b'{') if is_empty(value) => out.push_str("[]"),
        ("listValue" | "list_value", b'{') => {
            out.push('[');
            for (place, element) in scan::elements_of(only_member(value, "values")?)?.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                push_value(element, out)?;
            }
            out.push(']');
        }
        _ => return None,
    }
    Some(())
}

/// Whether an object is empty, as an empty Struct or list of Values may be written.
fn is_empty(object: &str) -> bool {
    scan::skip_blank(object.as_bytes(), 1) == object.len() - 1
}

/// `3` for `3.0`: every number of a Struct is a float, and an integer is meant where it is one.
fn integral(number: &str) -> &str {
    match number.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => number,
    }
}
