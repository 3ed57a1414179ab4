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
use std::io::Write as _;

use siphasher::sip::SipHasher13;

use super::key_log::key_hash;
use super::scan::{self, Stop};

/// The hash of the JSON value `json` under a key.
pub(super) fn hash(json: &str, key: &[u8; 16]) -> u64 {
    let json = json.trim_matches([' ', '\n', '\r', '\t']);
    let sip = SipHasher13::new_with_key(key);
    let mut reader = Reader { text: json, at: 0, depth: 0, sip, members: Vec::new(), spelled: Vec::with_capacity(128) };
    match reader.value() {
        Ok(hash) if reader.at == json.len() => hash,
        _ => reader.tagged(b'x', json.as_bytes()),
    }
}

/// JSON that equals what says the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameJson<'a>(pub(super) &'a str);

impl PartialEq for SameJson<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || hash(self.0, &[0; 16]) == hash(other.0, &[0; 16])
    }
}

/// Reads a value from front to back, once.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many containers are open.
    depth: u32,
    sip: SipHasher13,
    /// The members of the objects that are open.
    members: Vec<Hashed<'a>>,
    /// What is to be hashed; kept for its capacity. Hashed in one piece, since the hasher is slow at beginning and ending.
    spelled: Vec<u8>,
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
            Some(b'{') => self.inside(Self::object),
            Some(b'[') => self.inside(Self::array),
            Some(b'"') => {
                let (end, escaped) = scan::string(bytes, start)?;
                self.at = end;
                let characters = characters(&self.text[start + 1..end - 1], escaped);
                Ok(self.tagged(b's', characters.as_bytes()))
            }
            Some(_) => {
                self.at = scan::value(bytes, start)?;
                Ok(match bytes[start] {
                    letter @ (b'n' | b't' | b'f') => self.tagged(letter, b""),
                    _ => self.number(start),
                })
            }
            None => Err(Stop::Incomplete),
        }
    }

    /// Reads a container, if it is not too deep to be JSON.
    fn inside(&mut self, read: impl FnOnce(&mut Self) -> Result<u64, Stop>) -> Result<u64, Stop> {
        if self.depth == scan::MAX_DEPTH {
            return Err(Stop::Invalid);
        }
        self.depth += 1;
        self.at += 1;
        let hash = read(self)?;
        self.depth -= 1;
        Ok(hash)
    }

    /// Passes what stands before an element, a comma behind the one before it; whether there is one, or the end.
    fn goes_on(&mut self, is_first: bool, end: u8) -> Result<bool, Stop> {
        let bytes = self.text.as_bytes();
        self.at = scan::skip_blank(bytes, self.at);
        match bytes.get(self.at) {
            Some(byte) if *byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if is_first => Ok(true),
            Some(b',') => {
                self.at = scan::skip_blank(bytes, self.at + 1);
                Ok(true)
            }
            Some(_) => Err(Stop::Invalid),
            None => Err(Stop::Incomplete),
        }
    }

    fn object(&mut self) -> Result<u64, Stop> {
        let first = self.members.len();
        let mut is_first = true;
        while self.goes_on(is_first, b'}')? {
            is_first = false;
            if self.at == self.text.len() {
                return Err(Stop::Incomplete);
            }
            let key = scan::key(self.text.as_bytes(), self.at)?;
            let name = characters(&self.text[self.at + 1..key.end - 1], key.escaped);
            self.at = key.value;
            let value = self.value()?.to_le_bytes();
            let length = (name.len() as u64).to_le_bytes();
            let hash = self.hash_of([b"m", &length, name.as_bytes(), &value]);
            self.members.push(Hashed { name_hash: key_hash(name.as_bytes()), name, hash });
        }
        let (sum, count) = sum_of(&self.members[first..]);
        self.members.truncate(first);
        Ok(self.hash_of([b"o", &sum.to_le_bytes(), &count.to_le_bytes()]))
    }

    fn array(&mut self) -> Result<u64, Stop> {
        let mut hasher = self.sip;
        hasher.write(b"a");
        let mut is_first = true;
        while self.goes_on(is_first, b']')? {
            is_first = false;
            hasher.write(&self.value()?.to_le_bytes());
        }
        Ok(hasher.finish())
    }

    fn number(&mut self, start: usize) -> u64 {
        let json = &self.text[start..self.at];
        let (sign, unsigned) = json.strip_prefix('-').map_or(("", json), |rest| ("-", rest));
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Cow<'_, str> = if fraction.is_empty() { whole.into() } else { [whole, fraction].concat().into() };
        let significant = digits.trim_start_matches('0');
        let leading = (digits.len() - significant.len()) as u64;
        let significant = significant.trim_end_matches('0');
        if significant.is_empty() {
            return self.tagged(b'd', b"0");
        }
        let exponent =
            saturating(exponent).saturating_add_unsigned(whole.len() as u64).saturating_sub_unsigned(leading);
        let mut spelled = std::mem::take(&mut self.spelled);
        spelled.clear();
        let written = write!(spelled, "d{sign}{significant}e{exponent}");
        debug_assert!(written.is_ok(), "a vector takes all that is written");
        self.spelled = spelled;
        self.sip.hash(&self.spelled)
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) -> u64 {
        self.hash_of([&[tag], bytes])
    }

    fn hash_of<const N: usize>(&mut self, parts: [&[u8]; N]) -> u64 {
        self.spelled.clear();
        for part in parts {
            self.spelled.extend_from_slice(part);
        }
        self.sip.hash(&self.spelled)
    }
}

/// The characters that a string's inside spells.
fn characters(inside: &str, escaped: bool) -> Cow<'_, str> {
    if escaped { scan::unescape(inside) } else { Cow::Borrowed(inside) }
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

/// An exponent; those beyond 64 bits are as good as infinite.
fn saturating(exponent: &str) -> i64 {
    exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX })
}
