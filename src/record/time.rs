//! `emit_time`: what is a time, and how it is printed.

use jiff::Timestamp;

use super::scan;
use super::strings;

/// The years of RFC 3339, as seconds since 1970: 0000-01-01T00:00:00Z up to 9999-12-30T22:00:00Z, where
/// [`Timestamp`] ends.
const FIRST_SECOND: i64 = -62_167_219_200;

/// A time that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoTime;

/// Reads the JSON of an `emit_time`: RFC 3339 in a string, or `{seconds, nanos}`. A bare number is no time, since it
/// could count seconds or milliseconds.
pub(super) fn read(json: &str) -> Result<Timestamp, NoTime> {
    match json.as_bytes().first() {
        Some(b'"') => parse(&strings::string_of(json).ok_or(NoTime)?),
        Some(b'{') => from_parts(&scan::members_of(json).ok_or(NoTime)?),
        _ => Err(NoTime),
    }
}

/// `{seconds, nanos}`, each a number or a decimal string; other members (`$typeName`) say nothing.
fn from_parts(members: &[scan::Member<'_>]) -> Result<Timestamp, NoTime> {
    let last = |name: &str| {
        let value = members.iter().rev().find(|member| member.name() == name).map(|member| member.value);
        value.filter(|value| !matches!(*value, "null" | "\"\""))
    };
    let seconds = integer(last("seconds").ok_or(NoTime)?).ok_or(NoTime)?;
    let nanos = last("nanos").map_or(Some(0), integer).ok_or(NoTime)?;
    let nanos = i32::try_from(nanos).ok().filter(|nanos| (0..1_000_000_000).contains(nanos)).ok_or(NoTime)?;
    timestamp(seconds, nanos)
}

fn timestamp(second: i64, nanos: i32) -> Result<Timestamp, NoTime> {
    if second < FIRST_SECOND {
        return Err(NoTime);
    }
    Timestamp::new(second, nanos).map_err(|_| NoTime)
}

/// An integer in any of JSON's spellings of a number (`2`, `2.0`, `2e0`), or a string of decimal digits.
pub(super) fn integer(json: &str) -> Option<i64> {
    if let Some(text) = strings::string_of(json) {
        let digits = text.strip_prefix('-').unwrap_or(&text);
        return if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok()
        } else {
            None
        };
    }
    if !json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = json.parse() {
        return Some(number);
    }
    // Every integral float below 2^53 is exact; none above could be a version or a second of these centuries.
    let number: f64 = json.parse().ok()?;
    let exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    exact.then_some(number as i64)
}

/// RFC 3339, with `T`, `t` or a space, any offset and any number of fractional digits; those beyond the ninth are cut
/// off. A leap second counts as the second before it.
pub(super) fn parse(text: &str) -> Result<Timestamp, NoTime> {
    let text = text.as_bytes();
    let (head, rest) = text.split_at_checked(19).ok_or(NoTime)?;
    let punctuation = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    if !punctuation.iter().all(|(at, byte)| head[*at] == byte[0]) || !matches!(head[10], b'T' | b't' | b' ') {
        return Err(NoTime);
    }
    let (year, month, day) = (digits(&head[..4])?, digits(&head[5..7])?, digits(&head[8..10])?);
    let (hour, minute, second) = (digits(&head[11..13])?, digits(&head[14..16])?, digits(&head[17..])?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return Err(NoTime);
    }
    let (nanos, rest) = fraction(rest)?;
    let of_day = hour * 3600 + minute * 60 + second.min(59);
    timestamp(days_since_1970(year, month, day) * 86_400 + of_day - offset(rest)?, nanos)
}

fn digits(text: &[u8]) -> Result<i64, NoTime> {
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Ok(number * 10 + i64::from(byte - b'0')),
        _ => Err(NoTime),
    })
}

/// Nanoseconds, and what follows the fraction.
fn fraction(rest: &[u8]) -> Result<(i32, &[u8]), NoTime> {
    let Some(rest) = rest.strip_prefix(b".") else { return Ok((0, rest)) };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return Err(NoTime);
    }
    let kept = count.min(9);
    let nanos = digits(&rest[..kept])? * 10_i64.pow(9 - kept as u32);
    Ok((nanos as i32, &rest[count..]))
}

/// Seconds east of Greenwich.
fn offset(text: &[u8]) -> Result<i64, NoTime> {
    match text {
        b"Z" | b"z" => Ok(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*tens, *ones])?);
            if hours > 23 || minutes > 59 {
                return Err(NoTime);
            }
            let seconds = hours * 3600 + minutes * 60;
            Ok(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => Err(NoTime),
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar. Years are counted from March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// RFC 3339 in UTC with as many digits as the time needs: 0, 3, 6 or 9.
pub fn format(time: Timestamp) -> String {
    let digits = match time.subsec_nanosecond() {
        0 => 0,
        nanos if nanos % 1_000_000 == 0 => 3,
        nanos if nanos % 1_000 == 0 => 6,
        _ => 9,
    };
    format!("{time:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: &str) -> Option<String> {
        read(json).ok().map(format)
    }

    #[test]
    fn rfc_3339_is_read_with_any_offset_and_any_number_of_digits() {
        for (text, expected) in [
            ("2026-11-04T01:02:03Z", "2026-11-04T01:02:03Z"),
            ("2026-11-04t01:02:03z", "2026-11-04T01:02:03Z"),
            ("2026-11-04 01:02:03Z", "2026-11-04T01:02:03Z"),
            ("2026-11-04T01:02:03.5Z", "2026-11-04T01:02:03.500Z"),
            ("2026-11-04T01:02:03.000Z", "2026-11-04T01:02:03Z"),
            ("2026-11-04T01:02:03.0001Z", "2026-11-04T01:02:03.000100Z"),
            ("2026-11-04T01:02:03.1234567Z", "2026-11-04T01:02:03.123456700Z"),
            ("2026-11-04T01:02:03.1234567899999999Z", "2026-11-04T01:02:03.123456789Z"),
            ("2026-11-03T00:00:00+02:00", "2026-11-02T22:00:00Z"),
            ("2026-12-31T23:59:59.9-05:45", "2027-01-01T05:44:59.900Z"),
            ("2024-02-29T00:00:00-00:00", "2024-02-29T00:00:00Z"),
            ("1969-12-31T23:59:59.25Z", "1969-12-31T23:59:59.250Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(printed(&format!("{text:?}")).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn agrees_with_jiff_on_every_day_of_a_leap_cycle() {
        let mut day = jiff::civil::date(1996, 1, 1);
        while day.year() < 2005 {
            let text = format!("{day}T12:34:56.789Z");
            assert_eq!(parse(&text), Ok(text.parse().unwrap()));
            day = day.tomorrow().unwrap();
        }
    }

    #[test]
    fn what_is_no_rfc_3339_is_no_time() {
        for text in [
            "yesterday",
            "2026-11-04",
            "2026-11-04T01:02:03",
            "2026-11-04T01:02Z",
            "2026-11-04T01:02:03.Z",
            "2026-11-04T01:02:03,5Z",
            "2026-11-04T24:00:00Z",
            "2026-11-04T01:60:00Z",
            "2026-11-04T01:02:61Z",
            "2026-02-29T01:02:03Z",
            "2026-13-01T01:02:03Z",
            "2026-00-01T01:02:03Z",
            "2026-11-00T01:02:03Z",
            "2026-11-04T01:02:03+2:00",
            "2026-11-04T01:02:03+0200",
            "2026-11-04T01:02:03+24:00",
            "2026-11-04T01:02:03+02:60",
            "2026-11-04T01:02:03Z ",
            " 2026-11-04T01:02:03Z",
            "2026-11-04T01:02:03ZZ",
            "12026-11-04T01:02:03Z",
            "-026-11-04T01:02:03Z",
            "2026-1১-04T01:02:03Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(read(&format!("{text:?}")), Err(NoTime), "{text}");
        }
    }

    #[test]
    fn seconds_and_nanos_are_numbers_or_strings() {
        for (json, expected) in [
            (r#"{"seconds":1759436617,"nanos":48000000}"#, "2025-10-02T20:23:37.048Z"),
            (
                r#"{"$typeName":"google.protobuf.Timestamp","seconds":"1759436617","nanos":"1"}"#,
                "2025-10-02T20:23:37.000000001Z",
            ),
            (r#"{ "seconds" : 1759436617.0 }"#, "2025-10-02T20:23:37Z"),
            (r#"{"seconds":1.759436617e9,"nanos":null}"#, "2025-10-02T20:23:37Z"),
            (r#"{"seconds":-1,"nanos":500000000}"#, "1969-12-31T23:59:59.500Z"),
            (r#"{"seconds":"0","nanos":""}"#, "1970-01-01T00:00:00Z"),
            (r#"{"seconds":1,"seconds":2}"#, "1970-01-01T00:00:02Z"),
        ] {
            assert_eq!(printed(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn other_kinds_of_value_and_numbers_out_of_range_are_no_time() {
        for json in [
            "1793577600",
            "1793577600000",
            "1793577600.5",
            "true",
            "[]",
            "{}",
            r#"{"nanos":5}"#,
            r#"{"seconds":null}"#,
            r#"{"seconds":"1.5"}"#,
            r#"{"seconds":1.5}"#,
            r#"{"seconds":"+1"}"#,
            r#"{"seconds":"-"}"#,
            r#"{"seconds":true}"#,
            r#"{"seconds":1,"nanos":1000000000}"#,
            r#"{"seconds":1,"nanos":-1}"#,
            r#"{"seconds":1,"nanos":[]}"#,
            r#"{"seconds":253402300800}"#,
            r#"{"seconds":-62167219201}"#,
            r#"{"seconds":1e300}"#,
            r#"{"seconds":99999999999999999999}"#,
        ] {
            assert_eq!(read(json), Err(NoTime), "{json}");
        }
    }
}
