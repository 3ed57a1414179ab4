//! What the adapters of Kinesis, DynamoDB and S3 share: how a client is made, and what an error of the SDK means.

mod counting;
pub mod dynamodb;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_types::origin::Origin;
use aws_types::service_config::ServiceConfigKey;
use counting::CountCalls;

use crate::ops::words::causes;

/// Where a service is and who asks. What is missing comes by the SDK's own chain: environment, profile, web identity,
/// the container's or the machine's role.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    /// The region.
    pub region: Option<&'a str>,
    /// Another endpoint than the region's.
    pub endpoint_url: Option<&'a str>,
    /// A role to take on.
    pub assume_role_arn: Option<&'a str>,
    /// The external id that the role asks for.
    pub external_id: Option<&'a str>,
}

/// How long calls may take, and how often one is sent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest that one attempt may take, from sending to the answer's last byte.
    pub attempt: Duration,
    /// How often the SDK sends a call that may succeed later, the first time included. Callers try again above that.
    pub attempts: u32,
}

const CONNECT: Duration = Duration::from_secs(3);

/// What the SDK calls an endpoint where it remembers who named it, and in a profile.
const ENDPOINT: &str = "endpoint_url";

/// The SDK's configuration for one service.
pub async fn sdk_config(access: Access<'_>, patience: Patience) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(patience.attempt).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(patience.attempts));
    if let Some(region) = access.region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let base = loader.load().await;
    let mut config = base.to_builder();
    if let Some(role) = access.assume_role_arn {
        let mut provider = AssumeRoleProvider::builder(role).session_name("auditlake").configure(&base);
        if let Some(id) = access.external_id {
            provider = provider.external_id(id);
        }
        config = config.credentials_provider(SharedCredentialsProvider::new(provider.build().await));
    }
    if let Some(endpoint) = access.endpoint_url {
        config = config.endpoint_url(endpoint);
        // Else a client takes that of its service from the environment before this one.
        config.insert_origin(ENDPOINT, Origin::shared_config());
    }
    config.build()
}

/// A client of S3, or of a store that speaks its protocol.
///
/// The SDK adds no checksums of its own choice: ours are SHA-256 and given with each call, and not every store knows
/// the newer kinds that the SDK would take.
pub fn s3_client(config: &SdkConfig, force_path_style: bool) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(config)
        .force_path_style(force_path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(CountCalls { service: "s3" });
    aws_sdk_s3::Client::from_conf(config.build())
}

/// The endpoint that a client of `service` (`S3`, `DynamoDB`) takes in the place of its region's: the one that was given;
/// else, of environment and profile, that of the service before that of all services.
pub fn endpoint(config: &SdkConfig, service: &'static str) -> Option<String> {
    let of_all = config.endpoint_url().map(str::to_owned);
    if config.get_origin(ENDPOINT).is_client_config() {
        return of_all;
    }
    let key = ServiceConfigKey::builder().service_id(service).env("AWS_ENDPOINT_URL").profile(ENDPOINT).build().ok()?;
    config.service_config().and_then(|services| services.load_config(key)).or(of_all)
}

/// A client of Kinesis.
pub fn kinesis_client(config: &SdkConfig) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::config::Builder::from(config).interceptor(CountCalls { service: "kinesis" });
    aws_sdk_kinesis::Client::from_conf(config.build())
}

/// A client of DynamoDB.
pub fn dynamodb_client(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config).interceptor(CountCalls { service: "dynamodb" });
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// Whether there are credentials; else what is missing, in one line: a client would try for long, and then say less.
pub async fn check_credentials(config: &SdkConfig) -> Result<(), String> {
    let Some(provider) = config.credentials_provider() else { return Err("there are no credentials".into()) };
    match provider.provide_credentials().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(format!(
                "there are no credentials (environment, profile, web identity, the container's or the machine's role): {cause}"
            ))
        }
    }
}

/// The error in one line: the service's own code and words, or what kept it from answering. Never the whole answer,
/// which may hold what logs must not.
pub fn explain<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    if let Some(service) = error.as_service_error() {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let code = service.code().unwrap_or("no error code");
        return match service.message() {
            Some(message) => format!("{code}: {message} (HTTP {status})"),
            None => format!("{code} (HTTP {status})"),
        };
    }
    causes(error)
}

/// Whether the same call may succeed later: the network, the service's own faults, and throttling may pass; what the
/// service says of the request does not.
pub fn may_pass<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    match error {
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            is_throttling(service.err().code())
                || status >= 500
                || status == 429
                || status == 408
                || service.err().code().is_some_and(|code| PASSING.contains(&code))
        }
        // A call that could not be made; and the enum may grow: what is not known to pass is for a human.
        _ => false,
    }
}

/// Whether the service asks for fewer calls.
pub fn is_throttling(code: Option<&str>) -> bool {
    code.is_some_and(|code| THROTTLING.contains(&code))
}

const THROTTLING: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "ThrottlingError",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "LimitExceededException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "KMSThrottlingException",
    "SlowDown",
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
];

/// Faults that pass though their HTTP status blames the request: expired credentials and clocks are looked up anew.
const PASSING: &[&str] = &[
    "RequestTimeout",
    "RequestTimeoutException",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
];
