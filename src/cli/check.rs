//! `check`: everything that a worker will need, tried one thing after the other, before anything depends on it.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::open::{
    Names, OpenArchive, OpenSource, Part, Tried, check_pair, no_answer, open_archive, open_subscription, pages,
    refuse_another_source, require_files,
};
use super::{Failure, Reporting, block_on};
use crate::archive::s3::Probe;
use crate::archive::trial::refuses_a_second_put;
use crate::archive::{ArchiveError, ArchiveStore};
use crate::config::{ArchiveChoice, Config, DynamodbConfig, KinesisConsumer, SourceChoice, SpoolChoice, StateChoice};
use crate::dedupe::{Claim, Claims, Verdict};
use crate::encode::keys::ACCESS_TEST_KEY;
use crate::lease::{LeaseError, LeaseRow, LeaseStore, TRIAL_SHARD};
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::words::counted;
use crate::record::{IdentityKey, Unpacked, decode, identity_of, unpack};
use crate::source::{Checkpoint, Payload, Position, Reading, Shard, ShardId, Source, Until};

/// For how long the answer to one question is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Step {
    part: Part,
    /// What was tried.
    what: &'static str,
    /// The actions that it needs, as IAM names them; none of what lies on a disk.
    actions: Vec<&'static str>,
    /// Whether it works; null where it could not be tried: something before it failed, or a worker has the state directory.
    ok: Option<bool>,
    /// What is wrong, and what to do about it.
    error: Option<String>,
    /// What works, and may not be what was meant.
    remark: Option<String>,
}

/// All that was tried.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    /// What was tried of each part: the stream, the tables, the bucket.
    resources: Resources,
    steps: Vec<Step>,
}

#[derive(Debug, Default, Serialize)]
struct Resources {
    source: String,
    state: String,
    archive: String,
}

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    if config.source.kind == SourceChoice::File {
        // Who forgot the configuration has not asked for a state and an archive here.
        require_files(&config)?;
    }
    crate::ops::telemetry::start("error");
    let report = block_on(async { Ok(check(&config).await) })?;
    reporting.print(&report, Report::render)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(config: &Config) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let mut checklist = Checklist { config, steps: Vec::new(), silent: Vec::new(), clock: clock.clone() };
    let (source, origin) = check_source(config, &mut checklist).await;
    let (place, state) = check_state(config, origin.as_deref(), &mut checklist).await;
    let archive = check_archive(config, state.as_ref(), &mut checklist).await;
    let resources = Resources { source, state: place, archive };
    let ok = checklist.steps.iter().all(|step| step.ok != Some(false));
    Report { ok, resources, steps: checklist.steps }
}

/// The steps so far.
struct Checklist<'a> {
    config: &'a Config,
    steps: Vec<Step>,
    /// Those that gave no answer, and are not asked again.
    silent: Vec<Part>,
    clock: Arc<dyn Clock>,
}

impl Checklist<'_> {
    /// Tries something; what it came to, where it works.
    async fn attempt<T, E: Display>(
        &mut self,
        part: Part,
        what: &'static str,
        actions: &[&'static str],
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        if self.silent.contains(&part) {
            self.skip(part, &[(what, actions)]);
            return None;
        }
        let done = tokio::select! {
            done = attempt => done.map_err(|error| format!("{error:#}")),
            () = self.clock.sleep(PATIENCE) => {
                self.silent.push(part);
                Err(no_answer(self.config, part, PATIENCE).await)
            }
        };
        let (value, error) = match done {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        self.steps.push(Step { part, what, actions: actions.to_vec(), ok: Some(error.is_none()), error, remark: None });
        value
    }

    /// Says something about what was tried last.
    fn remark(&mut self, remark: String) {
        if let Some(step) = self.steps.last_mut() {
            step.remark = Some(remark);
        }
    }

    /// What could not be tried.
    fn skip(&mut self, part: Part, steps: &[(&'static str, &[&'static str])]) {
        let skipped = |(what, actions): &(&'static str, &[&'static str])| Step {
            part,
            what,
            actions: actions.to_vec(),
            ok: None,
            error: None,
            remark: None,
        };
        self.steps.extend(steps.iter().map(skipped));
    }
}

/// What a failure says, whatever its exit code would be.
fn words(failure: Failure) -> String {
    match failure {
        Failure::Configuration(error) | Failure::Failed(error) => format!("{error:#}"),
    }
}

/// Tries to read. What it is, and what its positions belong to.
async fn check_source(config: &Config, checklist: &mut Checklist<'_>) -> (String, Option<String>) {
    const PART: Part = Part::Source;
    let clock = checklist.clock.clone();
    let in_bucket =
        config.archive.kind == ArchiveChoice::S3 && config.source.pubsub.spool.store == SpoolChoice::Archive;
    let look: &[_] = &["pubsub.subscriptions.get"];
    let (find, list, read): (&[_], &[_], &[_]) = match config.source.kind {
        SourceChoice::File => (&[], &[], &[]),
        SourceChoice::Pubsub if in_bucket => (look, &["s3:ListBucket"], &["s3:GetObject"]),
        SourceChoice::Pubsub => (look, &[], &[]),
        SourceChoice::Kinesis => {
            let read: &[_] = match config.source.kinesis.consumer {
                KinesisConsumer::Polling => &["kinesis:GetShardIterator", "kinesis:GetRecords"],
                KinesisConsumer::FanOut => {
                    &["kinesis:DescribeStreamConsumer", "kinesis:RegisterStreamConsumer", "kinesis:SubscribeToShard"]
                }
            };
            (&["kinesis:DescribeStreamSummary"], &["kinesis:ListShards"], read)
        }
    };
    let (listing, reading) = ("list its shards", "read a shard");
    let place = match config.source.kind {
        SourceChoice::File => config.source.file.path.as_ref().map(|path| path.display().to_string()),
        SourceChoice::Kinesis => config.source.kinesis.stream.clone(),
        SourceChoice::Pubsub => config.source.pubsub.subscription.clone(),
    };
    let place = format!("{} {}", config.layout().source_kind.as_str(), place.unwrap_or_default());
    let open = Box::pin(async {
        open_subscription(config).await.map_err(words)?;
        OpenSource::open(config, clock, pages(config)).await.map_err(words)
    });
    let Some(opened) = checklist.attempt(PART, "find it", find, open).await else {
        checklist.skip(PART, &[(listing, list), (reading, read)]);
        return (place, None);
    };
    if let OpenSource::Pubsub(spools) = &opened {
        let actions: &[_] = if in_bucket { &["s3:PutObject", "s3:DeleteObject"] } else { &[] };
        let mut reached = true;
        let trial = async {
            let tried = spools.try_out().await;
            reached = tried.as_ref().err().is_none_or(|error| !matches!(error, ArchiveError::OutOfReach { .. }));
            tried
        };
        checklist.attempt(PART, "put into a spool once, and remove it", actions, trial).await;
        if !reached {
            checklist.skip(PART, &[(listing, list), (reading, read)]);
            return (place, opened.port().origin().map(str::to_owned));
        }
    }
    let source = opened.port();
    let origin = source.origin().map(str::to_owned);
    let Some(shards) = checklist.attempt(PART, listing, list, source.shards()).await else {
        checklist.skip(PART, &[(reading, read)]);
        return (place, origin);
    };
    checklist.attempt(PART, reading, read, read_one(source.as_ref(), &shards)).await;
    (place, origin)
}

/// Reads a page of the newest shard; of a source without shards there is nothing to read.
async fn read_one(source: &dyn Source, shards: &[Shard]) -> Result<(), String> {
    let Some(shard) = shards.last() else { return Ok(()) };
    let reading = Reading { after: Checkpoint::TrimHorizon, read_through: None, until: Until::Forever, arrival: None };
    let mut reader = source.open(&shard.id, reading).await.map_err(|error| error.to_string())?;
    reader.next().await.map(drop).map_err(|error| error.to_string())
}

/// Tries leases and claims. What they are kept in, and that, open. `origin` is what is read now.
async fn check_state(config: &Config, origin: Option<&str>, checklist: &mut Checklist<'_>) -> (String, Option<Tried>) {
    const PART: Part = Part::State;
    let clock = checklist.clock.clone();
    let is_dynamodb = config.state.kind == StateChoice::Dynamodb;
    let actions = |actions: &'static [&'static str]| if is_dynamodb { actions } else { &[] };
    let open = if is_dynamodb { opening_actions(&config.state.dynamodb) } else { Vec::new() };
    let list = actions(&["dynamodb:Scan"]);
    let lease = actions(&["dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:DeleteItem"]);
    let claim = actions(&["dynamodb:PartiQLInsert", "dynamodb:BatchGetItem", "dynamodb:PartiQLUpdate"]);
    let (listing, leasing, claiming) =
        ("read the leases", "make a lease row once, change it, remove it", "claim a record, and refuse its copy");
    let place = if is_dynamodb {
        format!("dynamodb, {}", Names::of(&config.state.dynamodb))
    } else {
        format!("embedded {}", config.state.embedded.path.display())
    };
    let opening = Box::pin(async { Tried::open(config, clock).await.map_err(words) });
    let Some(tried) = checklist.attempt(PART, "open it", &open, opening).await else {
        let steps: [(_, &[_]); 3] = [(listing, list), (leasing, lease), (claiming, claim)];
        checklist.skip(PART, if is_dynamodb { &steps } else { &steps[..2] });
        return (place, None);
    };
    let opening_said = match &tried {
        Tried::Open(state) if state.made_tables().is_empty() => None,
        Tried::Open(state) => Some(format!(
            "not there before, and made just now: {}; where workers run already, theirs have another \
             state.dynamodb.table_prefix",
            state.made_tables().join(", ")
        )),
        Tried::InUse { by, .. } => {
            Some(format!("{by}, and was looked at only; until that ends, no other worker can begin with it"))
        }
    };
    if let Some(said) = opening_said {
        checklist.remark(said);
    }
    let found = async {
        let archive_id = tried.bound().await.map_err(words)?.unwrap_or_default();
        let (leases, place) = tried.leases(archive_id).map_err(words)?;
        let rows = leases.list().await.map_err(|error| error.to_string())?;
        refuse_another_source(&place, &rows, origin).map_err(words)
    };
    checklist.attempt(PART, listing, list, found).await;
    let Tried::Open(state) = &tried else {
        checklist.skip(PART, &[(leasing, lease)]);
        return (place, Some(tried));
    };
    let trial = async { try_lease(state.leases(Uuid::nil()).map_err(words)?.as_ref()).await };
    checklist.attempt(PART, leasing, lease, trial).await;
    let now = checklist.clock.now();
    // A directory's claims are this process's alone: there is nobody to refuse.
    if let Some(claims) = state.trial_claims() {
        checklist.attempt(PART, claiming, claim, try_claim(&claims, now)).await;
    }
    (place, Some(tried))
}

/// What opening the tables takes, by what is configured.
fn opening_actions(tables: &DynamodbConfig) -> Vec<&'static str> {
    let mut actions = vec!["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"];
    if tables.create_tables {
        actions.extend(["dynamodb:CreateTable", "dynamodb:UpdateTimeToLive"]);
        actions.extend(tables.point_in_time_recovery.then_some("dynamodb:UpdateContinuousBackups"));
        actions.extend((!tables.tags.is_empty()).then_some("dynamodb:TagResource"));
    }
    actions
}

fn trial_shard() -> ShardId {
    ShardId::new(TRIAL_SHARD)
}

/// Makes a row that nobody reads by, sees that it can't be made twice, changes it and removes it.
async fn try_lease(leases: &dyn LeaseStore) -> Result<(), String> {
    let say = |error: LeaseError| error.to_string();
    // An ended shard that the source does not list: workers that see the row leave it alone.
    let row = LeaseRow { ended: true, caught_up: true, ..LeaseRow::new(trial_shard(), Vec::new()) };
    if let Some(left) = leases.get(&row.shard).await.map_err(say)? {
        leases.remove(&left).await.map_err(say)?;
    }
    leases.create(&row).await.map_err(say)?;
    match leases.create(&row).await {
        Err(LeaseError::Conflict { .. }) => {}
        Err(error) => return Err(error.to_string()),
        Ok(()) => return Err("a second row was put in the place of the first: conditions are not kept".into()),
    }
    let changed = LeaseRow { counter: row.counter + 1, ..row };
    leases.replace(&changed).await.map_err(say)?;
    if leases.get(&changed.shard).await.map_err(say)?.as_ref() != Some(&changed) {
        return Err("what was written is not what is read".into());
    }
    leases.remove(&changed).await.map_err(say)
}

/// Claims a record that nobody has, from two places.
async fn try_claim(claims: &dyn Claims, now: Timestamp) -> Result<(), String> {
    let data = Bytes::from(format!("{{\"log_id\":\"{TRIAL_SHARD}\",\"emit_time\":\"2026-01-01T00:00:00Z\"}}"));
    let key = IdentityKey::of_archive(Uuid::nil());
    let rules = Config::default().layout().rules;
    let mut verdicts = Vec::new();
    for place in [1, 2] {
        let payload =
            Payload { position: Position::new(place), arrival: now, source_message: None, data: data.clone() };
        let unpacked: Unpacked<'_> = unpack(&payload.data, rules.max_payload_bytes);
        let decoded: Vec<_> = decode(&unpacked, &rules).collect();
        let record = decoded.first().and_then(|decoded| decoded.outcome.as_ref().ok()).ok_or("a bug: no record")?;
        let claim =
            Claim { identity: identity_of(record), position: payload.position.record(0), core: key.core_of(record) };
        let verdict = claims.claim(&trial_shard(), &[claim], now).await.map_err(|error| error.to_string())?;
        verdicts.extend(verdict);
    }
    if verdicts == [Verdict::New, Verdict::Duplicate] {
        return Ok(());
    }
    Err(format!("two claims of one record came to {verdicts:?}: conditions are not kept"))
}

/// Tries to put objects, and sees whether they would go where those of this state are.
async fn check_archive(config: &Config, state: Option<&Tried>, checklist: &mut Checklist<'_>) -> String {
    const PART: Part = Part::Archive;
    const TRIALS: [(Probe, &str, &[&str]); 4] = [
        (Probe::List, "list objects", &["s3:ListBucket"]),
        (Probe::Read, "read an object", &["s3:GetObject"]),
        (Probe::PutOnce, "put an object, and be refused the second time", &["s3:PutObject"]),
        (
            Probe::PutPartsOnce,
            "the same of an object in parts, and clear parts away",
            &["s3:PutObject", "s3:AbortMultipartUpload"],
        ),
    ];
    let clock = checklist.clock.clone();
    let is_bucket = config.archive.kind == ArchiveChoice::S3;
    let place = if is_bucket {
        let s3 = &config.archive.s3;
        format!("s3://{}/{}", s3.bucket.as_deref().unwrap_or_default(), s3.prefix)
    } else {
        config.archive.local.path.display().to_string()
    };
    let pairing = "be the archive of this state";
    let open = Box::pin(async {
        let archive = open_archive(config, clock).await.map_err(words)?;
        archive.find().await.map_err(words)?;
        Ok::<_, String>(archive)
    });
    let Some(archive) = checklist.attempt(PART, "open it", &[], open).await else {
        if is_bucket {
            if state.is_some() {
                checklist.skip(PART, &[(pairing, &[])]);
            }
            checklist.skip(PART, &TRIALS.map(|(_, what, actions)| (what, actions)));
        }
        return place;
    };
    if let Some(state) = state {
        let pair = Box::pin(async { check_pair(&archive, state).await.map_err(words) });
        let unknown = checklist.attempt(PART, pairing, &[], pair).await.flatten();
        if let Some(archive_id) = unknown {
            let setting = match config.state.kind {
                StateChoice::Dynamodb => "state.dynamodb.table_prefix",
                StateChoice::Embedded => "state.embedded.path",
            };
            checklist.remark(format!(
                "the archive {archive_id} is there, and nothing of it in {state}: where its workers have their state \
                 elsewhere, correct {setting}; where it is lost, a worker makes it anew from the archive"
            ));
        }
    }
    if is_bucket {
        for (probe, what, actions) in TRIALS {
            checklist.attempt(PART, what, actions, Box::pin(try_bucket(&archive, probe))).await;
        }
    } else {
        checklist
            .attempt(PART, "put an object, and be refused the second time", &[], put_twice(archive.store.as_ref()))
            .await;
    }
    place
}

async fn try_bucket(archive: &OpenArchive, probe: Probe) -> Result<(), String> {
    archive.probe(&[probe]).await.map_err(words)
}

async fn put_twice(archive: &dyn ArchiveStore) -> Result<(), String> {
    let refused = refuses_a_second_put(archive, ACCESS_TEST_KEY).await.map_err(|error| error.to_string())?;
    if refused { Ok(()) } else { Err("the object was overwritten".into()) }
}

impl Report {
    fn render(&self) -> String {
        let mut lines = Vec::new();
        let Resources { source, state, archive } = &self.resources;
        for (part, name, place) in
            [(Part::Source, "source", source), (Part::State, "state", state), (Part::Archive, "archive", archive)]
        {
            lines.push(format!("{name}: {place}"));
            lines.extend(self.steps.iter().filter(|step| step.part == part).flat_map(Step::lines));
        }
        let failed = self.steps.iter().filter(|step| step.ok == Some(false)).count();
        let remarks = self.steps.iter().filter(|step| step.remark.is_some()).count();
        let all = if self.steps.iter().any(|step| step.ok.is_none()) { "all that was tried" } else { "all of it" };
        lines.push(match (failed, remarks) {
            (0, 0) => format!("{all} works"),
            (0, remarks) => format!("{all} works, with {}", counted(remarks as u64, "remark")),
            (1, _) => "1 thing is missing".into(),
            (failed, _) => format!("{} are missing", counted(failed as u64, "thing")),
        });
        lines.join("\n")
    }
}

impl Step {
    fn lines(&self) -> Vec<String> {
        let mark = match self.ok {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "-",
        };
        let actions = if self.actions.is_empty() { String::new() } else { format!("  ({})", self.actions.join(", ")) };
        let not_tried = if self.ok.is_none() { "  not tried" } else { "" };
        let line = format!("  {mark} {}{actions}{not_tried}", self.what);
        let error = self.error.iter().map(|error| format!("    {error}"));
        let remark = self.remark.iter().map(|remark| format!("    remark: {remark}"));
        [line].into_iter().chain(error).chain(remark).collect()
    }
}
