//! From a file and the environment to a checked configuration. Every complaint names the key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::generate::SchemaSettings;
use serde_json::Value as Schema;
use toml::{Table, Value};

use super::{ArchiveChoice, Config, S3Config, S3Encryption, SourceChoice, SpoolChoice, SpoolConfig};
use crate::encode::keys::{IDENTITY_KEY, MANIFESTS_PREFIX, VERIFICATIONS_PREFIX};
use crate::encode::{Compression, Format};

/// What environment variables begin with.
const PREFIX: &str = "AUDITLAKE__";

/// What is wrong with the configuration; one line that names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path}: line {line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such key.
    #[error("unknown key `{key}`{}", hint(.nearest.as_deref()))]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// The known key most like it, if one is.
        nearest: Option<String>,
    },
    /// A key's value is wrong.
    #[error("{key}: {message}")]
    Invalid {
        /// The key, dotted.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

fn invalid(key: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key: key.into(), message: message.into() }
}

/// The JSON Schema of the configuration.
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Reads the file, lays the environment's variables over it, and checks the whole.
///
/// `environment` holds names and values; those that do not begin with `AUDITLAKE__` are none of ours.
pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let schema = schema();
    let mut table = path.map_or_else(|| Ok(Table::new()), read)?;
    check_keys(&table, &schema, "")?;
    let environment: Vec<(String, String)> = environment.collect();
    if let Some((name, meant)) = environment.iter().find_map(|(name, _)| Some((name, meant_by(name, &schema)?))) {
        return Err(invalid(name.as_str(), format!("is no setting of ours; did you mean {meant}?")));
    }
    let mut overrides: Vec<(String, String)> =
        environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    overrides.sort();
    for (name, value) in overrides {
        lay_over(&mut table, &schema, &name, &value)?;
    }
    let config: Config = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let message = error.into_inner().message().trim().replace('\n', " ");
        let message = message.replace("a sequence", &format!("a list, as in `{}`", list_for(&key)));
        invalid(key, message)
    })?;
    check(&config)?;
    Ok(config)
}

/// What a list looks like under this key.
fn list_for(key: &str) -> &'static str {
    if key == "archive.partition_by" { r#"["dt", "hour"]"# } else { r#"["…", "…"]"# }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.into(), error };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text[..start.min(text.len())].matches('\n').count();
        ConfigError::Syntax { path: path.into(), line, message: error.message().replace('\n', " ") }
    })
}

fn properties(schema: &Schema) -> Option<&serde_json::Map<String, Schema>> {
    schema.get("properties")?.as_object()
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.into() } else { format!("{prefix}.{key}") }
}

/// Every key of the table is one of the schema's.
fn check_keys(table: &Table, schema: &Schema, prefix: &str) -> Result<(), ConfigError> {
    let Some(known) = properties(schema) else { return Ok(()) };
    for (key, value) in table {
        let Some(below) = known.get(key) else { return Err(unknown(known, prefix, key)) };
        if let Value::Table(table) = value {
            check_keys(table, below, &join(prefix, key))?;
        }
    }
    Ok(())
}

fn unknown(known: &serde_json::Map<String, Schema>, prefix: &str, key: &str) -> ConfigError {
    let likeness = |candidate: &&String| strsim::damerau_levenshtein(key, candidate);
    let close = |candidate: &&String| likeness(candidate) <= 1 + candidate.len() / 3;
    let nearest = known.keys().filter(close).min_by_key(likeness).map(|nearest| join(prefix, nearest));
    ConfigError::UnknownKey { key: join(prefix, key), nearest }
}

/// The variable that is meant by one whose underscores are too few.
fn meant_by(name: &str, schema: &Schema) -> Option<String> {
    let rest = name.strip_prefix("AUDITLAKE_").filter(|rest| !rest.starts_with('_'))?;
    if rest.contains("__") {
        return Some(format!("{PREFIX}{rest}"));
    }
    let mut variables = Vec::new();
    push_variables(schema, "AUDITLAKE", &mut variables);
    let single = |variable: &String| variable.replace("__", "_") == name;
    variables.into_iter().find(single)
}

/// The variables of all keys.
fn push_variables(schema: &Schema, prefix: &str, variables: &mut Vec<String>) {
    let Some(known) = properties(schema) else { return variables.push(prefix.to_owned()) };
    for (key, below) in known {
        push_variables(below, &format!("{prefix}__{}", key.to_ascii_uppercase()), variables);
    }
}

/// Sets the key that the variable names. A value is read as TOML (`5`, `true`, `["dt"]`) where the key is no text.
fn lay_over(table: &mut Table, schema: &Schema, name: &str, text: &str) -> Result<(), ConfigError> {
    let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let (mut table, mut schema, mut prefix) = (table, schema, String::new());
    for (depth, key) in path.iter().enumerate() {
        let known = properties(schema).ok_or_else(|| invalid(name, format!("{prefix} has no keys below it")))?;
        schema = known.get(key).ok_or_else(|| unknown(known, &prefix, key))?;
        prefix = join(&prefix, key);
        if depth + 1 == path.len() {
            table.insert(key.clone(), value(schema, text));
            return Ok(());
        }
        let below = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = below.as_table_mut().ok_or_else(|| invalid(prefix.as_str(), "is no table"))?;
    }
    Ok(())
}

fn value(schema: &Schema, text: &str) -> Value {
    let is_text =
        schema.get("type").is_some_and(|kind| kind == "string" || kind == &serde_json::json!(["string", "null"]));
    let as_toml = || format!("value = {text}").parse::<Table>().ok()?.remove("value");
    let parsed = if is_text { None } else { as_toml() };
    parsed.unwrap_or_else(|| Value::String(text.into()))
}

/// What types alone can't say.
fn check(config: &Config) -> Result<(), ConfigError> {
    let archive = &config.archive;
    if archive.format == Format::Ndjson && archive.compression == Compression::Snappy {
        return Err(invalid("archive.compression", "`snappy` goes with Parquet only; take `zstd`, `gzip` or `none`"));
    }
    let levels = archive.compression.levels();
    if !levels.contains(&archive.compression_level) {
        let message = format!("{} is not between {} and {}", archive.compression_level, levels.start(), levels.end());
        return Err(invalid("archive.compression_level", message));
    }
    for (index, key) in archive.partition_by.iter().enumerate() {
        if archive.partition_by[..index].contains(key) {
            return Err(invalid("archive.partition_by", format!("`{}` stands twice", key.as_str())));
        }
    }
    let window = config.batch.window.get();
    if window.as_secs() == 0 || window.subsec_nanos() != 0 {
        return Err(invalid("batch.window", "must be a whole number of seconds, at least one"));
    }
    for (key, number) in [
        ("batch.max_records", config.batch.max_records),
        ("batch.max_bytes", config.batch.max_bytes.as_u64()),
        ("limits.max_payload_bytes", config.limits.max_payload_bytes.as_u64()),
        ("limits.memory", config.limits.memory.as_u64()),
        ("source.pubsub.spool.max_bytes", config.source.pubsub.spool.max_bytes.as_u64()),
        ("source.pubsub.spool.max_messages", config.source.pubsub.spool.max_messages),
    ] {
        if number == 0 {
            return Err(invalid(key, "must be more than 0"));
        }
    }
    let durations = [
        ("source.file.poll", config.source.file.poll),
        ("source.kinesis.poll", config.source.kinesis.poll),
        ("source.kinesis.list_shards", config.source.kinesis.list_shards),
        ("source.pubsub.drain_idle", config.source.pubsub.drain_idle),
        ("source.pubsub.spool.flush_interval", config.source.pubsub.spool.flush_interval),
        ("source.pubsub.spool.seal_after", config.source.pubsub.spool.seal_after),
        ("dedupe.window", config.dedupe.window),
    ];
    // Renewals are sent three times as often, and take their time.
    if config.lease.failover.get() < Duration::from_secs(1) {
        return Err(invalid("lease.failover", "must be at least 1s"));
    }
    if let Some((key, _)) = durations.iter().find(|(_, duration)| duration.get().is_zero()) {
        return Err(invalid(*key, "must be more than 0"));
    }
    check_bucket(&config.archive.s3)?;
    check_spool(&config.source.pubsub.spool)?;
    check_paths(config)
}

/// Settings that would be passed over in silence.
fn check_bucket(s3: &S3Config) -> Result<(), ConfigError> {
    let kms = s3.sse == Some(S3Encryption::Kms);
    if s3.kms_key_id.is_some() && !kms {
        return Err(invalid("archive.s3.kms_key_id", "goes with archive.s3.sse = \"aws:kms\" only"));
    }
    if s3.bucket_key && !kms {
        return Err(invalid("archive.s3.bucket_key", "goes with archive.s3.sse = \"aws:kms\" only"));
    }
    if s3.object_lock.is_some_and(|lock| lock.retain.get().is_zero()) {
        return Err(invalid("archive.s3.object_lock.retain", "must be more than 0"));
    }
    Ok(())
}

/// Whatever else is found in an archive is damage, but for folders with an underscore; those of the archive itself are taken.
fn check_spool(spool: &SpoolConfig) -> Result<(), ConfigError> {
    let folder = spool.prefix.trim_matches('/');
    let is_one = folder.starts_with('_') && folder.len() > 1 && !folder.contains('/');
    let taken =
        [MANIFESTS_PREFIX, VERIFICATIONS_PREFIX, IDENTITY_KEY].iter().any(|key| key.trim_end_matches('/') == folder);
    if is_one && !taken {
        return Ok(());
    }
    let message = "must be one folder that begins with an underscore and is not the archive's own";
    Err(invalid("source.pubsub.spool.prefix", message))
}

/// A source that holds its own archive would archive it again, and again; an archive that holds its own state would be
/// full of objects that nobody listed.
fn check_paths(config: &Config) -> Result<(), ConfigError> {
    let archive = ("archive.local.path", config.archive.local.path.as_path());
    let state = ("state.embedded.path", config.state.embedded.path.as_path());
    // What is not used may lie anywhere.
    let archive = (config.archive.kind == ArchiveChoice::Local).then_some(archive);
    let source = config.source.file.path.as_deref().map(|path| ("source.file.path", path));
    let spool = &config.source.pubsub.spool;
    let has_folder = config.source.kind == SourceChoice::Pubsub && spool.store == SpoolChoice::Local;
    let spool = has_folder.then_some(("source.pubsub.spool.path", spool.path.as_path()));
    for (key, path) in [archive, Some(state), source, spool].into_iter().flatten() {
        if path.as_os_str().is_empty() {
            return Err(invalid(key, "is empty"));
        }
    }
    let within = |(key, path): (&str, &Path), (outer, around): (&str, &Path), why: &str| {
        let lies = real(path).starts_with(real(around));
        if lies { Err(invalid(key, format!("`{}` lies within {outer}{why}", path.display()))) } else { Ok(()) }
    };
    if let Some(source) = source {
        archive.map_or(Ok(()), |archive| within(archive, source, ", which is read"))?;
        within(state, source, ", which is read")?;
    }
    if let Some(spool) = spool {
        archive.map_or(Ok(()), |archive| within(spool, archive, ", which holds nothing but the archive"))?;
        within(spool, state, ", which holds nothing but the state")?;
    }
    archive.map_or(Ok(()), |archive| within(state, archive, ", which holds nothing but the archive"))
}

/// The path without links and `..`, as far as it stands.
fn real(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let standing = whole.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = standing else { return whole };
    // An empty rest would leave a slash behind, which a file has not.
    match whole.strip_prefix(above) {
        Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
        _ => real,
    }
}

#[cfg(test)]
mod tests;
