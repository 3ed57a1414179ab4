//! Payloads for a stream, without end, and the truth of what must come of them.

use auditlake_test_servers::aws::Put;

use super::corpus::{Truth, next_version};
use super::record::{Record, Style, mix};

/// Makes records as Temporal sends them: most are new; some come again soon or late, in the same words or in others that
/// say the same, by the same partition key or by another (so by another shard); some in their next version; a payload
/// holds one to three, and now and then none.
#[derive(Debug)]
pub struct Feed {
    seed: u64,
    /// How many payloads there were.
    payloads: u64,
    /// What was made so far, in order.
    made: Vec<Record>,
    /// How much longer than 450 bytes a record is.
    pad: usize,
    /// How many times more records a payload holds.
    density: u64,
    /// What must come of all that was made. A payload that is put twice, as after a lost answer, leaves `events` as it
    /// is; `records` counts what was made.
    pub truth: Truth,
}

impl Feed {
    /// The same seed gives the same payloads.
    pub fn new(seed: u64) -> Self {
        Self { seed, payloads: 0, made: Vec::new(), pad: 0, density: 1, truth: Truth::default() }
    }

    /// With longer records.
    pub fn padded(self, pad: usize) -> Self {
        Self { pad, ..self }
    }

    /// With so many times more records in a payload.
    pub fn dense(self, density: u64) -> Self {
        Self { density, ..self }
    }

    /// The next payloads.
    pub fn take(&mut self, payloads: u64) -> Vec<Put> {
        (0..payloads).map(|_| self.payload()).collect()
    }

    fn payload(&mut self) -> Put {
        let chance = mix(self.seed.wrapping_mul(1_000_003).wrapping_add(self.payloads) ^ 0xfeed);
        self.payloads += 1;
        let records = match chance % 64 {
            // What Temporal sends to try a sink.
            0 => 0,
            1..=8 => 2,
            9..=12 => 3,
            _ => 1,
        };
        let lines: Vec<String> = (0..records * self.density).map(|number| self.record(mix(chance ^ number))).collect();
        // Kinesis takes no empty payload; a line break holds no record either.
        let data = if lines.is_empty() { "\n".to_owned() } else { lines.join("\n") };
        Put::new(format!("key-{}", (chance >> 32) % 1009), data)
    }

    /// One record's line.
    fn record(&mut self, chance: u64) -> String {
        let made = self.made.len() as u64;
        let fresh = Record::new(self.seed << 32 | made);
        let earlier = |back: u64| self.made[(made - 1 - back % made) as usize];
        let record = match (chance % 100, made) {
            (_, 0) => fresh,
            (0..6, _) => earlier(chance / 100 % 20),
            (6..10, _) => earlier(chance / 100),
            (10..13, _) => next_version(earlier(chance / 100)),
            _ => fresh,
        };
        let style = match record.style() {
            Style::New if (chance / 7).is_multiple_of(5) => Style::Download,
            style => style,
        };
        self.made.push(record);
        self.truth.add(record);
        record.line_as(style, self.pad)
    }
}
