//! The arguments of the command line, and their help texts.

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
  APP_SECRET    signs the sample
  VERIFY_TOKEN  is the verify token of a verification request
The default is the secret of the local stack or, with --url, that of the samples.";

/// The stack's name in samconfig.toml.
const DEFAULT_STACK: &str = "whatsapp-ingress";

const VERIFY_HELP: &str = "\
Sends 28 signed notifications of the field ingress_verify, for which no stack has a queue, finds them on the
catch-all queue and deletes them there. Seven of them have an unusual header or query, because only a real account
shows how API Gateway passes these on.

Without URL and stack, the command checks the running local stack. With a URL alone, it uses the deployed stack
whatsapp-ingress.

Environment:
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack, and for the catch-all queue
  APP_SECRET, VERIFY_TOKEN     override the stack's secret";

const QUEUES_HELP: &str = "\
Also lists queues whose names begin with the stack's name and `-`, and to which no route of the stack leads. Another
stack may own such a queue. The command receives no message. Without a stack, it uses the running local stack.";

const SUBSCRIBE_HELP: &str = "\
Without a stack, the command uses the deployed stack whatsapp-ingress.

Environment:
  META_ACCESS_TOKEN            access token of a system user, for the accounts
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack
  APP_SECRET, VERIFY_TOKEN     override the stack's secret";

const MOVE_HELP: &str = "\
The command receives each message, sends it, and then deletes it. If it is interrupted, no message is lost: at most
ten are on both queues, with the same event_id. Without --apply, it receives no message and prints the counts.
Without a stack, it uses the running local stack.

Environment:
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack, and for its queues";

/// Signs and delivers samples of Meta's webhooks, and runs the function on this computer.
///
/// Exit status 0: the result is as expected. 1: it is not, or the command failed. 2: invalid arguments.
#[derive(Debug, Parser)]
#[command(name = "ingress", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Updates the signatures and the content-length of samples.
    Sign {
        /// The samples; by default all of events/.
        files: Vec<PathBuf>,
        /// Change nothing; exit with status 1 if a sample is outdated.
        #[arg(long)]
        check: bool,
    },
    /// Signs a sample and delivers it over HTTP, as Meta would.
    #[command(after_help = SECRETS_HELP)]
    Deliver {
        /// The sample, such as events/messages-text.json.
        event: PathBuf,
        /// The callback URL; by default that of the running local stack.
        #[arg(long)]
        url: Option<String>,
    },
    /// Deploys the output of `sam build` on this computer, delivers every sample, and prints the queues that stored it.
    Run {
        /// Exit after the samples, instead of running until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// The folder of the samples.
        #[arg(long, default_value = "events")]
        events: PathBuf,
        /// The Python interpreter, with the local AWS installed.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
    /// Checks an endpoint with requests as Meta sends them, and with forged ones.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The callback URL; by default that of the stack.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        stack: NamedStack,
        /// Do not call AWS: read both secrets from the environment, and send no signed notification.
        #[arg(long, requires = "url", conflicts_with = "stack")]
        no_stack: bool,
        /// Print the results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Subscribes an app to the fields that have a queue, and lists its subscriptions. Changes nothing without --apply.
    #[command(after_help = SUBSCRIBE_HELP)]
    Subscribe(SubscribeArguments),
    /// Counts the messages of each queue of a stack and its dead-letter queue, with the age of the oldest.
    #[command(after_help = QUEUES_HELP)]
    Queues {
        #[command(flatten)]
        stack: NamedStack,
        /// Print the counts as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Moves dead letters of a field back to its queue. Moves nothing without --apply.
    #[command(after_help = MOVE_HELP)]
    Redrive {
        #[command(flatten)]
        arguments: MoveArguments,
        /// Move the messages of this queue, such as a replaced one, instead of dead letters.
        #[arg(long)]
        from: Option<String>,
    },
    /// Moves messages of a field from the catch-all queue to the field's queue. Moves nothing without --apply.
    #[command(after_help = MOVE_HELP)]
    Reroute {
        #[command(flatten)]
        arguments: MoveArguments,
    },
    /// Runs the function in Docker with `sam local invoke`, on queues and a secret of a local AWS.
    SamLocal {
        /// The samples, such as events/messages-text.json; by default all of events/.
        events: Vec<PathBuf>,
        /// The Python interpreter, with SAM CLI and the local AWS installed.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
}

/// The arguments of a move.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArguments {
    /// The field with all its queues, or one kind of it, such as messages.statuses.
    #[arg(long)]
    pub(crate) field: Field,
    /// Move the messages; by default only print the counts.
    #[arg(long)]
    pub(crate) apply: bool,
    /// The maximum number of messages per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// The maximum number of messages to move from each queue.
    #[arg(long)]
    pub(crate) max_messages: Option<usize>,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `subscribe`.
#[derive(Debug, clap::Args)]
pub(crate) struct SubscribeArguments {
    /// The id of the app.
    #[arg(long)]
    pub(crate) app: Id,
    /// The ids of WhatsApp Business accounts whose events the app should receive.
    #[arg(long = "account", value_delimiter = ',')]
    pub(crate) accounts: Vec<Id>,
    /// The fields to subscribe to; by default all with a queue.
    #[arg(long, value_delimiter = ',', value_parser = parse_field_name)]
    pub(crate) fields: Option<Vec<String>>,
    /// Unsubscribe from all other fields; by default they are kept.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Apply the changes; by default only print them.
    #[arg(long)]
    pub(crate) apply: bool,
    /// The callback URL; by default that of the stack.
    #[arg(long, value_parser = parse_callback_url)]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// Print the subscriptions and the changes as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The Graph API, with its version.
    #[arg(long, default_value = GRAPH_URL)]
    pub(crate) graph_url: String,
}

/// Parses the name of a field, without the spaces around it.
fn parse_field_name(text: &str) -> Result<String, &'static str> {
    let name = text.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| name.to_owned()).ok_or("a field consists of letters, digits and _")
}

/// Checks a callback URL: HTTPS, or plain HTTP to a local stack, which has no certificate.
fn parse_callback_url(text: &str) -> Result<String, String> {
    let endpoint = Endpoint::new(text).map_err(|error| error.to_string())?;
    if endpoint.url().scheme() != "https" && !endpoint.is_local() {
        return Err("Meta rejects plain HTTP".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of a deployed stack.
#[derive(Debug, clap::Args)]
pub(crate) struct NamedStack {
    /// The name of the stack.
    #[arg(long)]
    pub(crate) stack: Option<String>,
}

impl NamedStack {
    /// Describes the named stack, or without a name the running local stack.
    pub(crate) async fn info_or_running(&self) -> Result<StackInfo, StackInfoError> {
        if self.stack.is_none() { StackInfo::running(Path::new(".")) } else { self.info().await }
    }

    /// Describes the named stack, or without a name the deployed stack with the default name.
    pub(crate) async fn info(&self) -> Result<StackInfo, StackInfoError> {
        StackInfo::deployed(&AwsCli::default(), self.stack.as_deref().unwrap_or(DEFAULT_STACK)).await
    }
}
