//! Putting an object whole.

use std::fmt::Write as _;

use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption, StorageClass};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::fault::{Answer, Asked};
use super::options::{Encryption, LockMode, S3Options};
use super::{S3Archive, unavailable};
use crate::archive::{ArchiveError, Put};
use crate::digest::Digest;

/// Puts only where no object stands.
pub(super) const ABSENT: &str = "*";

/// A body up to this size is digested where it is; a larger one would keep others waiting.
const DIGESTED_AT_ONCE: usize = 1 << 20;

impl S3Archive {
    pub(super) async fn put(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        let sha256 = digest(key, &body).await?;
        if body.len() as u64 > self.options.multipart_above {
            return self.patiently(|| self.put_in_parts(key, &body, sha256)).await;
        }
        self.patiently(|| self.put_whole(key, &body, sha256)).await
    }

    async fn put_whole(&self, key: &str, body: &Bytes, sha256: Digest) -> Result<Put, ArchiveError> {
        let request = self.client.put_object().bucket(&self.options.bucket).key(self.full(key));
        let request = self.options.dress(request, key, sha256, self.clock.now());
        let request = request.if_none_match(ABSENT).checksum_sha256(base64(sha256));
        match request.body(ByteStream::from(body.clone())).send().await {
            Ok(_) => Ok(Put::Created),
            Err(error) => match self.options.judge(Asked::Write, key, &error) {
                Answer::Taken => Ok(Put::Exists),
                other => Err(other.into_error(key)),
            },
        }
    }
}

/// The digest as S3 writes it.
pub(super) fn base64(digest: Digest) -> String {
    STANDARD.encode(digest.0)
}

/// The digest of a body, worked out where nobody has to wait for it.
pub(super) async fn digest(key: &str, body: &Bytes) -> Result<Digest, ArchiveError> {
    if body.len() <= DIGESTED_AT_ONCE {
        return Ok(Digest::of(body));
    }
    let body = body.clone();
    let digested = tokio::task::spawn_blocking(move || Digest::of(&body)).await;
    digested.map_err(|stopped| unavailable(key, stopped.to_string()))
}

/// What an object's name says it is. Nothing is said of compression as an encoding, which clients would undo.
fn content_type(key: &str) -> &'static str {
    let is = |end: &str| key.ends_with(end);
    match () {
        () if is(".parquet") => "application/vnd.apache.parquet",
        () if is(".json") => "application/json",
        () if is(".ndjson") => "application/x-ndjson",
        () if is(".gz") => "application/gzip",
        () if is(".zst") => "application/zstd",
        () => "application/octet-stream",
    }
}

/// A request that makes an object: whole, or to be put in parts.
pub(super) trait MakesObject: Sized {
    fn describe(self, content_type: &str, sha256: Digest) -> Self;
    fn encrypt(self, with: ServerSideEncryption, key_id: Option<String>, bucket_key: Option<bool>) -> Self;
    fn place(self, storage_class: Option<StorageClass>, tags: Option<String>) -> Self;
    fn lock(self, mode: ObjectLockMode, until: DateTime) -> Self;
}

macro_rules! makes_object {
    ($request:ty) => {
        impl MakesObject for $request {
            fn describe(self, content_type: &str, sha256: Digest) -> Self {
                self.content_type(content_type).metadata("sha256", sha256.to_string())
            }

            fn encrypt(self, with: ServerSideEncryption, key_id: Option<String>, bucket_key: Option<bool>) -> Self {
                self.server_side_encryption(with).set_ssekms_key_id(key_id).set_bucket_key_enabled(bucket_key)
            }

            fn place(self, storage_class: Option<StorageClass>, tags: Option<String>) -> Self {
                self.set_storage_class(storage_class).set_tagging(tags)
            }

            fn lock(self, mode: ObjectLockMode, until: DateTime) -> Self {
                self.object_lock_mode(mode).object_lock_retain_until_date(until)
            }
        }
    };
}
makes_object!(PutObjectFluentBuilder);
makes_object!(CreateMultipartUploadFluentBuilder);

impl S3Options {
    /// Gives the request all that every object gets. `now` is when its retention begins.
    pub(super) fn dress<R: MakesObject>(&self, request: R, key: &str, sha256: Digest, now: Timestamp) -> R {
        let mut request = request.describe(content_type(key), sha256);
        request = match &self.encryption {
            None => request,
            Some(Encryption::S3) => request.encrypt(ServerSideEncryption::Aes256, None, None),
            Some(Encryption::Kms { key_id, bucket_key }) => {
                request.encrypt(ServerSideEncryption::AwsKms, key_id.clone(), Some(*bucket_key))
            }
        };
        request = request.place(self.storage_class.as_deref().map(StorageClass::from), self.tagging());
        if let Some(lock) = self.retention {
            let mode = match lock.mode {
                LockMode::Governance => ObjectLockMode::Governance,
                LockMode::Compliance => ObjectLockMode::Compliance,
            };
            // Past the end of time is forever.
            let until = now.checked_add(lock.retain).unwrap_or(Timestamp::MAX);
            request = request.lock(mode, DateTime::from_secs(until.as_second()));
        }
        request
    }

    /// The tags as a header has them: a query string.
    fn tagging(&self) -> Option<String> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let mut header = String::new();
        for (name, value) in &self.tags {
            let and = if header.is_empty() { "" } else { "&" };
            write!(header, "{and}{}={}", encode(name), encode(value)).expect("a string takes all that is written");
        }
        (!header.is_empty()).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_by_its_ending_and_never_by_an_encoding() {
        for (key, told) in [
            ("events/dt=2026-11-21/a.parquet", "application/vnd.apache.parquet"),
            ("events/a.ndjson", "application/x-ndjson"),
            ("events/a.ndjson.gz", "application/gzip"),
            ("events/a.ndjson.zst", "application/zstd"),
            ("_manifests/s/00000000.json", "application/json"),
            ("audit-log-access-test", "application/octet-stream"),
        ] {
            assert_eq!(content_type(key), told);
        }
    }

    #[test]
    fn tags_are_written_as_a_query() {
        let mut options = S3Options::new("b");
        assert_eq!(options.tagging(), None);
        options.tags = [("team".to_owned(), "audit & co".to_owned()), ("x".to_owned(), String::new())].into();
        assert_eq!(options.tagging().unwrap(), "team=audit%20%26%20co&x=");
    }
}
