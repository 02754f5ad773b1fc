//! Signs and sends a request to S3.

use std::{fmt::Debug, time::SystemTime};

use aws_credential_types::{Credentials, provider::ProvideCredentials as _};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4::SigningParams,
};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
        result::{ConnectorError, SdkError},
        stalled_stream_protection::StalledStreamProtectionConfig,
    },
};
use aws_smithy_types::{
    body::SdkBody,
    error::{ErrorMetadata, metadata::ProvideErrorMetadata as _},
    timeout::TimeoutConfig,
};
use aws_types::{SdkConfig, service_config::ServiceConfigKey};
use bytes::Bytes;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The characters of an object key that are percent-encoded: all but the unreserved ones and `/`. The signature covers the encoded path.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
const ESCAPED: &AsciiSet = &ESCAPED_IN_QUERY.remove(b'/');

/// The characters of a parameter that are percent-encoded: all but the unreserved ones.
pub(crate) const ESCAPED_IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The error of a call. Its metadata has the code of S3's error, but not the message, which can quote data.
pub type S3Error = SdkError<ErrorMetadata, HttpResponse>;

/// A request to S3, before it is signed.
pub(crate) struct Request<'r> {
    pub(crate) method: &'static str,
    pub(crate) bucket: &'r str,
    /// Empty for a request about the bucket.
    pub(crate) key: &'r str,
    /// The parameters, percent-encoded.
    pub(crate) query: String,
    pub(crate) headers: Vec<(&'static str, &'r str)>,
    pub(crate) body: Bytes,
    /// The SHA-256 digest of the body.
    pub(crate) digest: [u8; 32],
    pub(crate) owner: Option<&'r str>,
}

impl<'r> Request<'r> {
    /// A request without parameters, headers and body.
    pub(crate) fn new(method: &'static str, bucket: &'r str, key: &'r str, owner: Option<&'r str>) -> Self {
        let digest = Sha256::digest([]).into();
        Self { method, bucket, key, query: String::new(), headers: Vec::new(), body: Bytes::new(), digest, owner }
    }

    pub(crate) fn with_body(self, body: Bytes) -> Self {
        Self { digest: Sha256::digest(&body).into(), body, ..self }
    }

    /// Signs and sends the request once. `read` reads the body of a successful response.
    pub(crate) async fn send<T: Debug + Send + Sync + 'static>(
        self,
        aws: &SdkConfig,
        operation: &'static str,
        read: fn(&[u8]) -> Result<T, BoxError>,
    ) -> Result<T, S3Error> {
        let (endpoint, path) = self.location(aws).map_err(SdkError::construction_failure)?;
        let credentials = aws.credentials_provider().ok_or_else(|| SdkError::construction_failure("no credentials"))?;
        let credentials = credentials.provide_credentials().await;
        // Transient, because there is no response: credentials may be available later.
        let credentials = credentials.map_err(|error| SdkError::dispatch_failure(ConnectorError::io(error.into())))?;
        let request = self.sign(aws, credentials, &endpoint, path, SystemTime::now());
        let request = request.map_err(SdkError::construction_failure)?;
        let http_client = aws.http_client().ok_or_else(|| SdkError::construction_failure("no HTTP client"))?;
        Operation::builder()
            .service_name("S3")
            .operation_name(operation)
            .http_client(http_client)
            .endpoint_url(&endpoint)
            .no_auth()
            .no_retry()
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .serializer(Ok::<HttpRequest, BoxError>)
            .deserializer(move |response: &HttpResponse| read_response(response, read))
            .build()
            .invoke(request)
            .await
    }

    /// The endpoint of the bucket, and the path of the object with the parameters.
    ///
    /// The path contains the bucket in two cases. S3's certificate does not match a bucket name with a dot. A configured endpoint,
    /// such as a local AWS, may not resolve a host name that begins with the bucket.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html>
    fn location(&self, aws: &SdkConfig) -> Result<(String, String), BoxError> {
        let Self { bucket, key, query, .. } = self;
        let key = utf8_percent_encode(key, ESCAPED);
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        if let Some(endpoint) = configured_endpoint(aws)? {
            return Ok((endpoint, format!("/{bucket}/{key}{query}")));
        }
        let host = host(aws)?;
        Ok(if bucket.contains('.') {
            (format!("https://{host}"), format!("/{bucket}/{key}{query}"))
        } else {
            (format!("https://{bucket}.{host}"), format!("/{key}{query}"))
        })
    }

    fn sign(
        self,
        aws: &SdkConfig,
        credentials: Credentials,
        endpoint: &str,
        path: String,
        now: SystemTime,
    ) -> Result<HttpRequest, BoxError> {
        let Self { method, headers, body, digest, owner, .. } = self;
        let owner = owner.map(|owner| ("x-amz-expected-bucket-owner", owner));
        let headers = || headers.iter().copied().chain(owner);
        let credentials = credentials.into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = SigningParams::builder()
            .identity(&credentials)
            .region(region(aws)?)
            .name("s3")
            .time(now)
            .settings(settings)
            .build()?
            .into();
        let uri = format!("{endpoint}{path}");
        let signable = SignableRequest::new(method, &uri, headers(), SignableBody::Precomputed(hex::encode(digest)))?;
        let (signature, _) = sign(signable, &parameters)?.into_parts();

        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method)?;
        request.set_uri(path)?;
        for (name, value) in headers().chain(signature.headers()) {
            request.headers_mut().try_insert(name.to_owned(), value.to_owned())?;
        }
        Ok(request)
    }
}

/// Whether the same request may succeed later.
///
/// S3 responds to a slow upload with 400 `RequestTimeout`, to a conflicting call with 409, and for a new bucket that is not known
/// everywhere yet with 307. For a bucket in another region it responds with 301.
#[must_use]
pub fn is_transient(error: &S3Error) -> bool {
    if matches!(error, SdkError::ConstructionFailure(_)) {
        return false;
    }
    error.raw_response().is_none_or(|response| {
        let (status, code) = (response.status().as_u16(), error.code().unwrap_or_default());
        let is_slow = code.contains("Timeout") || code.contains("Throttl");
        !(300..500).contains(&status) || matches!(status, 307 | 408 | 409 | 429) || is_slow
    })
}

fn region(aws: &SdkConfig) -> Result<&str, &'static str> {
    aws.region().map(AsRef::as_ref).ok_or("no region")
}

/// The endpoint of `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, as in the AWS SDKs. An empty variable counts as unset.
fn configured_endpoint(aws: &SdkConfig) -> Result<Option<String>, BoxError> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build()?;
    let for_s3 = aws.service_config().and_then(|config| config.load_config(key));
    let endpoint = for_s3.filter(|url| !url.is_empty()).or_else(|| aws.endpoint_url().map(ToOwned::to_owned));
    let Some(endpoint) = endpoint.filter(|url| !url.is_empty()) else { return Ok(None) };
    let is_valid = endpoint.parse::<Uri>().is_ok_and(|uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        is_http && uri.query().is_none() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_valid { Ok(Some(endpoint.trim_end_matches('/').to_owned())) } else { Err("invalid endpoint URL".into()) }
}

/// S3's host name in the region, in the partitions `aws`, `aws-us-gov`, `aws-cn` and `aws-eusc`.
///
/// <https://docs.aws.amazon.com/general/latest/gr/s3.html>
fn host(aws: &SdkConfig) -> Result<String, &'static str> {
    let region = region(aws)?;
    let suffix = match region.split_once('-') {
        Some(("cn", _)) => "amazonaws.com.cn",
        Some(("eusc", _)) => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    let fips = if aws.use_fips().unwrap_or_default() { "-fips" } else { "" };
    let dual_stack = if aws.use_dual_stack().unwrap_or_default() { ".dualstack" } else { "" };
    Ok(format!("s3{fips}{dual_stack}.{region}.{suffix}"))
}

fn read_response<T>(
    response: &HttpResponse,
    read: fn(&[u8]) -> Result<T, BoxError>,
) -> Result<T, OrchestratorError<ErrorMetadata>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        return read(body).map_err(OrchestratorError::other);
    }
    // The message can quote data, so only the code is read.
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let mut error = ErrorMetadata::builder();
    if let Some(code) = code {
        error = error.code(code);
    }
    Err(OrchestratorError::operation(error.build()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_types::region::Region;
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

    use super::*;
    use crate::list::ListObjects;

    const ARCHIVED: &str = "archive/2026/01/02/03/20260102T030405.678Z-JKJaXmPLvHcESHA=";

    fn object<'o>(bucket: &'o str, key: &'o str) -> Request<'o> {
        Request::new("GET", bucket, key, Some("123456789012"))
    }

    fn signed(request: Request<'_>) -> HttpRequest {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some("a-session-token".to_owned()),
            None,
            "test",
        );
        let aws = SdkConfig::builder().region(Region::new("eu-central-1")).build();
        let (endpoint, path) = request.location(&aws).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        request.sign(&aws, credentials, &endpoint, path, now).unwrap()
    }

    fn url(bucket: &str, aws: &SdkConfig) -> String {
        let (endpoint, path) = object(bucket, "key").location(aws).unwrap();
        endpoint + &path
    }

    /// Signature and digest are those of botocore's `S3SigV4Auth` for the same request.
    #[test]
    fn signature_equals_that_of_botocore() {
        let key = "messages.statuses/2026-01-02/caf\u{e9} + %~a_b-c";
        let body = Bytes::from_static(br#"{"a":1}"#);
        let checksum = BASE64.encode(Sha256::digest(&body));
        let headers = vec![("content-type", "application/json"), ("x-amz-checksum-sha256", checksum.as_str())];
        let request = signed(Request { method: "PUT", headers, ..object("payloads", key).with_body(body) });

        assert_eq!(request.uri(), "/messages.statuses/2026-01-02/caf%C3%A9%20%2B%20%25~a_b-c");
        let header = |name| request.headers().get(name).unwrap();
        assert_eq!(header("x-amz-date"), "20260102T030405Z");
        assert_eq!(header("x-amz-security-token"), "a-session-token");
        assert_eq!(header("x-amz-expected-bucket-owner"), "123456789012");
        assert_eq!(header("x-amz-checksum-sha256"), "AVq9f1zFei3ZS3WQ8ErYCEJzkF7jPsXOvq5iJ2qX+GI=");
        assert_eq!(header("x-amz-content-sha256"), "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862");
        assert_eq!(
            header("authorization"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/s3/aws4_request, \
             SignedHeaders=content-type;host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date;\
             x-amz-expected-bucket-owner;x-amz-security-token, \
             Signature=9bc4b290da62be6273bcc57689ebc0587b1e77e6e5712c50edfba39ea5433910"
        );
    }

    /// The signatures are those of botocore's `S3SigV4Auth` for the same requests.
    #[test]
    fn signature_covers_method_and_parameters() {
        let list = ListObjects {
            bucket: "archive",
            prefix: "archive/2026/01/",
            start_after: Some("archive/2026/01/02/03/20260102T030405.678Z-a+b &c=\u{e9}"),
            owner: Some("123456789012"),
        };
        let delete = Request { method: "DELETE", ..object("archive", ARCHIVED) };
        for (request, uri, signature) in [
            (
                list.request(),
                "/?list-type=2&prefix=archive%2F2026%2F01%2F&start-after=\
                 archive%2F2026%2F01%2F02%2F03%2F20260102T030405.678Z-a%2Bb%20%26c%3D%C3%A9",
                "89b505aff0ba841f3971a6685cdc3f6c4f917589a3c01aed4e677409d6c293b4",
            ),
            (
                object("archive", ARCHIVED),
                "/archive/2026/01/02/03/20260102T030405.678Z-JKJaXmPLvHcESHA%3D",
                "5a20cc9ce6de229ac1368764d60efe499b298857b78912ea6adf617226c0bbcf",
            ),
            (
                delete,
                "/archive/2026/01/02/03/20260102T030405.678Z-JKJaXmPLvHcESHA%3D",
                "c53478c55c636841155af483d738f1a70e602c8a555608d4aa24312775f8d934",
            ),
        ] {
            let request = signed(request);
            assert_eq!(request.uri(), uri);
            let authorization = request.headers().get("authorization").unwrap();
            assert!(authorization.ends_with(&format!("Signature={signature}")), "{uri}: {authorization}");
        }
    }

    #[test]
    fn host_follows_region_and_settings() {
        let of_region = |region| SdkConfig::builder().region(Region::new(region));
        for (region, host) in [
            ("us-east-1", "s3.us-east-1.amazonaws.com"),
            ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", "s3.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(url("b", &of_region(region).build()), format!("https://b.{host}/key"));
        }
        let fips = of_region("us-east-1").use_fips(true).use_dual_stack(true).build();
        assert_eq!(url("b", &fips), "https://b.s3-fips.dualstack.us-east-1.amazonaws.com/key");
    }

    #[test]
    fn bucket_is_in_path_if_host_cannot_carry_it() {
        let aws = SdkConfig::builder().region(Region::new("us-east-1"));
        assert_eq!(url("my.bucket", &aws.build()), "https://s3.us-east-1.amazonaws.com/my.bucket/key");
        let local = SdkConfig::builder().endpoint_url("http://127.0.0.1:4566/").build();
        assert_eq!(url("b", &local), "http://127.0.0.1:4566/b/key");
    }

    #[test]
    fn endpoint_that_cannot_be_signed_is_an_error() {
        for endpoint in ["s3.example.com", "127.0.0.1:1", "http://", "ftp://x", "http://user@host", "http://host/?q=1"]
        {
            let aws = SdkConfig::builder().endpoint_url(endpoint).build();
            assert!(object("b", "key").location(&aws).is_err(), "{endpoint}");
        }
        let empty = SdkConfig::builder().region(Region::new("us-east-1")).endpoint_url("").build();
        assert_eq!(url("b", &empty), "https://b.s3.us-east-1.amazonaws.com/key");
    }
}
