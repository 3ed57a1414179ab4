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

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::fields::last_of_each;
use super::scan::{self, Members};

/// The hash of the JSON value `json` under a key.
pub(super) fn hash(json: &str, key: &[u8; 16]) -> u64 {
    let json = json.trim_matches([' ', '\n', '\r', '\t']);
    if scan::is_value(json) { value(json, key) } else { tagged(b'x', json.as_bytes(), key) }
}

/// JSON that equals what says the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameJson<'a>(pub(super) &'a str);

impl PartialEq for SameJson<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || hash(self.0, &[0; 16]) == hash(other.0, &[0; 16])
    }
}

fn value(json: &str, key: &[u8; 16]) -> u64 {
    match json.as_bytes().first() {
        Some(b'{') => object(json, key),
        Some(b'[') => array(json, key),
        Some(b'"') => tagged(b's', scan::string_of(json).unwrap_or_default().as_bytes(), key),
        Some(letter @ (b'n' | b't' | b'f')) => tagged(*letter, b"", key),
        _ => number(json, key),
    }
}

fn tagged(tag: u8, bytes: &[u8], key: &[u8; 16]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(&[tag]);
    hasher.write(bytes);
    hasher.finish()
}

fn object(json: &str, key: &[u8; 16]) -> u64 {
    let mut members = Members::default();
    // A valid value, as the caller knows: no failure is lost here.
    let _ = scan::object(json, 0, &mut members);
    let list = if members.may_repeat { last_of_each(members.list) } else { members.list };
    let sum = list.iter().fold(0_u64, |sum, member| {
        let name = member.name();
        let mut hasher = SipHasher13::new_with_key(key);
        hasher.write(b"m");
        hasher.write(&(name.len() as u64).to_le_bytes());
        hasher.write(name.as_bytes());
        hasher.write(&value(member.value, key).to_le_bytes());
        sum.wrapping_add(hasher.finish())
    });
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(b"o");
    hasher.write(&sum.to_le_bytes());
    hasher.write(&(list.len() as u64).to_le_bytes());
    hasher.finish()
}

fn array(json: &str, key: &[u8; 16]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(b"a");
    for element in scan::elements_of(json).unwrap_or_default() {
        hasher.write(&value(element, key).to_le_bytes());
    }
    hasher.finish()
}

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
