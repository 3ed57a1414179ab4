//! What an error of Kinesis means for whoever reads.

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

use crate::aws::{explain, is_throttling, may_pass};
use crate::source::{ShardId, SourceError};

/// Why a call brought nothing; by what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Ask again later.
    Passing(String),
    /// The iterator is older than five minutes: get a new one.
    Expired,
    /// An argument is refused. Of a sequence number it means that the stream no longer has it.
    Invalid(String),
    /// There is no such stream, shard or consumer.
    Missing(String),
    /// Somebody else is using it, or did until a moment ago.
    InUse(String),
    /// A human is needed.
    Stopped(String),
}

/// What `operation` (such as `GetRecords`) met.
pub(super) fn fault<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    judge(operation, code, &explain(error), may_pass(error))
}

/// What an error of this code means; `passes` where its kind alone says that it may pass.
pub(super) fn judge(operation: &str, code: Option<&str>, words: &str, passes: bool) -> Fault {
    let words = format!("{operation}: {words}");
    match code {
        Some("ExpiredIteratorException") => Fault::Expired,
        Some("InvalidArgumentException") => Fault::Invalid(words),
        Some("ResourceNotFoundException") => Fault::Missing(words),
        Some("ResourceInUseException") => Fault::InUse(words),
        // A listing that took longer than its token lives: the next one begins anew.
        Some("ExpiredNextTokenException") => Fault::Passing(words),
        code if is_throttling(code) || passes => Fault::Passing(words),
        Some("AccessDeniedException") => Fault::Stopped(format!("{words}; allow the action kinesis:{operation}")),
        Some(code) if code.starts_with("KMS") => Fault::Stopped(format!(
            "{words}; the stream is encrypted: allow the action kms:Decrypt on its key, and see that the key is enabled"
        )),
        Some(code) if CREDENTIALS.contains(&code) => Fault::Stopped(format!("{words}; the credentials are wrong")),
        _ => Fault::Stopped(words),
    }
}

const CREDENTIALS: &[&str] = &[
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "IncompleteSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationTokenException",
    "MissingAuthenticationToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "NotAuthorized",
    "OptInRequired",
];

impl Fault {
    /// The same, of a stream that nobody has seen yet.
    pub(super) fn of_configuration(self) -> Self {
        match self {
            Self::Missing(words) => Self::Missing(format!(
                "there is no such stream there: correct source.kinesis.stream, region or endpoint_url ({words})"
            )),
            other => other,
        }
    }

    /// The error for whoever reads `shard`, which may be the whole stream's name.
    pub(super) fn at(self, shard: &ShardId) -> SourceError {
        let shard = shard.clone();
        match self {
            Self::Passing(reason) | Self::InUse(reason) => SourceError::Unavailable { shard, reason },
            Self::Expired => SourceError::Unavailable { shard, reason: "its iterators expire at once".into() },
            Self::Invalid(reason) | Self::Missing(reason) | Self::Stopped(reason) => {
                SourceError::Stopped { shard, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str, passes: bool) -> Fault {
        judge("GetRecords", Some(code), &format!("{code}: words"), passes)
    }

    #[test]
    fn throttling_and_the_services_own_faults_pass() {
        for code in ["ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException"] {
            assert!(matches!(of(code, false), Fault::Passing(_)), "{code}");
        }
        assert!(matches!(of("InternalFailure", true), Fault::Passing(_)));
        assert!(matches!(judge("GetRecords", None, "connection reset", true), Fault::Passing(_)));
    }

    #[test]
    fn what_is_forbidden_is_told_with_the_action_to_allow() {
        let Fault::Stopped(reason) = of("AccessDeniedException", false) else { panic!() };
        assert!(reason.ends_with("allow the action kinesis:GetRecords"), "{reason}");
        let Fault::Stopped(reason) = of("KMSAccessDeniedException", false) else { panic!() };
        assert!(reason.contains("kms:Decrypt"), "{reason}");
        let Fault::Stopped(reason) = of("UnrecognizedClientException", false) else { panic!() };
        assert!(reason.contains("credentials"), "{reason}");
        assert!(matches!(of("SomethingNew", false), Fault::Stopped(_)));
    }

    #[test]
    fn a_missing_resource_is_never_an_end() {
        let fault = of("ResourceNotFoundException", false);
        assert!(matches!(fault.clone(), Fault::Missing(_)));
        assert!(matches!(fault.at(&ShardId::new("s")), SourceError::Stopped { .. }));
    }
}
