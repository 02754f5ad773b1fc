//! The function on AWS Lambda: reads settings and secrets, then answers requests.

use std::process::ExitCode;

use aws_sdk_secretsmanager::Client as SecretsManager;
use aws_sdk_sqs::Client as Sqs;
use futures_util::FutureExt as _;
use lambda_http::{Error, LambdaEvent, lambda_runtime::Runtime, service_fn, tower::util::MapFutureLayer};
use tokio::try_join;
use whatsapp_ingress::{
    aws,
    config::Config,
    handler::Ingress,
    payload::Payloads,
    queue::Queues,
    secrets::SecretCache,
    telemetry::{self, RequestLog},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let log = telemetry::init();
    let ingress = match start(log).await {
        Ok(ingress) => ingress,
        Err(error) => {
            tracing::error!(error.text = %error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = Box::pin(serve(&ingress)).await else { return ExitCode::SUCCESS };
    tracing::error!(error.text = %error, "the execution environment ends");
    ExitCode::FAILURE
}

async fn start(log: RequestLog) -> Result<Ingress, Error> {
    let config = Config::from_env()?;
    let aws = aws::config().await;
    let without_retries = aws::without_retries(&aws);
    let payloads = Payloads::new(&without_retries, config.payload_bucket);
    let queues = Queues::new(Sqs::new(&without_retries), config.routes, payloads);
    let secrets = SecretCache::read(SecretsManager::new(&aws), config.secret_id);
    let (secrets, ()) = try_join!(secrets, queues.warm_up().map(Ok))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    Ok(Ingress::new(secrets, queues, log).require_client_cn(config.client_certificate_cn))
}

async fn serve(ingress: &Ingress) -> Result<(), Error> {
    let handler =
        service_fn(async |LambdaEvent { payload, context }| Box::pin(ingress.handle(payload, &context)).await);
    // The layer's future ends when the Runtime API has the answer.
    let restart = MapFutureLayer::new(async |invocation| {
        invocation.await?;
        if ingress.must_restart() { Err(Error::from("credentials expired")) } else { Ok(()) }
    });
    Runtime::new(handler).layer(restart).run().await
}
