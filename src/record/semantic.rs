//! Hashes of what a JSON value says, blind to how it is written: key order, white space, escapes, spelling of numbers.
//!
//! The hash is SipHash-1-3 under the given key, of the value's one spelling (`+` is concatenation):
//!
//! | value | spelling |
//! |---|---|
//! | `null`, `true`, `false` | `n`, `t`, `f` |
//! | number | `d` + sign + digits + `e` + exponent, eight bytes, little-endian: the number is `0.digits × 10^exponent`, without leading or trailing zeros among the digits; `-` is the only sign; zero is `d0` |
//! | string | `"` + its characters in UTF-8 + the byte 255, which no character has |
//! | array | `[` + the elements, in order, + `]` |
//! | object | `{` + the members, each its key as a string + its value, in the order of the keys' spellings, byte by byte, + `}`; of members with one key the last counts |
//! | no JSON | `x` + the bytes |

use std::cmp::Ordering;
use std::ops::Range;

use siphasher::sip::SipHasher13;

use super::scan::{self, Stop};
use super::strings::{Ends, unescape};

/// Room to spell values in, one after the other.
#[derive(Default)]
pub(super) struct Room {
    spelled: Vec<u8>,
    members: Vec<Member>,
}

impl Room {
    /// The hash of the JSON value `json` under a key.
    pub(super) fn hash(&mut self, json: &str, key: &[u8; 16]) -> u64 {
        let json = json.trim_matches([' ', '\n', '\r', '\t']);
        let Self { spelled, members } = self;
        spelled.clear();
        members.clear();
        let mut speller = Speller { text: json, at: 0, depth: 0, ends: Ends::default(), spelled, members };
        if speller.value().is_err() || speller.at < json.len() {
            spelled.clear();
            spelled.push(b'x');
            spelled.extend_from_slice(json.as_bytes());
        }
        SipHasher13::new_with_key(key).hash(spelled)
    }
}

/// JSON that equals what says the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameJson<'a>(pub(super) &'a str);

impl PartialEq for SameJson<'_> {
    fn eq(&self, other: &Self) -> bool {
        let hash = |json| Room::default().hash(json, &[0; 16]);
        self.0 == other.0 || hash(self.0) == hash(other.0)
    }
}

/// Spells a value, from front to back, once.
struct Speller<'a> {
    text: &'a str,
    at: usize,
    /// How many containers are open.
    depth: u32,
    ends: Ends,
    spelled: &'a mut Vec<u8>,
    /// The members of the objects that are open.
    members: &'a mut Vec<Member>,
}

/// Where in the spelling a member stands.
struct Member {
    /// The first bytes of the key, which tell most of them apart.
    key_begin: u64,
    key: Range<usize>,
    /// Behind its value.
    end: usize,
}

impl Member {
    /// The order of the keys.
    #[inline]
    fn cmp(&self, next: &Self, spelled: &[u8]) -> Ordering {
        let key = |member: &Self| &spelled[member.key.clone()];
        self.key_begin.cmp(&next.key_begin).then_with(|| key(self).cmp(key(next)))
    }
}

/// The first eight bytes, or as many as there are and zeros, as a number that is in their order.
#[inline]
fn first_bytes(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => bytes.iter().chain(&[0; 8]).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

impl Speller<'_> {
    fn value(&mut self) -> Result<(), Stop> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        match bytes.get(start) {
            Some(b'{') => self.inside(Self::object),
            Some(b'[') => self.inside(Self::array),
            Some(b'"') => {
                self.at = self.ends.string(bytes, start)?;
                self.string(start);
                Ok(())
            }
            Some(_) => {
                self.at = scan::scalar(bytes, start)?;
                match bytes[start] {
                    letter @ (b'n' | b't' | b'f') => self.spelled.push(letter),
                    _ => self.number(start),
                }
                Ok(())
            }
            None => Err(Stop::Incomplete),
        }
    }

    /// Spells a container, if it is not too deep to be JSON.
    fn inside(&mut self, spell: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        if self.depth == scan::MAX_DEPTH {
            return Err(Stop::Invalid);
        }
        self.spelled.push(self.text.as_bytes()[self.at]);
        self.depth += 1;
        self.at += 1;
        spell(self)?;
        self.depth -= 1;
        Ok(())
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

    fn object(&mut self) -> Result<(), Stop> {
        let first = self.members.len();
        let mut is_first = true;
        while self.goes_on(is_first, b'}')? {
            is_first = false;
            if self.at == self.text.len() {
                return Err(Stop::Incomplete);
            }
            let (start, begin) = (self.at, self.spelled.len());
            self.at = self.ends.key(self.text.as_bytes(), start)?;
            self.string(start);
            let key = begin..self.spelled.len();
            let key_begin = first_bytes(&self.spelled[begin..]);
            self.at = scan::behind_colon(self.text.as_bytes(), self.at)?;
            self.value()?;
            self.members.push(Member { key_begin, key, end: self.spelled.len() });
        }
        self.arrange(first);
        self.members.truncate(first);
        self.spelled.push(b'}');
        Ok(())
    }

    /// Puts the members from this one on, which end the spelling, into the order of their keys; of one key the last.
    fn arrange(&mut self, first: usize) {
        let (members, spelled) = (&mut self.members[first..], &mut *self.spelled);
        if members.is_sorted_by(|one, next| one.cmp(next, spelled).is_lt()) {
            return;
        }
        let (begin, end) = (members[0].key.start, spelled.len());
        members.sort_by(|one, next| one.cmp(next, spelled));
        for (place, member) in members.iter().enumerate() {
            let comes_again = members.get(place + 1).is_some_and(|next| member.cmp(next, spelled).is_eq());
            if !comes_again {
                spelled.extend_from_within(member.key.start..member.end);
            }
        }
        let arranged = spelled.len() - end;
        spelled.copy_within(end.., begin);
        spelled.truncate(begin + arranged);
    }

    fn array(&mut self) -> Result<(), Stop> {
        let mut is_first = true;
        while self.goes_on(is_first, b']')? {
            is_first = false;
            self.value()?;
        }
        self.spelled.push(b']');
        Ok(())
    }

    /// Spells the string that was passed last, which began here.
    #[inline]
    fn string(&mut self, start: usize) {
        let end = self.at - 1;
        if self.ends.escaped_since(start) {
            self.spelled.push(b'"');
            self.spelled.extend_from_slice(unescape(&self.text[start + 1..end]).as_bytes());
        } else {
            self.spelled.extend_from_slice(&self.text.as_bytes()[start..end]);
        }
        self.spelled.push(0xff);
    }

    fn number(&mut self, start: usize) {
        let json = &self.text[start..self.at];
        let (sign, unsigned) = json.strip_prefix('-').map_or(("", json), |rest| ("-", rest));
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        let leading = digits().take_while(|digit| *digit == b'0').count();
        if leading == whole.len() + fraction.len() {
            self.spelled.extend_from_slice(b"d0");
            return;
        }
        self.spelled.push(b'd');
        self.spelled.extend_from_slice(sign.as_bytes());
        self.spelled.extend(digits().skip(leading));
        while self.spelled.pop_if(|digit| *digit == b'0').is_some() {}
        let exponent =
            saturating(exponent).saturating_add_unsigned(whole.len() as u64).saturating_sub_unsigned(leading as u64);
        self.spelled.push(b'e');
        self.spelled.extend_from_slice(&exponent.to_le_bytes());
    }
}

/// An exponent; those beyond 64 bits are as good as infinite.
fn saturating(exponent: &str) -> i64 {
    exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX })
}
