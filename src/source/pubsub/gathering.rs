//! Messages on their way into a segment. Pure.

use std::time::Duration;

/// The bounds of a segment; whichever is reached first cuts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How long the first message of a segment may wait for others.
    pub flush_interval: Duration,
    /// The most bytes of its messages; a larger message has a segment of its own.
    pub max_bytes: u64,
    /// The most messages.
    pub max_messages: u64,
}

/// The messages of the next segment; `M` with whatever is needed to acknowledge them.
#[derive(Debug)]
pub(super) struct Gathering<M> {
    messages: Vec<M>,
    bytes: u64,
    since: Duration,
}

impl<M> Default for Gathering<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), bytes: 0, since: Duration::ZERO }
    }
}

impl<M> Gathering<M> {
    /// Takes a message of so many bytes, at this monotonic time.
    pub(super) fn push(&mut self, message: M, bytes: u64, now: Duration) {
        if self.messages.is_empty() {
            self.since = now;
        }
        self.messages.push(message);
        self.bytes += bytes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether no more messages are to be taken.
    pub(super) fn is_full(&self, cut: Cut) -> bool {
        self.bytes >= cut.max_bytes || self.messages.len() as u64 >= cut.max_messages
    }

    /// In how long it is to be put; never where it holds nothing.
    pub(super) fn due_in(&self, cut: Cut, now: Duration) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let left = (self.since + cut.flush_interval).saturating_sub(now);
        Some(if self.is_full(cut) { Duration::ZERO } else { left })
    }

    /// All that was gathered, in the order in which it came; nothing is left.
    pub(super) fn take(&mut self) -> Vec<M> {
        std::mem::take(self).messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Cut = Cut { flush_interval: Duration::from_secs(5), max_bytes: 100, max_messages: 3 };

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn the_first_message_waits_no_longer_than_the_interval() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.due_in(CUT, at(1000)), None, "nothing is put where nothing came");
        gathering.push('a', 1, at(10));
        gathering.push('b', 1, at(14));
        assert_eq!(gathering.due_in(CUT, at(14)), Some(at(1)));
        assert_eq!(gathering.due_in(CUT, at(99)), Some(at(0)));
        assert_eq!(gathering.take(), ['a', 'b']);
        assert_eq!(gathering.due_in(CUT, at(99)), None);
        gathering.push('c', 1, at(100));
        assert_eq!(gathering.due_in(CUT, at(100)), Some(at(5)), "its time begins anew");
    }

    #[test]
    fn bytes_and_messages_fill_a_segment_before_its_time() {
        for messages in [&[100][..], &[60, 60], &[1, 1, 1]] {
            let mut gathering = Gathering::default();
            for bytes in messages {
                assert!(!gathering.is_full(CUT));
                gathering.push((), *bytes, at(0));
            }
            assert!(gathering.is_full(CUT), "{messages:?}");
            assert_eq!(gathering.due_in(CUT, at(0)), Some(at(0)));
        }
    }
}
