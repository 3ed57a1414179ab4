//! Putting a large object in parts. Nothing of it is visible before the last call, and that call has the condition.

use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, StreamExt as _};

use super::fault::{Answer, Asked};
use super::put::{ABSENT, base64, digest};
use super::{S3Archive, unavailable};
use crate::archive::{ArchiveError, Put};
use crate::digest::Digest;

/// Parts under way at once. More fill no ordinary line, and a part's bytes are a slice of the whole.
const AT_ONCE: usize = 4;

/// S3 takes no more parts of one object.
const MOST_PARTS: u64 = 10_000;

impl S3Archive {
    /// One upload, from beginning to end. Where S3 asks for a new one, all is begun anew and looks first: an answer may
    /// have been lost.
    pub(super) async fn put_in_parts(&self, key: &str, body: &Bytes, sha256: Digest) -> Result<Put, ArchiveError> {
        // Spares sending much for nothing. The completion has the last word.
        if self.stat_once(key).await?.is_some() {
            return Ok(Put::Exists);
        }
        let upload = self.begin(key, sha256).await?;
        let put = self.send(key, &upload, body).await;
        if !matches!(put, Ok(Put::Created))
            && let Err(error) = self.abort(key, &upload).await
        {
            tracing::warn!(key, upload, %error,
                "the parts of an upload that came to nothing could not be cleared away: a lifecycle rule of the bucket can");
        }
        put
    }

    /// Sends all parts and makes the object of them, each call patiently: doing all again for the sake of one would be
    /// a waste.
    pub(super) async fn send(&self, key: &str, upload: &str, body: &Bytes) -> Result<Put, ArchiveError> {
        let parts = self.send_parts(key, upload, body).await?;
        // Whether the upload is stale is no matter of patience.
        self.patiently(|| self.complete(key, upload, parts.clone())).await?
    }

    /// Begins an upload and gives its id.
    pub(super) async fn begin(&self, key: &str, sha256: Digest) -> Result<String, ArchiveError> {
        self.patiently(|| self.begin_once(key, sha256)).await
    }

    async fn begin_once(&self, key: &str, sha256: Digest) -> Result<String, ArchiveError> {
        let request = self.client.create_multipart_upload().bucket(&self.options.bucket).key(self.full(key));
        let request = self.options.dress(request, key, sha256, self.clock.now());
        let begun = request.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        let begun = begun.map_err(|error| self.options.judge(Asked::Write, key, &error).into_error(key))?;
        let id = begun.upload_id().map(str::to_owned);
        id.ok_or_else(|| unavailable(key, "the answer names no upload"))
    }

    async fn send_parts(&self, key: &str, upload: &str, body: &Bytes) -> Result<Vec<CompletedPart>, ArchiveError> {
        let ranges = split(body.len() as u64, self.options.part_bytes);
        // Made before they are streamed: a closure in the stream's type would borrow for longer than it can say.
        let sends: Vec<_> =
            (1..).zip(ranges).map(|(number, range)| self.send_part(key, upload, number, body.slice(range))).collect();
        stream::iter(sends).buffered(AT_ONCE).try_collect().await
    }

    async fn send_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        part: Bytes,
    ) -> Result<CompletedPart, ArchiveError> {
        let sha256 = base64(digest(key, &part).await?);
        let once = || async {
            let request = self.client.upload_part().bucket(&self.options.bucket).key(self.full(key));
            let request = request.upload_id(upload).part_number(number).checksum_sha256(&sha256);
            let answer = request.body(ByteStream::from(part.clone())).send().await;
            answer.map_err(|error| self.options.judge(Asked::Write, key, &error).into_error(key))
        };
        let sent = self.patiently(once).await?;
        let completed = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned));
        Ok(completed.checksum_sha256(sha256).build())
    }

    /// Makes the object of its parts, unless one stands under the key. The inner error says that the upload is stale.
    async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<Result<Put, ArchiveError>, ArchiveError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&self.options.bucket).key(self.full(key));
        // An answer of 200 may hold an error all the same; the SDK reads it and gives it as one.
        match request.upload_id(upload).multipart_upload(parts).if_none_match(ABSENT).send().await {
            Ok(_) => Ok(Ok(Put::Created)),
            Err(error) => match self.options.judge(Asked::Write, key, &error) {
                Answer::Taken => Ok(Ok(Put::Exists)),
                Answer::Stale(error) => Ok(Err(error)),
                other => Err(other.into_error(key)),
            },
        }
    }

    /// Clears the parts away, which cost money and show in no listing.
    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<(), ArchiveError> {
        let request = self.client.abort_multipart_upload().bucket(&self.options.bucket).key(self.full(key));
        match request.upload_id(upload).send().await {
            // Gone already, which is what was wanted.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(()),
            Err(error) => Err(self.options.judge(Asked::Abort, key, &error).into_error(key)),
            Ok(_) => Ok(()),
        }
    }
}

/// The parts of a body: of `part` bytes each, but for the last; larger ones where there would be too many.
fn split(length: u64, part: u64) -> Vec<Range<usize>> {
    let part = part.max(length.div_ceil(MOST_PARTS)).max(1);
    let starts = (0..length.div_ceil(part).max(1)).map(|number| number * part);
    starts.map(|start| start as usize..(start + part).min(length) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_one_size_but_for_the_last_and_never_too_many() {
        assert_eq!(split(10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(split(8, 4), [0..4, 4..8]);
        assert_eq!(split(0, 4), vec![0..0; 1]);
        let many = split(1_000_003, 1);
        assert_eq!(many.len(), 9902);
        assert_eq!(many.last().unwrap().end, 1_000_003);
    }
}
