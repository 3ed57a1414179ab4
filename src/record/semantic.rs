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

use std::ops::Range;

use siphasher::sip::SipHasher13;

use super::scan::{self, Stop};

/// The hash of the JSON value `json` under a key.
pub(super) fn hash(json: &str, key: &[u8; 16]) -> u64 {
    let json = json.trim_matches([' ', '\n', '\r', '\t']);
    let mut speller =
        Speller { text: json, at: 0, depth: 0, spelled: Vec::with_capacity(json.len() + 16), members: Vec::new() };
    if speller.value().is_err() || speller.at < json.len() {
        speller.spelled.clear();
        speller.spelled.push(b'x');
        speller.spelled.extend_from_slice(json.as_bytes());
    }
    SipHasher13::new_with_key(key).hash(&speller.spelled)
}

/// JSON that equals what says the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameJson<'a>(pub(super) &'a str);

impl PartialEq for SameJson<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || hash(self.0, &[0; 16]) == hash(other.0, &[0; 16])
    }
}

/// Spells a value, from front to back, once.
struct Speller<'a> {
    text: &'a str,
    at: usize,
    /// How many containers are open.
    depth: u32,
    spelled: Vec<u8>,
    /// The members of the objects that are open.
    members: Vec<Member>,
}

/// Where in the spelling a member stands.
#[derive(Clone)]
struct Member {
    /// The first bytes of the key, which tell most of them apart.
    key_begin: [u8; 8],
    key: Range<usize>,
    /// Behind its value.
    end: usize,
}

impl Speller<'_> {
    fn value(&mut self) -> Result<(), Stop> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        match bytes.get(start) {
            Some(b'{') => self.inside(Self::object),
            Some(b'[') => self.inside(Self::array),
            Some(b'"') => {
                let (end, escaped) = scan::string(bytes, start)?;
                self.string(start, end, escaped);
                self.at = end;
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
            let key = scan::key(self.text.as_bytes(), self.at)?;
            let begin = self.spelled.len();
            self.string(self.at, key.end, key.escaped);
            let spelled = begin..self.spelled.len();
            let mut key_begin = [0; 8];
            let known = spelled.len().min(key_begin.len());
            key_begin[..known].copy_from_slice(&self.spelled[begin..begin + known]);
            self.at = key.value;
            self.value()?;
            self.members.push(Member { key_begin, key: spelled, end: self.spelled.len() });
        }
        self.arrange(first);
        self.members.truncate(first);
        self.spelled.push(b'}');
        Ok(())
    }

    /// Puts the members from this one on, which end the spelling, into the order of their keys; of one key the last.
    fn arrange(&mut self, first: usize) {
        let (members, spelled) = (&mut self.members[first..], &mut self.spelled);
        let key = |member: &Member| &spelled[member.key.clone()];
        let order = |one: &Member, next: &Member| {
            let begin = |member: &Member| u64::from_be_bytes(member.key_begin);
            begin(one).cmp(&begin(next)).then_with(|| key(one).cmp(key(next)))
        };
        if members.is_sorted_by(|one, next| order(one, next).is_lt()) {
            return;
        }
        let begin = members[0].key.start;
        members.sort_by(order);
        let mut arranged = Vec::with_capacity(spelled.len() - begin);
        for (place, member) in members.iter().enumerate() {
            let comes_again = members.get(place + 1).is_some_and(|next| order(member, next).is_eq());
            if !comes_again {
                arranged.extend_from_slice(&spelled[member.key.start..member.end]);
            }
        }
        spelled.truncate(begin);
        spelled.append(&mut arranged);
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

    /// Spells the string between these quotes.
    fn string(&mut self, start: usize, end: usize, escaped: bool) {
        if escaped {
            self.spelled.push(b'"');
            self.spelled.extend_from_slice(scan::unescape(&self.text[start + 1..end - 1]).as_bytes());
        } else {
            self.spelled.extend_from_slice(&self.text.as_bytes()[start..end - 1]);
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
