//! The program of the Lambda function: reads settings and secrets, then answers requests.

use std::{process::ExitCode, sync::Arc};

use aws_sdk_secretsmanager::Client as SecretsManager;
use aws_sdk_sqs::Client as Sqs;
use futures_util::FutureExt as _;
use lambda_http::{Error, LambdaEvent, lambda_runtime::Runtime, service_fn, tower::util::MapFutureLayer};
use tokio::{select, try_join};
use whatsapp_ingress::{
    archive::Archive,
    aws,
    config::Config,
    drain::Drain,
    handler::Ingress,
    payload::Payloads,
    queue::Queues,
    secrets::SecretCache,
    telemetry::{self, RequestLog},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let log = telemetry::init();
    let (ingress, max_concurrency) = match start(log).await {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(error.text = %error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = Box::pin(serve(Arc::new(ingress), max_concurrency)).await else { return ExitCode::SUCCESS };
    tracing::error!(error.text = %error, "the execution environment ends");
    ExitCode::FAILURE
}

/// Returns the function's state, and the number of requests that an execution environment serves at a time.
async fn start(log: RequestLog) -> Result<(Ingress, usize), Error> {
    let config = Config::from_env()?;
    let max_concurrency = config.max_concurrency;
    let aws = aws::config().await;
    let aws_without_retries = aws::without_retries_and_timeouts(&aws);
    // The buckets must be in the account of the catch-all queue, because its URL is the only setting with an account id.
    let owner = config.routes.catch_all().account_id().map(ToOwned::to_owned);
    let archive = config
        .archive_bucket
        .map(|bucket| Archive::new(&aws_without_retries, bucket, owner.clone(), config.is_archive_required));
    let payloads = Payloads::new(&aws_without_retries, config.payload_bucket, owner);
    let queues = Queues::new(Sqs::new(&aws_without_retries), config.routes, payloads).shared_by(max_concurrency);
    let secrets = SecretCache::read(SecretsManager::new(&aws), config.secret_id);
    let (secrets, ()) = try_join!(secrets, queues.warm_up().map(Ok))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let ingress = Ingress::new(secrets.shared_by(max_concurrency), queues, log).with_archive(archive);
    Ok((ingress.require_client_cn(config.client_certificate_cn), max_concurrency))
}

async fn serve(ingress: Arc<Ingress>, max_concurrency: usize) -> Result<(), Error> {
    let drain = Arc::new(Drain::new(max_concurrency));
    let handler_ingress = Arc::clone(&ingress);
    let handler = service_fn(move |LambdaEvent { payload, context }| {
        let ingress = Arc::clone(&handler_ingress);
        async move { ingress.handle(payload, &context).await }.boxed()
    });
    let (layer_ingress, layer_drain) = (Arc::clone(&ingress), Arc::clone(&drain));
    // The layer wraps the handler and the POST of its answer to the Runtime API.
    let drain_layer = MapFutureLayer::new(move |invocation| {
        let (ingress, drain) = (Arc::clone(&layer_ingress), Arc::clone(&layer_drain));
        async move {
            let request = drain.begin();
            let result: Result<(), Error> = invocation.await;
            drop(request);
            if ingress.must_restart() {
                drain.stop_worker().await;
            }
            // An `Err` would end this worker only, so that the environment serves fewer requests at a time. Lambda's runtime
            // has already logged the error.
            if max_concurrency > 1 { Ok(()) } else { result }
        }
    });
    select! {
        result = Runtime::new(handler).layer(drain_layer).run_concurrent() => result,
        () = drain.finished() => Err(Error::from("AWS credentials expired")),
        never = ingress.keep_secrets_fresh() => match never {},
    }
}
