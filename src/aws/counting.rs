//! Every attempt at a call is counted, and what became of it.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use memchr::memmem;

use super::is_throttling;
use crate::ops::calls::{CallError, Calls, count};

/// Counts the calls of a client.
#[derive(Debug)]
pub(super) struct CountCalls {
    /// The service's name in IAM.
    pub(super) service: &'static str,
}

/// How often a call has been sent.
#[derive(Clone, Copy, Debug)]
struct Sent(u32);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl CountCalls {
    fn count(&self, config: &ConfigBag, change: impl FnOnce(&mut Calls)) {
        if let Some(call) = config.load::<Metadata>() {
            count(self.service, call.name(), change);
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for CountCalls {
    fn name(&self) -> &'static str {
        "CountCalls"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let before = config.load::<Sent>().map_or(0, |sent| sent.0);
        config.interceptor_state().store_put(Sent(before + 1));
        self.count(config, |calls| {
            calls.sent += 1;
            calls.again += u64::from(before > 0);
        });
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Err(error)) = context.output_or_error() else { return Ok(()) };
        let kind = match context.response() {
            Some(response) if error.is_operation_error() => refusal(response),
            _ if error.is_timeout_error() => Some(CallError::Timeout),
            _ => Some(CallError::Network),
        };
        if let Some(kind) = kind {
            self.count(config, |calls| *calls.errors.entry(kind).or_default() += 1);
        }
        Ok(())
    }
}

/// What kind of error the service answered; none where it only said that something is not there, or not as a condition
/// says.
fn refusal(response: &HttpResponse) -> Option<CallError> {
    let body = response.body().bytes().unwrap_or_default();
    let code = code(body);
    let status = response.status().as_u16();
    if is_throttling(code) || status == 429 {
        return Some(CallError::Throttled);
    }
    let is_answer = matches!(status, 404 | 412) || code == Some("ConditionalCheckFailedException");
    match status {
        500.. => Some(CallError::Server),
        _ if is_answer => None,
        _ => Some(CallError::Refused),
    }
}

/// The error's code in an answer's body: `{"__type":"namespace#Code"}`, or `<Error><Code>Code</Code>`.
fn code(body: &[u8]) -> Option<&str> {
    let between = |opening: &str, closing: u8| {
        let start = memmem::find(body, opening.as_bytes())? + opening.len();
        let rest = &body[start..];
        std::str::from_utf8(&rest[..memchr::memchr(closing, rest)?]).ok()
    };
    let json = || between("\"__type\":\"", b'"').or_else(|| between("\"__type\": \"", b'"'));
    let code = between("<Code>", b'<').or_else(json)?;
    Some(code.rsplit('#').next().unwrap_or(code))
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answered(status: u16, body: &'static str) -> Option<CallError> {
        refusal(&HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body)))
    }

    #[test]
    fn an_answer_of_not_there_is_no_error_and_throttling_is_told_by_its_code() {
        assert_eq!(answered(412, "<Error><Code>PreconditionFailed</Code></Error>"), None);
        assert_eq!(answered(404, "<Error><Code>NoSuchKey</Code></Error>"), None);
        assert_eq!(answered(400, r#"{"__type":"com.amazonaws.dynamodb#ConditionalCheckFailedException"}"#), None);
        let throttled = r#"{"__type": "ProvisionedThroughputExceededException","message":"slow"}"#;
        assert_eq!(answered(400, throttled), Some(CallError::Throttled));
        assert_eq!(answered(503, "<Error><Code>SlowDown</Code></Error>"), Some(CallError::Throttled));
        assert_eq!(answered(500, "oh"), Some(CallError::Server));
        assert_eq!(answered(403, "<Error><Code>AccessDenied</Code></Error>"), Some(CallError::Refused));
    }
}
