//! The arguments of the command line, and its help.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use ingress_tools::{
    aws::{
        cli::AwsCli,
        stack_info::{StackInfo, StackInfoError},
    },
    meta::deliver::Endpoint,
    queues::selection::Field,
    subscribe::graph::{GRAPH_URL, Id},
};

const SECRETS_HELP: &str = "\
Environment:
  APP_SECRET    what to sign with
  VERIFY_TOKEN  what the challenge carries
Where they are unset or empty, those of the local stack or, with --url, those of the samples are taken.";

/// The name in samconfig.toml.
const STACK: &str = "whatsapp-ingress";

const VERIFY_HELP: &str = "\
Sends 28 signed notifications of the field ingress_verify, for which no stack has a queue, finds them on the
catch-all queue and deletes them there. Seven of them have an odd header or query, because only a real account
shows what API Gateway passes on. Without URL and stack, the command checks the running local stack.

Environment:
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack, and for the catch-all queue
  APP_SECRET, VERIFY_TOKEN     instead of those in the stack's secret";

const QUEUES_HELP: &str = "\
Also lists queues whose names begin with the stack's name and `-`, and to which no route of the stack leads. Another
stack may own such a queue. No message is received. Without a stack, the command uses the running local stack.";

const SUBSCRIBE_HELP: &str = "\
Environment:
  META_ACCESS_TOKEN            of a system user, for the accounts; the app's own token is made of its secret
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack
  APP_SECRET, VERIFY_TOKEN     instead of those in the stack's secret";

const MOVE_HELP: &str = "\
Each message is received, sent and then deleted: nothing is lost however this is interrupted, and at worst a message
is on both queues, with the same event_id. Without --apply nothing is received, only counted. Without a stack, that
of the local AWS that is up is looked at.

Environment:
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack, and for its queues";

/// Signs and delivers samples of Meta's webhooks, and runs the function on this computer.
///
/// Exit code 0: as expected. 1: not as expected, or it could not be done. 2: wrong arguments.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Regenerates in samples what follows from their body: signatures and content-length.
    Sign {
        /// The samples; without any, all of events/.
        files: Vec<PathBuf>,
        /// Change nothing; exit with 1 if a sample is stale.
        #[arg(long)]
        check: bool,
    },
    /// Signs one sample anew and delivers it over HTTP, as Meta would.
    #[command(after_help = SECRETS_HELP)]
    Deliver {
        /// The sample, such as events/messages-text.json.
        event: PathBuf,
        /// The callback URL; without it, that of the local stack that is up.
        #[arg(long)]
        url: Option<String>,
    },
    /// Deploys what `sam build` built on this computer, delivers every sample, and shows where it landed.
    Run {
        /// End after the samples, instead of staying up until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// The folder with the samples.
        #[arg(long, default_value = "events")]
        events: PathBuf,
        /// The interpreter that has the local AWS.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
    /// Checks an endpoint with requests as Meta sends them and as a forger does.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The callback URL; without it, that of the stack.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        stack: NamedStack,
        /// Ask AWS for nothing: both secrets are those of the environment, and no notification is sent.
        #[arg(long, requires = "url", conflicts_with = "stack")]
        no_stack: bool,
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Has Meta send an app's events to a stack, and says what it sends and what has a queue. Changes nothing unless told.
    #[command(after_help = SUBSCRIBE_HELP)]
    Subscribe(Subscribe),
    /// Counts the messages of each queue of a stack and its dead-letter queue, with the age of the oldest.
    #[command(after_help = QUEUES_HELP)]
    Queues {
        #[command(flatten)]
        stack: NamedStack,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Moves dead letters of a field back to its queue. Moves nothing unless told.
    #[command(after_help = MOVE_HELP)]
    Redrive {
        #[command(flatten)]
        wanted: Wanted,
        /// Instead of the dead letters, what is on this queue, such as one that was replaced.
        #[arg(long)]
        from: Option<String>,
    },
    /// Moves what waits on the catch-all for a field to the queue that it has by now. Moves nothing unless told.
    #[command(after_help = MOVE_HELP)]
    Reroute {
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Runs the function in Docker, as `sam local invoke` does, on queues and a secret of a local AWS.
    SamLocal {
        /// The samples, such as events/messages-text.json; without any, all of events/.
        events: Vec<PathBuf>,
        /// The interpreter that has SAM CLI and the local AWS.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
}

/// What is to be moved.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The field, with all its routes; or one kind of it, such as messages.statuses.
    #[arg(long)]
    pub(crate) field: Field,
    /// Do it, instead of saying what would be done.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Messages in a second, at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Messages in all of each queue, at most.
    #[arg(long)]
    pub(crate) most: Option<usize>,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// Print what was done as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What an app is to be subscribed to.
#[derive(Debug, clap::Args)]
pub(crate) struct Subscribe {
    /// Id of the app.
    #[arg(long)]
    pub(crate) app: Id,
    /// Ids of WhatsApp Business accounts whose events the app is to get.
    #[arg(long = "account", value_delimiter = ',')]
    pub(crate) accounts: Vec<Id>,
    /// The fields to subscribe to; without any, those that have a queue.
    #[arg(long, value_delimiter = ',', value_parser = field_name)]
    pub(crate) fields: Option<Vec<String>>,
    /// Drop the other fields, which are kept otherwise.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Do it, instead of saying what would be done.
    #[arg(long)]
    pub(crate) apply: bool,
    /// The callback URL; without it, that of the stack.
    #[arg(long, value_parser = callback_url)]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// Print what is and what is to be done as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The Graph API, with its version.
    #[arg(long, default_value = GRAPH_URL)]
    pub(crate) graph_url: String,
}

/// The name of a field, which may have spaces around it.
fn field_name(text: &str) -> Result<String, &'static str> {
    let name = text.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| name.to_owned()).ok_or("a field of Meta's is letters, digits and _")
}

/// A URL that Meta may take, or one of a local stack, which has no certificate.
fn callback_url(text: &str) -> Result<String, String> {
    let endpoint = Endpoint::new(text).map_err(|error| error.to_string())?;
    if endpoint.url().scheme() != "https" && !endpoint.is_local() {
        return Err("Meta refuses plain HTTP".to_owned());
    }
    Ok(text.to_owned())
}

/// A deployed stack.
#[derive(Debug, clap::Args)]
pub(crate) struct NamedStack {
    /// Name of the stack; by default that of samconfig.toml.
    #[arg(long)]
    pub(crate) stack: Option<String>,
}

impl NamedStack {
    /// Describes the named stack; without a name, the one that runs on this computer.
    pub(crate) async fn info_or_running(&self) -> Result<StackInfo, StackInfoError> {
        if self.stack.is_none() { StackInfo::running(Path::new(".")) } else { self.info().await }
    }

    /// Describes the named stack; without a name, the deployed one with the default name.
    pub(crate) async fn info(&self) -> Result<StackInfo, StackInfoError> {
        StackInfo::deployed(&AwsCli::default(), self.stack.as_deref().unwrap_or(STACK)).await
    }
}
