//! The archive: each signed notification with a nonempty body as received, as one object in S3, beside its messages on the
//! queues.

use std::{
    io::Write as _,
    iter,
    pin::pin,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::FutureExt as _;
use signed_s3::PutObject;
use tokio::{
    select,
    task::yield_now,
    time::{Instant, timeout_at},
};
use whatsapp_webhook::archive::ArchiveHeader;

use crate::{
    metrics::Metric,
    payload::{PayloadError, put},
    queue::{StoreContext, put_until_deadline},
};

/// An answer waits this long for the archive after the changes are stored, unless the archive is required.
///
/// S3 takes 100 to 200 ms for a small object, so there is time for a retry. The answer still leaves within the second that Meta
/// allows, and an outage of S3 keeps each execution environment busy for half a second more per notification
/// instead of the whole storage time.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html>
const MAX_WAIT: Duration = Duration::from_millis(500);

/// The bytes that are compressed at a time. In between, the calls to SQS proceed: all tasks share one thread.
const CHUNK_BYTES: usize = 64 << 10;

/// The bucket for notifications as received.
#[derive(Debug)]
pub struct Archive {
    aws: SdkConfig,
    bucket: String,
    owner: Option<String>,
    is_required: bool,
}

impl Archive {
    /// Keeps the configuration, which must not retry by itself. `owner` is the account that the bucket must belong to. If the
    /// archive `is_required`, a notification that is not archived must not be answered with 200.
    #[must_use]
    pub fn new(aws: &SdkConfig, bucket: String, owner: Option<String>, is_required: bool) -> Self {
        Self { aws: aws.clone(), bucket, owner, is_required }
    }

    /// Does some work, and concurrently archives a notification with this signature.
    ///
    /// Counts and logs each error. Returns it only if the archive is required. If not, ends at the latest `MAX_WAIT` after the
    /// work. An object that was abandoned may be in the archive nevertheless.
    pub async fn store_alongside<T>(
        &self,
        work: impl Future<Output = T>,
        body: &[u8],
        signature: &str,
        context: StoreContext<'_>,
    ) -> (T, Result<(), PayloadError>) {
        let started = Instant::now();
        let end = |result| {
            context.metrics.time(Metric::ArchiveTime, started.elapsed());
            result
        };
        let (mut work, mut archive) = (pin!(work), pin!(self.store(body, signature, context).map(end)));
        let (output, result) = select! {
            biased;
            output = &mut work => {
                let limit = if self.is_required { context.deadline } else { Instant::now() + MAX_WAIT };
                let result = timeout_at(limit.min(context.deadline), archive).await;
                (output, result.unwrap_or_else(|_| end(Err(no_answer()))))
            }
            result = &mut archive => (work.await, result),
        };
        let Err(error) = result else { return (output, Ok(())) };
        context.metrics.count(Metric::NotArchived, 1);
        tracing::error!(error.text = %error, "notification not archived");
        (output, if self.is_required { Err(error) } else { Ok(()) })
    }

    async fn store(&self, body: &[u8], signature: &str, context: StoreContext<'_>) -> Result<(), PayloadError> {
        let header = ArchiveHeader {
            received: format_time(SystemTime::now()),
            request_id: context.request.request_id.to_owned(),
            trace: context.request.trace.map(ToOwned::to_owned),
            signature: signature.to_owned(),
            rewritten: None,
        };
        let key = header.key().map_err(|error| PayloadError::Rejected(error.to_string()))?;
        let body = Bytes::from(compress(&header, body).await);
        let (bucket, owner) = (&*self.bucket, self.owner.as_deref());
        let put = || {
            put(&self.aws, PutObject { bucket, key: &key, content_type: "application/gzip", body: body.clone(), owner })
                .boxed()
        };
        let stored = timeout_at(context.deadline, put_until_deadline(put, context)).await;
        stored.unwrap_or_else(|_| Err(no_answer()))
    }
}

fn no_answer() -> PayloadError {
    PayloadError::Transient("no answer in time".to_owned())
}

/// The time in the form of [`ArchiveHeader::received`].
fn format_time(time: SystemTime) -> String {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = DateTime::from_secs(time.as_secs().try_into().unwrap_or_default());
    let seconds = seconds.fmt(DateTimeFormat::DateTime).unwrap_or_default();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), time.subsec_millis())
}

/// Compresses the content of an object. Yields before each chunk, so that calls that are under way proceed.
async fn compress(header: &ArchiveHeader, body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for chunk in iter::once(&*header.encode(&[])).chain(body.chunks(CHUNK_BYTES)) {
        yield_now().await;
        encoder.write_all(chunk).expect("a vector takes all bytes");
    }
    encoder.finish().expect("a vector takes all bytes")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use aws_config::Region;
    use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
    use aws_smithy_http_client::test_util::NeverClient;
    use aws_smithy_runtime_api::client::http::SharedHttpClient;
    use flate2::read::GzDecoder;
    use futures_util::poll;
    use tokio::time::sleep;
    use whatsapp_webhook::message::RequestContext;

    use super::*;
    use crate::metrics::Metrics;

    const TIME: Duration = Duration::from_secs(9);

    fn header() -> ArchiveHeader {
        ArchiveHeader {
            received: format_time(SystemTime::now()),
            request_id: "request".into(),
            trace: None,
            signature: "sha256=00".into(),
            rewritten: None,
        }
    }

    /// Archives in a bucket that never answers, alongside work of this duration. Returns the result and the metrics.
    async fn store_in_silent_bucket(
        work: Duration,
        is_required: bool,
    ) -> (Result<(), PayloadError>, serde_json::Value, Duration) {
        let credentials = Credentials::new("id", "key", None, None, "test");
        let aws = SdkConfig::builder()
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(SharedHttpClient::new(NeverClient::new()))
            .build();
        let (metrics, started) = (Metrics::default(), Instant::now());
        let request = RequestContext { request_id: "request", group_key: "key", trace: None };
        let context = StoreContext { request, deadline: started + TIME, metrics: &metrics };
        let archive = Archive::new(&aws, "bucket".to_owned(), None, is_required);
        let ((), result) = archive.store_alongside(sleep(work), b"{}", "sha256=00", context).await;
        (result, serde_json::to_value(&metrics).unwrap(), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn answer_waits_for_a_silent_bucket_only_briefly() {
        for (work, expected) in [(0, 500), (1_000, 1_500), (8_900, 9_000)] {
            let (result, metrics, elapsed) = store_in_silent_bucket(Duration::from_millis(work), false).await;
            assert!(result.is_ok());
            // Tokio's timer has a resolution of a millisecond.
            assert_eq!(elapsed.as_millis() / 10 * 10, expected);
            assert_eq!(metrics["NotArchived"], 1);
            let time = Duration::from_secs_f64(metrics["ArchiveTime"].as_f64().unwrap() / 1e3);
            assert_eq!(time.as_millis() / 10 * 10, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn required_archive_gets_all_of_the_time() {
        let (result, metrics, elapsed) = store_in_silent_bucket(Duration::ZERO, true).await;
        assert_eq!(result.unwrap_err().to_string(), "S3: no answer in time");
        assert_eq!((elapsed.as_secs(), &metrics["NotArchived"]), (TIME.as_secs(), &1.into()));
    }

    #[test]
    fn time_has_the_form_of_a_header() {
        for (millis, text) in [(0, "1970-01-01T00:00:00.000Z"), (1_767_323_045_070, "2026-01-02T03:04:05.070Z")] {
            let received = format_time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(received, text);
            assert!(ArchiveHeader { received, ..header() }.key().is_ok());
        }
    }

    #[tokio::test]
    async fn compressed_body_comes_back() {
        for body in [Vec::new(), b"\n\xff".to_vec(), (0..750_000_u32).flat_map(u32::to_le_bytes).collect()] {
            let (header, mut object) = (header(), Vec::new());
            GzDecoder::new(&*compress(&header, &body).await).read_to_end(&mut object).unwrap();
            assert!(object == header.encode(&body), "{} bytes", body.len());
        }
    }

    #[tokio::test]
    async fn compression_gives_way_after_each_chunk() {
        let (header, body) = (header(), vec![0; 3 * CHUNK_BYTES]);
        let mut compression = pin!(compress(&header, &body));
        for _ in 0..4 {
            assert!(poll!(&mut compression).is_pending());
        }
        assert!(poll!(&mut compression).is_ready());
    }
}
