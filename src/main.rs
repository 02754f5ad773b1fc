//! The function on AWS Lambda: reads its settings and secrets, then answers requests.

use std::process::ExitCode;

use aws_sdk_secretsmanager::Client as SecretsManager;
use aws_sdk_sqs::Client as Sqs;
use futures_util::FutureExt as _;
use lambda_http::{Error, service_fn};
use tokio::try_join;
use whatsapp_ingress::{
    aws, config::Config, handler::Ingress, payload::Payloads, queue::Queues, secrets::Secrets, telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::init();
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    tracing::error!(error.text = %error, "cannot start");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Error> {
    let config = Config::from_env()?;
    let aws = aws::config().await;
    let patient = aws::without_retries(&aws);
    let payloads = Payloads::new(&patient, config.payload_bucket);
    let queues = Queues::new(Sqs::new(&patient), config.routes, payloads);
    let secrets = Secrets::read(SecretsManager::new(&aws), config.secret_id);
    let (secrets, ()) = try_join!(secrets, queues.warm_up().map(Ok))?;
    let ingress = Ingress::new(secrets, queues).only_for(config.client_certificate_cn);
    lambda_http::run(service_fn(|request| ingress.handle(request))).await
}
