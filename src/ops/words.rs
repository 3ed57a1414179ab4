//! Numbers, durations and errors as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// A number with its thousands apart: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of what is called `one` where there is one, and ends as nouns do where there are more: `1 shard`, `2,000
/// batches`.
pub fn counted(number: u64, one: &str) -> String {
    let plural = match number {
        1 => "",
        _ if one.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {one}{plural}", thousands(number))
}

/// A duration in whole seconds, in its two largest units, written as the configuration's are: `3h 12m`, `35d`.
pub fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let there = units.iter().filter(|(number, _)| *number > 0).take(2);
    let text = there.map(|(number, unit)| format!("{number}{unit}")).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A time in UTC, without the parts of its second: `2026-11-21T09:30:00Z`.
pub fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The error and what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn one_of_a_thing_is_not_many() {
        let shown = [0, 1, 2, 1_000].map(|number| counted(number, "shard"));
        assert_eq!(shown, ["0 shards", "1 shard", "2 shards", "1,000 shards"]);
        assert_eq!([1, 2].map(|number| counted(number, "batch")), ["1 batch", "2 batches"]);
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        let shown =
            [0, 61, 3_601, 90_061, 35 * 86_400, 400 * 86_400 + 59].map(|seconds| roughly(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "1m 1s", "1h 1s", "1d 1h", "35d", "400d 59s"]);
    }
}
