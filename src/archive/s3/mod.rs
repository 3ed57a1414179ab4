//! The archive in an Amazon S3 bucket, or in one that speaks its protocol.
//!
//! | call | request | what keeps the promise |
//! |---|---|---|
//! | `put_if_absent`, up to 64 MiB | `PutObject` | `If-None-Match: *`: the bucket itself refuses a second object (412); a SHA-256 that it works out anew and keeps |
//! | `put_if_absent`, above | `CreateMultipartUpload`, `UploadPart`, `CompleteMultipartUpload` | the same condition on the completion, a SHA-256 on each part; nothing is visible before it |
//! | `get` | `GetObject` | the size, and the SHA-256 that the bucket keeps |
//! | `list` | `ListObjectsV2`, page by page | |
//! | `stat` | `HeadObject` | the SHA-256 that the bucket keeps |
//!
//! A put whose answer was lost is put again, finds its own object (412) and says [`Put::Exists`]; whoever called looks
//! what stands there. No object has a `Content-Encoding`: what is compressed is so by its key's ending, and a client
//! that unpacks on its own would give other bytes than those that the manifests tell of.
//!
//! Trying again is done here, by [`retry`] and for a short while ([`S3Options::retry`]), so that a command that only
//! reads lives through a throttled minute; the SDK itself is to send each call once. A commit goes on trying above that
//! for as long as its own policy says.

mod fault;
mod multipart;
mod options;
mod probe;
mod put;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, EncodingType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;

use self::fault::{Answer, Asked};
pub use self::options::{Encryption, LockMode, Retention, S3Options};
pub use self::probe::Probe;
use super::{ArchiveError, ArchiveStore, Listed, Put, Stat, check_key, check_prefix};
use crate::digest::Digest;
use crate::ops::clock::Clock;
use crate::ops::retry::retry;
use crate::ops::words::{causes, counted};

/// The most keys that S3 puts on a page.
const PAGE: usize = 1000;

/// No more than this is set aside for a body on the word of a header.
const TRUSTED_LENGTH: usize = 256 << 20;

/// An archive in a bucket. Any number of processes may have it open.
#[derive(Clone)]
pub struct S3Archive {
    client: Client,
    options: Arc<S3Options>,
    clock: Arc<dyn Clock>,
}

impl S3Archive {
    /// The archive below `options.prefix` of the bucket. Asks the bucket nothing: [`probe`](Self::probe) does.
    ///
    /// `client` should send each call once (see the module's words on trying again). The clock says until when objects
    /// are locked, and how long is waited between two tries.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] where the prefix can't be one.
    pub fn new(client: Client, options: S3Options, clock: Arc<dyn Clock>) -> Result<Self, ArchiveError> {
        let options = S3Options { prefix: options.prefix.trim_matches('/').to_owned(), ..options };
        if !options.prefix.is_empty() {
            check_key(&options.prefix)?;
        }
        Ok(Self { client, options: Arc::new(options), clock })
    }

    /// Where it is, as people and query engines write it: `s3://bucket/prefix`.
    pub fn place(&self) -> String {
        self.options.place()
    }

    /// The key in the bucket.
    fn full(&self, key: &str) -> String {
        if self.options.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.options.prefix) }
    }

    /// Removes an object, if it is there. For spools alone: an archive keeps what it holds.
    pub(crate) async fn remove_segment(&self, key: &str) -> Result<(), ArchiveError> {
        check_key(key)?;
        self.patiently(|| async {
            let removed = self.client.delete_object().bucket(&self.options.bucket).key(self.full(key)).send().await;
            match removed {
                Ok(_) => Ok(()),
                Err(error) => match self.options.judge(Asked::Remove, key, &error) {
                    Answer::Absent => Ok(()),
                    answer => Err(answer.into_error(key)),
                },
            }
        })
        .await
    }

    /// Does `step` again for as long as it may pass and the options allow.
    async fn patiently<T, F>(&self, step: impl FnMut() -> F) -> Result<T, ArchiveError>
    where
        F: Future<Output = Result<T, ArchiveError>>,
    {
        let never = CancellationToken::new();
        retry(self.options.retry, self.clock.as_ref(), &never, ArchiveError::may_pass, step).await
    }

    async fn get_once(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        let request = self.client.get_object().bucket(&self.options.bucket).key(self.full(key));
        match request.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(found) => read_body(key, found).await.map(Some),
            Err(error) => match self.options.judge(Asked::Read, key, &error) {
                Answer::Absent => Ok(None),
                answer => Err(answer.into_error(key)),
            },
        }
    }

    async fn stat_once(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.full(key));
        match request.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(found) => {
                let bytes = found.content_length().and_then(|length| u64::try_from(length).ok());
                let bytes = bytes.ok_or_else(|| unavailable(key, "the answer tells no size"))?;
                Ok(Some(Stat { bytes, sha256: whole_sha256(&found) }))
            }
            Err(error) => match self.options.judge(Asked::Read, key, &error) {
                Answer::Absent => Ok(None),
                answer => Err(answer.into_error(key)),
            },
        }
    }

    async fn list_up_to(&self, prefix: &str, at_most: usize) -> Result<Vec<Listed>, ArchiveError> {
        check_prefix(prefix)?;
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.patiently(|| self.page(prefix, token.as_deref(), at_most - found.len())).await?;
            for object in page.contents() {
                found.extend(self.listed(prefix, object, &page)?);
            }
            let next = page.next_continuation_token().map(str::to_owned);
            if found.len() >= at_most || page.is_truncated() != Some(true) {
                break;
            }
            if next.is_none() || next == token {
                return Err(unavailable(prefix, "a listing that is said to go on does not tell where"));
            }
            token = next;
        }
        // S3 lists by the bytes of its keys; not all that speak its protocol do.
        found.sort_unstable();
        found.truncate(at_most);
        Ok(found)
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        wanted: usize,
    ) -> Result<ListObjectsV2Output, ArchiveError> {
        // A folder marker takes a place on a page and is not counted, so one more than is wanted.
        let size = i32::try_from(wanted.saturating_add(1).min(PAGE)).unwrap_or(i32::MAX);
        let request = self.client.list_objects_v2().bucket(&self.options.bucket).prefix(self.full(prefix));
        let request = request.max_keys(size).set_continuation_token(token.map(str::to_owned));
        // XML has no way to write some of the characters that keys may have.
        let page = request.encoding_type(EncodingType::Url).send().await;
        page.map_err(|error| self.options.judge(Asked::List, prefix, &error).into_error(prefix))
    }

    /// The object with its key below the prefix. None for the marks that consoles put where somebody makes a folder:
    /// empty objects under a name that ends with a slash, which no object of an archive has.
    fn listed(
        &self,
        prefix: &str,
        object: &aws_sdk_s3::types::Object,
        page: &ListObjectsV2Output,
    ) -> Result<Option<Listed>, ArchiveError> {
        let strange = |what: &str| unavailable(prefix, what);
        let name = object.key().ok_or_else(|| strange("a listing shows an object without a key"))?;
        let name = match page.encoding_type() {
            Some(EncodingType::Url) => {
                let spaced = name.replace('+', " ");
                percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            }
            _ => name.to_owned(),
        };
        let root = self.full("");
        let key = name.strip_prefix(&root).ok_or_else(|| strange("a listing shows a key of another prefix"))?;
        let bytes = object.size().and_then(|size| u64::try_from(size).ok());
        let bytes = bytes.ok_or_else(|| strange("a listing shows an object without a size"))?;
        let is_folder_mark = bytes == 0 && (key.is_empty() || key.ends_with('/'));
        Ok((!is_folder_mark).then(|| Listed { key: key.to_owned(), bytes }))
    }
}

#[async_trait]
impl ArchiveStore for S3Archive {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        check_key(key)?;
        self.put(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        check_key(key)?;
        self.patiently(|| self.get_once(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        self.list_up_to(prefix, usize::MAX).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        check_key(key)?;
        self.patiently(|| self.stat_once(key)).await
    }

    async fn list_some(&self, prefix: &str, at_most: usize) -> Result<Vec<Listed>, ArchiveError> {
        self.list_up_to(prefix, at_most).await
    }
}

fn unavailable(key: &str, reason: impl Into<String>) -> ArchiveError {
    ArchiveError::Unavailable { key: key.to_owned(), reason: reason.into() }
}

/// The whole body. The SDK holds it against the checksum that came with it; a connection that ends early is told by
/// the size.
async fn read_body(key: &str, mut found: GetObjectOutput) -> Result<Bytes, ArchiveError> {
    let said = found.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = BytesMut::with_capacity(said.unwrap_or(0).min(TRUSTED_LENGTH));
    loop {
        match found.body.try_next().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(unavailable(key, format!("its body broke off: {}", causes(&error)))),
        }
    }
    match said {
        Some(said) if said != body.len() => {
            Err(unavailable(key, format!("its body has {}, {said} were announced", counted(body.len() as u64, "byte"))))
        }
        _ => Ok(body.freeze()),
    }
}

/// The digest that the bucket worked out of all bytes. Of an object put in parts it keeps a digest of the parts'
/// digests, which says nothing about ours.
fn whole_sha256(found: &HeadObjectOutput) -> Option<Digest> {
    if found.checksum_type() == Some(&ChecksumType::Composite) {
        return None;
    }
    let bytes = STANDARD.decode(found.checksum_sha256()?).ok()?;
    bytes.try_into().ok().map(Digest)
}
