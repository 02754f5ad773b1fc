//! Deploys the function on this computer, delivers every sample to it, and compares the results with the expected ones.

use std::{convert::Infallible, path::Path, process::ExitStatus, time::Duration};

use thiserror::Error;
use tokio::time::sleep;
use whatsapp_webhook::signature;

use crate::{
    aws::stack_info::StackInfo,
    endpoint_secrets::EndpointSecrets,
    local::{
        logs,
        stack::{Stack, StackError},
    },
    meta::{
        deliver::{DeliverError, Endpoint},
        outcome::Outcome,
        samples::{Sample, SampleError, Signer},
    },
    queues::{error::QueueError, stack_queues::StackQueues},
    report,
};

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 20;

/// A running stack, and the outcomes of the samples.
#[derive(Debug)]
pub struct LocalRun {
    stack: Stack,
    queues: StackQueues,
    endpoint: Endpoint,
    secrets: EndpointSecrets,
    outcomes: Vec<Outcome>,
}

/// A run that could not be finished.
#[derive(Debug, Error)]
pub enum RunError {
    /// The samples cannot be read.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The stack did not start.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The endpoint does not respond.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// A call to SQS failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The stack exited while this program was using it.
    #[error("the local stack exited unexpectedly ({0})")]
    StackExited(ExitStatus),
}

impl LocalRun {
    /// Deploys the stack and delivers every sample to it, one after another.
    ///
    /// Receives each message once, compares it with the sample, and releases it at the end.
    pub async fn deploy_and_deliver(root: &Path, events: &Path, python: &Path) -> Result<Self, RunError> {
        let mut samples = Sample::load_all(events)?;
        // Verification requests first and rejected samples last, as in the README's table.
        samples.sort_by_key(|sample| (sample.method != "GET", sample.signer() != Signer::Meta));
        let stack = Stack::start(root, python).await?;
        let mut local = Self {
            queues: StackQueues::of(&stack.info),
            endpoint: Endpoint::new(&stack.info.callback_url)?,
            secrets: stack.secrets(),
            outcomes: Vec::new(),
            stack,
        };
        let result = local.deliver_all(&samples).await;
        if result.is_err() || !local.is_as_expected() {
            local.show_log().await;
        }
        result.map(|()| local)
    }

    /// Whether the outcome of every sample is as expected.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_as_expected)
    }

    /// Prints how to call the stack, and then each change of the message counts. Returns only with an error.
    pub async fn watch(mut self) -> Result<Infallible, RunError> {
        self.print_usage();
        tokio::select! {
            // The stack itself printed the reason.
            status = self.stack.wait_for_exit() => Err(RunError::StackExited(status?)),
            result = watch_counts(&self.queues) => {
                self.show_log().await;
                result
            }
        }
    }

    async fn deliver_all(&mut self, samples: &[Sample]) -> Result<(), RunError> {
        let table = report::DeliveryTable::start(samples.iter().map(|sample| sample.name.as_str()));
        for sample in samples {
            let outcome = self.deliver(sample).await?;
            table.print_row(&outcome);
            self.outcomes.push(outcome);
        }
        self.queues.release().await?;
        report::summary(self.outcomes.iter());
        report::depths(&self.queues, &self.queues.counts().await?);
        Ok(())
    }

    async fn deliver(&mut self, sample: &Sample) -> Result<Outcome, RunError> {
        let response = self.endpoint.deliver(sample, &self.secrets).await?;
        Ok(Outcome::of(sample, &response.untimed(), response.elapsed, &mut self.queues).await?)
    }

    fn print_usage(&self) {
        let StackInfo { aws_endpoint, region, access_key_id, secret_access_key, callback_url, .. } = &self.stack.info;
        let environment = [
            ("AWS_ENDPOINT_URL", aws_endpoint.as_str()),
            // The AWS SDK for JavaScript reads only `AWS_REGION`. Version 1 of the AWS CLI and boto3 read only the other one.
            ("AWS_REGION", region.as_str()),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_ACCESS_KEY_ID", access_key_id),
            ("AWS_SECRET_ACCESS_KEY", secret_access_key),
        ];
        report::usage(callback_url, &curl(&self.endpoint, &self.secrets), &environment);
    }

    async fn show_log(&self) {
        report::log_tail(&logs::tail(&self.stack.info, LOG_LINES).await);
    }
}

async fn watch_counts(queues: &StackQueues) -> Result<Infallible, RunError> {
    let mut before = queues.counts().await?;
    loop {
        sleep(WATCH_INTERVAL).await;
        let now = queues.counts().await?;
        for ((queue, before), now) in queues.all.iter().zip(&before).zip(&now) {
            if before.visible != now.visible {
                report::count_change(&queue.label, before.visible, now.visible);
            }
        }
        before = now;
    }
}

/// Returns a shell command that delivers a signed notification.
fn curl(endpoint: &Endpoint, secrets: &EndpointSecrets) -> String {
    const BODY: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"0","changes":[{"field":"messages","value":{"messaging_product":"whatsapp","messages":[{"from":"12025550101","id":"wamid.by-hand","type":"text","text":{"body":"Hello"}}]}}]}]}"#;
    let url = endpoint.url();
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let signature = signature::sign(&secrets.app_secret, BODY.as_bytes());
    format!(
        "curl -i --resolve {host}:{port}:127.0.0.1 -H 'content-type: application/json' \\\n  \
         -H '{}: {signature}' \\\n  -d '{BODY}' \\\n  '{url}'",
        signature::HEADER
    )
}
