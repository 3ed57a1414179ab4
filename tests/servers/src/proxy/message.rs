//! What passes through: requests and answers, and ready-made answers.

use bytes::Bytes;

/// Header fields in their order. Names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All of them, as they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One more field.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The one field of this name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.add(name, value);
    }

    /// No field of this name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Whether a list in a field has this word.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        let of_name = self.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        of_name.flat_map(|(_, value)| value.split(',')).any(|known| known.trim().eq_ignore_ascii_case(word))
    }
}

/// A request that a rule looks at or changes.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its header.
    pub headers: Headers,
    /// Its body, whole.
    pub body: Bytes,
}

/// An answer: one that a rule gives, or one of the server's that a rule changes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its header; the body's length is added when it is sent.
    pub headers: Headers,
    /// Its body, whole.
    pub body: Bytes,
}

impl Answer {
    /// Without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::default(), body: Bytes::new() }
    }

    /// With one more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// An error of Kinesis by its name. `InternalFailure` and `ServiceUnavailable` have their own status, all others
    /// 400.
    pub fn kinesis(error: &str) -> Self {
        Self::json_error("application/x-amz-json-1.1", "com.amazonaws.kinesis.v20131202#", error)
    }

    /// An error of `DynamoDB` by its name.
    pub fn dynamodb(error: &str) -> Self {
        Self::json_error("application/x-amz-json-1.0", "com.amazonaws.dynamodb.v20120810#", error)
    }

    /// A stream read too fast, or written.
    pub fn kinesis_throttled() -> Self {
        Self::kinesis("ProvisionedThroughputExceededException")
    }

    /// A table used too fast.
    pub fn dynamodb_throttled() -> Self {
        Self::dynamodb("ProvisionedThroughputExceededException")
    }

    fn json_error(content: &str, namespace: &str, error: &str) -> Self {
        let status = match error {
            "InternalFailure" | "InternalServerError" | "InternalFailureException" => 500,
            "ServiceUnavailable" | "ServiceUnavailableException" => 503,
            _ => 400,
        };
        let body = serde_json::json!({ "__type": format!("{namespace}{error}"), "message": "said by the fault proxy" });
        Self::new(status)
            .header("content-type", content)
            .header("x-amzn-requestid", "FAULT-PROXY")
            .body(body.to_string())
    }

    /// An error of S3: its status and code.
    pub fn s3(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>said by the fault proxy</Message>\
             <RequestId>FAULT-PROXY</RequestId><HostId>FAULT-PROXY</HostId></Error>"
        );
        Self::new(status).header("content-type", "application/xml").header("x-amz-request-id", "FAULT-PROXY").body(body)
    }

    /// 503: a prefix used too fast.
    pub fn s3_slow_down() -> Self {
        Self::s3(503, "SlowDown")
    }

    /// 200 with an error as its body, as S3 ends a `CompleteMultipartUpload` or a copy that failed after it had begun to
    /// answer.
    pub fn s3_error_in_200() -> Self {
        Self::s3(200, "InternalError")
    }

    /// 403.
    pub fn s3_access_denied() -> Self {
        Self::s3(403, "AccessDenied")
    }

    /// 409: another conditional write of the same key was under way.
    pub fn s3_conflict() -> Self {
        Self::s3(409, "ConditionalRequestConflict")
    }
}
