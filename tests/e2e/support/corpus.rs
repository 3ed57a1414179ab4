//! Files of records with everything that happens to them on the way, and the truth of what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::archived::{Archived, Key};
use super::record::{Record, Style, mix};

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The same seed gives the same bytes.
    pub seed: u64,
    /// Lines with something in them.
    pub lines: u64,
    /// Files to spread them over, in order.
    pub files: u64,
    /// How much longer than 450 bytes a line is.
    pub pad: usize,
}

/// Files and their truth.
#[derive(Debug, Default)]
pub struct Corpus {
    /// Each file's bytes.
    pub files: Vec<Vec<u8>>,
    /// What must come of them.
    pub truth: Truth,
}

/// What must come of an input.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Every content that must stand in the archive exactly once.
    pub events: BTreeSet<Key>,
    /// What must stand in quarantine, reason and bytes, and how often.
    pub rejects: BTreeMap<(String, Vec<u8>), u64>,
    /// Records and rejects there are.
    pub records: u64,
    /// Contents under an identity that another content has.
    pub conflicts: u64,
}

impl Plan {
    /// Writes it.
    pub fn corpus(self) -> Corpus {
        let mut writer = Writer { plan: self, sent: Vec::new(), corpus: Corpus::default() };
        for file in 0..self.files {
            let (first, end) = (self.lines * file / self.files, self.lines * (file + 1) / self.files);
            let mut bytes = Vec::new();
            for line in first..end {
                writer.write(line, &mut bytes);
            }
            writer.corpus.files.push(bytes);
        }
        writer.corpus
    }
}

struct Writer {
    plan: Plan,
    /// What was sent so far, in order.
    sent: Vec<Record>,
    corpus: Corpus,
}

impl Writer {
    fn write(&mut self, line: u64, out: &mut Vec<u8>) {
        let chance = mix(self.plan.seed.wrapping_mul(1_000_003).wrapping_add(line));
        let fresh = Record::new(self.plan.seed << 32 | line);
        let seen = self.sent.len() as u64;
        let earlier = |back: u64| self.sent[(seen - 1 - back % seen) as usize];
        let record = match (chance % 100, seen) {
            (_, 0) => fresh,
            // A copy soon after, and a copy much later.
            (0..5, _) => earlier(chance / 100 % 20),
            (5..9, _) => earlier(chance / 100),
            (9..11, _) => next_version(earlier(chance / 100)),
            (11, _) => Record { variant: 1, ..earlier(chance / 100) },
            (12, _) => return self.spoil(line, chance / 100, out),
            _ => fresh,
        };
        if chance % 1000 == 999 {
            // Framing: nothing comes of it.
            out.extend_from_slice(b"**********\n\n");
        }
        let style = match record.style() {
            Style::New if (chance / 7).is_multiple_of(9) => Style::Download,
            style => style,
        };
        out.extend_from_slice(record.line_as(style, self.plan.pad).as_bytes());
        out.push(b'\n');
        self.sent.push(record);
        self.corpus.truth.add(record);
    }

    /// A line that is no record.
    fn spoil(&mut self, line: u64, chance: u64, out: &mut Vec<u8>) {
        let good = Record::new(self.plan.seed << 32 | line).line_as(Style::New, 0);
        let (reason, bytes) = match chance % 7 {
            0 => ("invalid_json", good.as_bytes()[..100].to_vec()),
            1 => ("invalid_json", format!("panic: runtime error at {line}").into_bytes()),
            2 => ("not_an_object", format!("\"line {line}\"").into_bytes()),
            3 => ("not_an_audit_record", format!("{{\"hello\":{line}}}").into_bytes()),
            4 => ("emit_time_invalid", good.replace("2026-11", "yesterday").into_bytes()),
            5 => ("version_invalid", good.replace("\"version\":0", "\"version\":\"two\"").into_bytes()),
            _ => ("not_utf8", [format!("{{\"line\":{line},").as_bytes(), b"\xff\xfe}"].concat()),
        };
        out.extend_from_slice(&bytes);
        out.push(b'\n');
        self.corpus.truth.reject(reason, bytes);
    }
}

/// The next version. A record without `log_id` has none: it is sent as it is.
pub fn next_version(record: Record) -> Record {
    match record.style() {
        Style::Anonymous => record,
        _ => Record { version: record.version + 1, ..record },
    }
}

impl Corpus {
    /// Puts the files into a directory, as `part-0.ndjson` and so on.
    pub fn write_to(&self, directory: &Path) {
        for (number, bytes) in self.files.iter().enumerate() {
            fs::write(directory.join(format!("part-{number}.ndjson")), bytes).unwrap();
        }
    }
}

impl Truth {
    /// One more record.
    pub fn add(&mut self, record: Record) {
        self.records += 1;
        let key = Key::of(record);
        let other = Key::of(Record { variant: 1 - record.variant, ..record });
        let is_new = self.events.insert(key);
        self.conflicts += u64::from(is_new && record.log_id().is_some() && self.events.contains(&other));
    }

    /// One more line that is no record.
    pub fn reject(&mut self, reason: &str, raw: Vec<u8>) {
        self.records += 1;
        *self.rejects.entry((reason.to_owned(), raw)).or_default() += 1;
    }

    /// How many rows quarantine has.
    pub fn rejected(&self) -> u64 {
        self.rejects.values().sum()
    }

    /// How many rows the archive has.
    pub fn archived(&self) -> u64 {
        self.events.len() as u64
    }

    /// How many copies were dropped.
    pub fn duplicates(&self) -> u64 {
        self.records - self.archived() - self.rejected()
    }

    /// The archive holds what it must, each once, and nothing else.
    #[track_caller]
    pub fn assert_holds(&self, found: &Archived) {
        self.assert_records_hold(found);
        assert_eq!(found.conflicts, self.conflicts, "rows with the note dedupe_conflict");
    }

    /// The same, leaving aside which row of a conflict carries the note.
    #[track_caller]
    pub fn assert_records_hold(&self, found: &Archived) {
        let missing: Vec<_> = self.events.iter().filter(|key| !found.events.contains_key(key)).take(5).collect();
        let strange: Vec<_> = found.events.keys().filter(|key| !self.events.contains(key)).take(5).collect();
        let doubled: Vec<_> = found.events.iter().filter(|(_, times)| **times != 1).take(5).collect();
        assert!(
            missing.is_empty() && strange.is_empty() && doubled.is_empty(),
            "missing (first five): {missing:?}\nnever sent: {strange:?}\nmore than once: {doubled:?}"
        );
        let text = |rejects: &BTreeMap<(String, Vec<u8>), u64>| -> Vec<String> {
            rejects.iter().map(|((why, raw), n)| format!("{n} {why} {}", raw.escape_ascii())).collect()
        };
        assert_eq!(text(&found.rejects), text(&self.rejects), "the rejects");
    }
}
