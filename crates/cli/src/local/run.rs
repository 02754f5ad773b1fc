//! The whole way on this computer: deploys, acts as Meta with every sample, and looks at what came of it.

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

const WATCH_PAUSE: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 20;

/// A running stack that every sample was delivered to.
#[derive(Debug)]
pub struct Local {
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
    /// The stack did not come up.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The endpoint does not answer.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The queues cannot be looked at.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The stack ended while it should have stayed up.
    #[error("the local stack ended by itself ({0})")]
    Down(ExitStatus),
}

impl Local {
    /// Deploys the stack and delivers every sample to it, one after another.
    ///
    /// Receives each message once, compares it with the sample, and releases it at the end.
    pub async fn deploy_and_deliver(root: &Path, events: &Path, python: &Path) -> Result<Self, RunError> {
        let mut samples = Sample::load_all(events)?;
        samples.sort_by_key(|sample| (sample.method != "GET", sample.signer() != Signer::Meta));
        let stack = Stack::start(root, python).await?;
        let mut local = Self {
            queues: StackQueues::of(&stack.info),
            endpoint: Endpoint::new(&stack.info.callback_url)?,
            secrets: stack.secrets(),
            outcomes: Vec::new(),
            stack,
        };
        let played = local.play(&samples).await;
        if played.is_err() || !local.is_as_expected() {
            local.show_log().await;
        }
        played.map(|()| local)
    }

    /// Whether every sample was answered and landed as it should.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_as_expected)
    }

    /// Says how to call the stack, keeps it up and tells what comes to its queues. Returns only when something is wrong.
    pub async fn keep_up(mut self) -> Result<Infallible, RunError> {
        self.print_usage();
        tokio::select! {
            // It has told why itself.
            status = self.stack.ended() => Err(RunError::Down(status?)),
            watched = watch(&self.queues) => {
                self.show_log().await;
                watched
            }
        }
    }

    async fn play(&mut self, samples: &[Sample]) -> Result<(), RunError> {
        let table = report::Deliveries::start(samples.iter().map(|sample| sample.name.as_str()));
        for sample in samples {
            let outcome = self.delivered(sample).await?;
            table.line(&outcome);
            self.outcomes.push(outcome);
        }
        self.queues.release().await?;
        report::summary(self.outcomes.iter());
        report::depths(&self.queues, &self.queues.counts().await?);
        Ok(())
    }

    async fn delivered(&mut self, sample: &Sample) -> Result<Outcome, RunError> {
        let response = self.endpoint.deliver(sample, &self.secrets).await?;
        Ok(Outcome::of(sample, &response.untimed(), response.elapsed, &mut self.queues).await?)
    }

    fn print_usage(&self) {
        let StackInfo { aws_endpoint, region, access_key_id, secret_access_key, callback_url, .. } = &self.stack.info;
        let environment = [
            ("AWS_ENDPOINT_URL", aws_endpoint.as_str()),
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

async fn watch(queues: &StackQueues) -> Result<Infallible, RunError> {
    let mut before = queues.counts().await?;
    loop {
        sleep(WATCH_PAUSE).await;
        let now = queues.counts().await?;
        for ((queue, before), now) in queues.all.iter().zip(&before).zip(&now) {
            if before.visible != now.visible {
                report::change(&queue.label, before.visible, now.visible);
            }
        }
        before = now;
    }
}

/// A command that delivers a message of its own, as it can be pasted.
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
