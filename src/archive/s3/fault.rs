//! What an answer of S3 that is no success means, by what the caller can do. Pure.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::options::{Encryption, S3Options};
use super::unavailable;
use crate::archive::ArchiveError;
use crate::aws;

/// What was asked of the bucket: it decides which permission is missing when it is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    List,
    Read,
    Write,
    Abort,
    Remove,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) enum Answer {
    /// There is no such object.
    Absent,
    /// The condition did not hold: an object stands under the key.
    Taken,
    /// The upload that was to be completed is of no use any more; another one may be begun.
    Stale(ArchiveError),
    /// Anything else.
    Failed(ArchiveError),
}

impl Answer {
    /// For calls that have no use for the other answers.
    pub(super) fn into_error(self, key: &str) -> ArchiveError {
        match self {
            Self::Stale(error) | Self::Failed(error) => error,
            Self::Absent => unavailable(key, "it is not there, or no longer"),
            Self::Taken => unavailable(key, "a condition did not hold that was not set"),
        }
    }
}

/// Another conditional put is under way, or the upload was cleared away under our hands: S3 asks for a new one then.
const STALE: &[&str] = &["ConditionalRequestConflict", "NoSuchUpload", "InvalidPart", "InvalidPartOrder"];

/// Failures that pass though their status blames the request: the bytes did not arrive as they were sent, for one.
const PASSING: &[&str] = &["BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout"];

/// What full stores say that are not Amazon's.
const FULL: &[&str] = &["QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"];

const NO_BUCKET: &[&str] = &["NoSuchBucket", "InvalidBucketName"];

/// Credentials that are none there.
const UNKNOWN: &[&str] = &["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"];

/// Whether the bucket is another region's.
fn is_elsewhere(code: &str, status: u16) -> bool {
    matches!(code, "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed")
        || matches!(status, 301 | 307)
}

/// Whether every other call would be answered in the same way.
fn is_of_the_whole(code: &str, status: u16) -> bool {
    NO_BUCKET.contains(&code) || UNKNOWN.contains(&code) || is_elsewhere(code, status)
}

impl S3Options {
    /// Tells what the answer to a call on `key` means.
    pub(super) fn judge<E>(&self, asked: Asked, key: &str, error: &SdkError<E, HttpResponse>) -> Answer
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let said = aws::explain(error);
        let pass = || Answer::Failed(unavailable(key, said.clone()));
        let Some(service) = error.as_service_error() else {
            return if aws::may_pass(error) { pass() } else { self.refuse(asked, key, &said, None, error) };
        };
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        match (service.code(), status) {
            (Some("PreconditionFailed"), _) | (_, 412) => Answer::Taken,
            (Some("NoSuchKey"), _) => Answer::Absent,
            // The answer to a HEAD has no body, and so no code.
            (Some("NotFound") | None, 404) if asked == Asked::Read => Answer::Absent,
            // Expired credentials, for one, when a HEAD asks.
            (None, 400) if asked == Asked::Read => pass(),
            (Some(code), _) if FULL.contains(&code) => Answer::Failed(ArchiveError::OutOfSpace { key: key.to_owned() }),
            (_, 507) => Answer::Failed(ArchiveError::OutOfSpace { key: key.to_owned() }),
            (Some("NotImplemented"), _) | (_, 501) => self.refuse(asked, key, &said, Some("NotImplemented"), error),
            (Some(code), _) if PASSING.contains(&code) => pass(),
            (Some(code), _) if STALE.contains(&code) => Answer::Stale(unavailable(key, said)),
            (_, 409) => Answer::Stale(unavailable(key, said)),
            _ if aws::may_pass(error) => pass(),
            // A failure after the answer had begun: whatever it was, it has not been done.
            (code, 200..300) if self.advice(asked, code, 200, None).is_none() => pass(),
            (code, _) => self.refuse(asked, key, &said, code, error),
        }
    }

    fn refuse<E>(
        &self,
        asked: Asked,
        key: &str,
        said: &str,
        code: Option<&str>,
        error: &SdkError<E, HttpResponse>,
    ) -> Answer {
        let response = error.raw_response();
        let status = response.map_or(0, |response| response.status().as_u16());
        let region = response.and_then(|response| response.headers().get("x-amz-bucket-region"));
        let place = self.place();
        let reason = match self.advice(asked, code, status, region) {
            Some(advice) => format!("{place} answers {said}; {advice}"),
            None => format!("{place} answers {said}"),
        };
        Answer::Failed(if is_of_the_whole(code.unwrap_or_default(), status) {
            ArchiveError::OutOfReach { reason }
        } else {
            ArchiveError::Refused { key: key.to_owned(), reason }
        })
    }

    /// What a human can do about it, where that is known.
    fn advice(&self, asked: Asked, code: Option<&str>, status: u16, region: Option<&str>) -> Option<String> {
        let bucket = &self.bucket;
        let text = match (code.unwrap_or_default(), status) {
            (code, _) if NO_BUCKET.contains(&code) => {
                format!("there is no bucket `{bucket}` there: make it, or correct archive.s3.bucket")
            }
            (code, status) if is_elsewhere(code, status) => {
                let region = region.map_or_else(|| "another one".to_owned(), |region| format!("`{region}`"));
                format!("the bucket's region is {region}: correct archive.s3.region (or archive.s3.endpoint_url)")
            }
            (code, _) if UNKNOWN.contains(&code) => {
                "the credentials are not known there: look at what the SDK finds (environment, profile, role)"
                    .to_owned()
            }
            ("RequestTimeTooSkewed", _) => "set this machine's clock".to_owned(),
            (code, _) if code.starts_with("KMS.") => {
                "see to the key of archive.s3.kms_key_id: that it is there, enabled, and in the bucket's region"
                    .to_owned()
            }
            ("InvalidStorageClass", _) => "correct archive.s3.storage_class".to_owned(),
            ("InvalidTag", _) => "correct archive.s3.tags".to_owned(),
            ("NotImplemented", _) => {
                "the store does not know what is asked of it; take away what it need not know (archive.s3.tags, sse, \
                 storage_class, object_lock)"
                    .to_owned()
            }
            ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) | (_, 401 | 403) => {
                format!("allow {}", self.permissions(asked))
            }
            _ => return None,
        };
        Some(text)
    }

    /// The permissions that a call needs, and on what.
    fn permissions(&self, asked: Asked) -> String {
        let objects = match self.prefix.as_str() {
            "" => format!("arn:aws:s3:::{}/*", self.bucket),
            prefix => format!("arn:aws:s3:::{}/{prefix}/*", self.bucket),
        };
        let kms = matches!(self.encryption, Some(Encryption::Kms { .. }));
        match asked {
            Asked::List => format!("s3:ListBucket on arn:aws:s3:::{}", self.bucket),
            Asked::Read => {
                let kms = if kms { ", and kms:Decrypt on its key" } else { "" };
                format!(
                    "s3:GetObject on {objects}{kms} (and s3:ListBucket on the bucket, without which S3 answers so for what \
                     is not there)"
                )
            }
            Asked::Write => {
                let mut actions = "s3:PutObject".to_owned();
                if !self.tags.is_empty() {
                    actions.push_str(", s3:PutObjectTagging");
                }
                if self.retention.is_some() {
                    actions.push_str(", s3:PutObjectRetention");
                }
                let kms = if kms { ", and kms:GenerateDataKey and kms:Decrypt on its key" } else { "" };
                format!("{actions} on {objects}{kms}")
            }
            Asked::Abort => format!("s3:AbortMultipartUpload on {objects}"),
            Asked::Remove => format!("s3:DeleteObject on {objects}"),
        }
    }
}
