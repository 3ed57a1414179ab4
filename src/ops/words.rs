//! Numbers, durations and errors as people read them.

use std::time::Duration;

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

/// A duration in whole seconds, in its two largest units: `3h 12m`.
pub fn roughly(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
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
        let shown = [0, 61, 90_061].map(|seconds| roughly(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "1m 1s", "1day 1h"]);
    }
}
