//! Rows made by hand, for tests (the integration test `tests/formats` includes this file too).

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use crate::encode::{Compression, Format, Layout, PartitionKey, Row};
use crate::record::{DetailsSource, Outcome, PrincipalType, Record, Rules};
use crate::source::{Position, SequenceNumber, ShardId, SourceKind};

/// A row that owns what it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) record: Record<'static>,
    pub(crate) shard: ShardId,
    pub(crate) payload: Position,
    pub(crate) index: u32,
    pub(crate) arrival: Timestamp,
    pub(crate) source_message: Option<String>,
    pub(crate) conflict: bool,
}

impl Sample {
    pub(crate) fn row(&self) -> Row<'_> {
        Row {
            record: &self.record,
            shard: &self.shard,
            position: self.payload.record(self.index),
            arrival: self.arrival,
            source_message: self.source_message.as_deref(),
            conflict: self.conflict,
        }
    }
}

pub(crate) fn layout() -> Layout {
    Layout {
        format: Format::Parquet,
        compression: Compression::Zstd,
        compression_level: 3,
        partition_by: vec![PartitionKey::Dt],
        keep_raw: true,
        source_label: "example".to_owned(),
        source_kind: SourceKind::Kinesis,
        rules: Rules::default(),
    }
}

/// A row with a value in every column.
#[allow(dead_code)] // tests/formats has no use for it
pub(crate) fn full() -> Sample {
    generate(1).remove(0)
}

/// A row with null in every column that may be null.
pub(crate) fn empty(index: u32) -> Sample {
    let arrival = start() + SignedDuration::from_secs(i64::from(index));
    Sample {
        record: Record {
            resource_category: "unknown".into(),
            action: "other".into(),
            deprecated: "{}".into(),
            unknown_fields: "{}".into(),
            raw: "{}".into(),
            ..Record::default()
        },
        shard: ShardId::new("shardId-000000000000"),
        payload: Position::new(u64::from(index)),
        index: 0,
        arrival,
        source_message: None,
        conflict: false,
    }
}

fn start() -> Timestamp {
    "2026-11-21T09:30:00Z".parse().expect("a time")
}

/// A multiplicative congruential generator: the same numbers for ever.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// `count` rows that look like a stream's: ids that are random, people and operations that repeat, details that
/// resemble each other.
pub(crate) fn generate(count: usize) -> Vec<Sample> {
    let mut numbers = Numbers::new(7);
    let mut emit_time = start();
    (0..count).map(|index| record(index as u64, &mut numbers, &mut emit_time)).collect()
}

fn record(index: u64, numbers: &mut Numbers, emit_time: &mut Timestamp) -> Sample {
    const OPERATIONS: [(&str, &str, &str); 5] = [
        ("CreateNamespace", "namespace", "create"),
        ("UpdateUser", "user", "update"),
        ("DeleteUser", "user", "delete"),
        ("UserLogin", "user", "login"),
        ("CreateAPIKey", "api_key", "create"),
    ];
    *emit_time += SignedDuration::from_nanos(numbers.below(30_000_000).cast_signed());
    let (operation, category, action) = OPERATIONS[numbers.below(5) as usize];
    let id = |n: &mut Numbers| format!("{:08x}{:08x}{:08x}{:08x}", n.next(), n.next(), n.next(), n.next());
    let log_id = id(numbers);
    let person = numbers.below(300);
    let name = format!("person{person}@example.com");
    let address = format!("203.0.113.{}", numbers.below(250));
    let failed = numbers.below(20) == 0;
    let status = if failed { "PERMISSION_DENIED" } else { "OK" };
    let details = format!(
        r#"{{"namespace":"prod-{}.a1b2c","retention_days":{},"region":"aws-eu-west-1","request":"{}","comment":"line\nbreak, \"quote\", größer \u2028"}}"#,
        numbers.below(40),
        numbers.below(90),
        id(numbers)
    );
    let operation_id = id(numbers);
    let raw = format!(
        r#"{{"operation":"{operation}","principal":{{"id":"{person:08}","type":"user","name":"{name}"}},"raw_details":{details},"x_forwarded_for":"{address}, 198.51.100.7","emit_time":"{emit_time}","log_id":"{log_id}","async_operation_id":"{operation_id}","status":"{status}","version":2}}"#
    );
    Sample {
        record: Record {
            log_id: Some(log_id.into()),
            version: 2,
            emit_time: Some(*emit_time),
            operation: Some(operation.into()),
            operation_canonical: Some(operation.into()),
            resource_category: category.into(),
            action: action.into(),
            status: Some(status.into()),
            outcome: if failed { Outcome::Failure } else { Outcome::Success },
            principal_type: Some(PrincipalType::User),
            principal_id: Some(format!("{person:08}").into()),
            principal_name: Some(name.clone().into()),
            principal_api_key_id: Some(format!("key{}", person % 7).into()),
            actor_email: Some(name.into()),
            x_forwarded_for: Some(format!("{address}, 198.51.100.7").into()),
            ip_chain: vec![address.clone().into(), Cow::Borrowed("198.51.100.7")],
            client_ip: Some(address.into()),
            async_operation_id: Some(operation_id.into()),
            namespace: Some("prod".into()),
            details: Some(details.into()),
            details_source: DetailsSource::RawDetails,
            deprecated: r#"{"level":"LOG_LEVEL_INFO"}"#.into(),
            unknown_fields: r#"{"new":null,"n":1.50}"#.into(),
            notes: vec!["operation_unknown".into()],
            raw: raw.into(),
        },
        shard: ShardId::new("shardId-000000000000"),
        payload: Position {
            sequence: SequenceNumber::new(&format!("4959033827149025660855969253836157109592157598913{index:07}")),
            sub_sequence: index % 3,
        },
        index: (index % 2) as u32,
        arrival: *emit_time + SignedDuration::from_millis(1_500),
        source_message: (index % 4 < 2).then(|| {
            format!(r#"{{"attributes":{{"from":"\"größer\"\n"}},"message_id":"{}","ordering_key":"key"}}"#, index / 2)
        }),
        conflict: index % 97 == 96,
    }
}
