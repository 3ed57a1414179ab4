//! Hashes of what a JSON value says, blind to how it is written: key order, white space, escapes, spelling of numbers.
//!
//! With `H` for SipHash-1-3 under the given key, `le` for eight bytes little-endian and `+` for concatenation:
//!
//! | value | hash |
//! |---|---|
//! | `null`, `true`, `false` | `H("n")`, `H("t")`, `H("f")` |
//! | number | `H("d" + sign + digits + "e" + exponent)`: the number is `0.digits × 10^exponent`, without leading or trailing zeros among the digits; `-` is the only sign; zero is `H("d0")` |
//! | string | `H("s" + its characters in UTF-8)` |
//! | array | `H("a" + le(hash of each element), in order)` |
//! | object | `H("o" + le(sum of the members, modulo 2^64) + le(their count))`, a member being `H("m" + le(length of its key in bytes) + key + le(hash of its value))`; of members with one key the last counts |
//! | no JSON | `H("x" + the bytes)` |

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::scan::{self, Stop};

/// The hash of the JSON value `json` under a key.
pub(super) fn hash(json: &str, key: &[u8; 16]) -> u64 {
    let json = json.trim_matches([' ', '\n', '\r', '\t']);
    let mut reader = Reader { text: json, at: 0, key, members: Vec::new() };
    if scan::is_value(json)
        && let Ok(hash) = reader.value()
    {
        return hash;
    }
    tagged(b'x', json.as_bytes(), key)
}

/// JSON that equals what says the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameJson<'a>(pub(super) &'a str);

impl PartialEq for SameJson<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || hash(self.0, &[0; 16]) == hash(other.0, &[0; 16])
    }
}

/// Reads a valid value from front to back, once.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    key: &'a [u8; 16],
    /// The members of the objects that are open.
    members: Vec<Hashed<'a>>,
}

/// A member of an object.
struct Hashed<'a> {
    name: Cow<'a, str>,
    /// Of the name, cheap.
    name_hash: u32,
    hash: u64,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<u64, Stop> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        match bytes.get(start) {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => {
                self.at = scan::string(bytes, start)?;
                let characters = scan::unescape(&self.text[start + 1..self.at - 1]);
                Ok(tagged(b's', characters.as_bytes(), self.key))
            }
            Some(_) => {
                self.at = scan::value(bytes, start)?;
                Ok(match bytes[start] {
                    letter @ (b'n' | b't' | b'f') => tagged(letter, b"", self.key),
                    _ => number(&self.text[start..self.at], self.key),
                })
            }
            None => Err(Stop::Incomplete),
        }
    }

    /// Passes an opening or a comma; whether the container goes on.
    fn goes_on(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        self.at = scan::skip_blank(bytes, self.at);
        if bytes.get(self.at) == Some(&b',') {
            self.at = scan::skip_blank(bytes, self.at + 1);
        }
        let ends = matches!(bytes.get(self.at), None | Some(b'}' | b']'));
        self.at += usize::from(ends);
        !ends
    }

    fn object(&mut self) -> Result<u64, Stop> {
        let first = self.members.len();
        self.at += 1;
        while self.goes_on() {
            let (name_end, value) = scan::key(self.text.as_bytes(), self.at)?;
            let name = scan::unescape(&self.text[self.at + 1..name_end - 1]);
            self.at = value;
            let value = self.value()?;
            let mut hasher = SipHasher13::new_with_key(self.key);
            hasher.write(b"m");
            hasher.write(&(name.len() as u64).to_le_bytes());
            hasher.write(name.as_bytes());
            hasher.write(&value.to_le_bytes());
            let name_hash = scan::key_hash(name.as_bytes());
            self.members.push(Hashed { name, name_hash, hash: hasher.finish() });
        }
        let (sum, count) = sum_of(&self.members[first..]);
        self.members.truncate(first);
        let mut hasher = SipHasher13::new_with_key(self.key);
        hasher.write(b"o");
        hasher.write(&sum.to_le_bytes());
        hasher.write(&count.to_le_bytes());
        Ok(hasher.finish())
    }

    fn array(&mut self) -> Result<u64, Stop> {
        let mut hasher = SipHasher13::new_with_key(self.key);
        hasher.write(b"a");
        self.at += 1;
        while self.goes_on() {
            hasher.write(&self.value()?.to_le_bytes());
        }
        Ok(hasher.finish())
    }
}

fn tagged(tag: u8, bytes: &[u8], key: &[u8; 16]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(&[tag]);
    hasher.write(bytes);
    hasher.finish()
}

/// The sum of an object's members and their count; of members with one name the last counts.
fn sum_of(members: &[Hashed<'_>]) -> (u64, u64) {
    if members.len() > FEW {
        let last: HashMap<&str, u64> = members.iter().map(|member| (&*member.name, member.hash)).collect();
        return (last.values().fold(0, |sum: u64, hash| sum.wrapping_add(*hash)), last.len() as u64);
    }
    let counts = |place: usize, member: &Hashed<'_>| {
        let same = |other: &Hashed<'_>| other.name_hash == member.name_hash && other.name == member.name;
        !members[place + 1..].iter().any(same)
    };
    members
        .iter()
        .enumerate()
        .filter(|(place, member)| counts(*place, member))
        .fold((0, 0), |(sum, count), (_, member)| (sum.wrapping_add(member.hash), count + 1))
}

/// Up to so many members each is compared with each.
const FEW: usize = 32;

fn number(json: &str, key: &[u8; 16]) -> u64 {
    let (sign, unsigned) = json.strip_prefix('-').map_or(("", json), |rest| ("-", rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let length = significant.len();
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return tagged(b'd', b"0", key);
    }
    let leading = (digits.len() - length) as u64;
    let exponent = saturating(exponent).saturating_add_unsigned(whole.len() as u64).saturating_sub_unsigned(leading);
    tagged(b'd', format!("{sign}{significant}e{exponent}").as_bytes(), key)
}

/// An exponent; those beyond 64 bits are as good as infinite.
fn saturating(exponent: &str) -> i64 {
    exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX })
}
