//! Instants as text: the canonical form of NDJSON, and the compact one of object keys. Always UTC.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// RFC 3339 with `Z` and 0, 3, 6 or 9 fractional digits, whichever is the shortest that loses nothing (RECORDS.md,
/// `emit_time`). Years before 0, for which RFC 3339 has no form, print with a sign and six digits (ISO 8601).
pub fn write_rfc3339(out: &mut Vec<u8>, at: Timestamp) {
    let t = utc(at);
    if t.year() < 0 {
        write_padded(out, t.year(), "-", 6);
    } else {
        digits(out, i32::from(t.year()).unsigned_abs(), 4);
    }
    for (mark, part) in [(b'-', t.month()), (b'-', t.day()), (b'T', t.hour()), (b':', t.minute()), (b':', t.second())] {
        out.push(mark);
        digits(out, u32::from(part.unsigned_abs()), 2);
    }
    let nanos = t.subsec_nanosecond().unsigned_abs();
    let (fraction, width) = match nanos {
        0 => (0, 0),
        n if n % 1_000_000 == 0 => (n / 1_000_000, 3),
        n if n % 1_000 == 0 => (n / 1_000, 6),
        n => (n, 9),
    };
    if width > 0 {
        out.push(b'.');
        digits(out, fraction, width);
    }
    out.push(b'Z');
}

/// The microsecond that an instant lies in, since 1970-01-01T00:00:00Z: the digits behind the sixth are cut off, before
/// 1970 as after it (so that a time's second stays its second).
pub fn floor_micros(at: Timestamp) -> i64 {
    at.as_second() * 1_000_000 + i64::from(at.subsec_nanosecond().div_euclid(1_000))
}

/// `20261121T093000Z`: sixteen characters. Years before 0 print as year 0.
pub fn compact(at: Timestamp) -> String {
    let t = utc(at);
    let year = t.year().max(0);
    format!("{year:04}{:02}{:02}T{:02}{:02}{:02}Z", t.month(), t.day(), t.hour(), t.minute(), t.second())
}

/// The instant that [`compact`] printed.
pub fn parse_compact(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let is_digit = |i: usize| bytes[i].is_ascii_digit();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' || !(0..8).chain(9..15).all(is_digit) {
        return None;
    }
    let part = |from: usize, to: usize| text[from..to].parse::<i8>().ok();
    let year = text[..4].parse::<i16>().ok()?;
    let t = DateTime::new(year, part(4, 6)?, part(6, 8)?, part(9, 11)?, part(11, 13)?, part(13, 15)?, 0).ok()?;
    Offset::UTC.to_timestamp(t).ok()
}

/// The civil time in UTC; the process's own time zone is never asked.
pub(crate) fn utc(at: Timestamp) -> DateTime {
    Offset::UTC.to_datetime(at)
}

fn digits(out: &mut Vec<u8>, mut number: u32, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn write_padded(out: &mut Vec<u8>, year: i16, sign: &str, width: usize) {
    write!(out, "{sign}{:0width$}", year.unsigned_abs()).expect("a vector takes all that is written");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(at: Timestamp) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, at);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_the_fewest_groups_of_three_digits_that_lose_nothing() {
        for canonical in [
            "2026-11-21T09:30:00Z",
            "2026-11-21T09:30:00.100Z",
            "2026-11-21T09:30:00.000001Z",
            "2026-11-21T09:30:00.123456789Z",
            "1969-12-31T23:59:59.999999999Z",
            "0000-01-01T00:00:00Z",
            "-000044-03-15T12:00:00Z",
        ] {
            assert_eq!(text(canonical.parse().unwrap()), canonical);
        }
    }

    #[test]
    fn microseconds_are_cut_off_not_rounded_on_both_sides_of_1970() {
        let micros = |t: &str| floor_micros(t.parse().unwrap());
        assert_eq!(micros("1970-01-01T00:00:00.0000019Z"), 1);
        assert_eq!(micros("1969-12-31T23:59:59.9999999Z"), -1, "still in the last second of 1969");
        assert_eq!(micros("2026-12-31T23:59:59.999999999Z"), 1_798_761_599_999_999);
    }

    #[test]
    fn refuses_compact_times_that_are_none() {
        for text in ["20261121T093000", "20261121T093000Zx", "20261321T093000Z", "2026112xT093000Z", "2026+121T093000Z"]
        {
            assert_eq!(parse_compact(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_reads_back_to_the_same_instant(second in -377_705_023_201_i64..=253_402_207_200, nano in 0..=999_999_999_i32) {
            let Ok(at) = Timestamp::new(second, if second < 0 { -nano } else { nano }) else { return Ok(()) };
            prop_assert_eq!(text(at).parse::<Timestamp>().unwrap(), at);
        }

        #[test]
        fn compact_text_reads_back_to_the_same_second(second in -62_167_219_200_i64..=253_402_207_200) {
            let at = Timestamp::from_second(second).unwrap();
            prop_assert_eq!(parse_compact(&compact(at)), Some(at));
        }
    }
}
