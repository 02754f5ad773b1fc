//! The arguments of the command line, and their help texts.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use ingress_tools::{
    archive::{self, person::PersonId, time::Time},
    aws::{
        cli::AwsCli,
        stack_choice::StackChoice,
        stack_info::{StackInfo, StackInfoError},
    },
    meta::deliver::Endpoint,
    queues::{inspect::ExportDestination, scan::Filter, selection::Field},
    subscribe::{
        OverrideGoal,
        graph::{GRAPH_URL, Id},
    },
};
use whatsapp_webhook::routes::CATCH_ALL;

const SECRETS_HELP: &str = "\
Environment:
  APP_SECRET    signs the sample
  VERIFY_TOKEN  is the verify token of a verification request
The default is the secret of the local stack or, with --url, that of the samples.";

/// Appends to a help text how the command chooses its stack, and which variables it reads.
macro_rules! with_stack_help {
    ($text:literal) => {
        concat!(
            $text,
            "
The stack is the one that --stack or the variable STACK names, else the local stack that runs in this folder, else the
one that `sam deploy --guided` saved in samconfig.toml, if profile and region are those of samconfig.toml. If
AWS_ENDPOINT_URL or AWS_PROFILE leads elsewhere than a running local stack, name the stack or use --local.

Environment:
  STACK                        name of the stack
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack, and for its queues"
        )
    };
}

const VERIFY_HELP: &str = with_stack_help!(
    "\
Compares the queues of all routes with the template, and checks the alarm topic. Sends verification requests, forged
notifications and signed notifications without content, of which the function stores none. If the stack has a queue for
the field ingress_verify, the command also sends 20 signed notifications of this field, and receives and deletes them on
that queue. It receives no message of another queue.

With --url alone, the local stack is used only if the URL is its own.

Environment:
  APP_SECRET, VERIFY_TOKEN     override the stack's secret
"
);

const QUEUES_HELP: &str = with_stack_help!(
    "\
Exit status 1: a queue or dead-letter queue of a route is gone, cannot be read, or its key is disabled.

Also lists queues whose names begin with the stack's name and `-`, and to which no route of the stack leads. Another
stack may own such a queue. The command receives no message.
"
);

const SUBSCRIBE_HELP: &str = "\
Meta sends events about messages to the callback URL of the phone number, else of the account, else of the app. An
override that leads elsewhere is shown: the stack receives none of its events.

The stack is the one that --stack or the variable STACK names, else the one that `sam deploy --guided` saved in
samconfig.toml, if profile and region are those of samconfig.toml. The local stack is used only with --local.

Environment:
  META_ACCESS_TOKEN            access token of a system user, for the accounts
  STACK                        name of the stack
  AWS_PROFILE, AWS_REGION ...  for the AWS CLI, which reads the stack
  APP_SECRET, VERIFY_TOKEN     override the stack's secret";

const MOVE_HELP: &str = with_stack_help!(
    "\
The command receives each message, sends it, and then deletes it. If it is killed, no message is lost: at most ten are on
both queues, with the same event_id. Messages that the command left on the queue are then hidden for two minutes to six hours. A
message for several queues may be on some of them, until the next run sends it to all. Without --apply, the command receives no
message and prints the counts.

Exit status 0: no message of the field is left, except beyond --max-messages. 1: some are left or cannot be seen, because they
are in flight, or a queue is gone. Messages in flight on a route's own queue are those of its consumers, and do not count.
"
);

const PEEK_HELP: &str = with_stack_help!(
    "\
Prints field, kind, reason and day of sending (UTC) with the number of messages. It never prints a body.

Receives each message once and makes it visible again at the end. SQS counts each look as a receive: a queue with a
dead-letter queue moves a message there after too many receives, and on a standard queue the metric
ApproximateAgeOfOldestMessage, on which the alarm consumer-lag is based, ignores a message that was received three times. On a FIFO
queue, the command blocks each group until its end and counts only the first messages of a group. `ingress queues`
receives no message.

Exit status 1: messages are in flight, so that they are not counted, or the command stopped. Messages in flight on a route's
own queue are those of its consumers, and do not count.
"
);

const DROP_HELP: &str = with_stack_help!(
    "\
Receives each message once, deletes those that match, and makes the others visible again. SQS counts this as a receive,
see `ingress peek --help`. Deleted messages are lost: copy them first with `ingress export`. If the command is
interrupted, run it again. Without --apply, it receives no message and prints the counts of the queue.

Exit status 1: messages that match may be left, because they are in flight or follow one of their group that is kept, or the
command stopped. Messages in flight on a route's own queue are those of its consumers, and do not count.
"
);

const EXPORT_HELP: &str = with_stack_help!(
    "\
Writes each message as JSON, in the form of `aws sqs receive-message`, to TO/QUEUE/MESSAGE-ID.json. The files contain
what customers write. If TO is a folder, only your user can read the files. A body that is in S3 is copied as its pointer.

Receives each message once. Messages that are not deleted are visible again at the end. SQS counts this as a receive,
see `ingress peek --help`. If the command is interrupted, run it again: it does not copy a message twice to a folder,
and replaces its object in S3. Without --apply, it receives no message and prints the counts of the queue.

Exit status 1: messages that match may be left, because they are in flight or follow one of their group that stays, or the
command stopped. Messages in flight on a route's own queue are those of its consumers, and do not count.
"
);

const RESTORE_HELP: &str = with_stack_help!(
    "\
Compares the queue and its dead-letter queue with the template that CloudFormation processed, and with --apply creates
a missing one or changes attributes, policy and tags. Messages of a deleted queue are lost. SQS accepts the name of a
deleted queue again after 60 seconds; the command waits. Queues of other stacks and accounts are not changed: if one of
the route cannot be used, the exit status is 1.
"
);

const ARCHIVE_HELP: &str = with_stack_help!(
    "\
A notification is selected if it was received in the time, and if one of its changes has the route, the contact and the event
id. The command reads each notification between --from and --to; with --request-id, only those whose key ends in this id. S3
charges a request for each. Exit status 1: no notification is selected to show or verify, or one of them is not authentic.

Environment:
  APP_SECRET                   a further app secret, such as one that Secrets Manager no longer has
"
);

const REPLAY_HELP: &str = with_stack_help!(
    "\
To queues, the command sends the selected changes as the function would: with the same body, attributes and event_id, and the
attribute `replayed` with the time at which the replay began. To the callback URL, it posts each whole notification that has
a selected change; the function stores all its changes, and archives it once more.

A notification that is not authentic is never replayed. If a run is interrupted or killed, the same command goes on after the
last notification that was replayed completely: a file in XDG_STATE_HOME or ~/.local/state remembers it. It then sends up to
nine messages and those of one notification to each queue twice, with the same event_id. Notifications that arrive after the
replay began are not replayed, also if it is continued days later.

Exit status 1: no notification is selected, a notification or a message was not replayed, or the replay stopped.

Environment:
  APP_SECRET                   a further app secret, such as one that Secrets Manager no longer has
"
);

const ERASE_HELP: &str = with_stack_help!(
    "\
Deletes notifications about this person alone. From others it removes the person's messages, receipts and contacts, signs the
rest with the current app secret of the stack, and marks it as rewritten. A part names the person if any JSON value in it equals
the number or the id, whatever its member is called. Text is not searched: a message of someone else that mentions the number
remains. If the command is interrupted, run it again.

Exit status 1: the erasure stopped; the archive names this person by another id too; or an object remains as it is, because it
is not authentic, or because it names the person outside of its changes. The first objects are listed; with --json, all.

Environment:
  APP_SECRET                   a further app secret, such as one that Secrets Manager no longer has
"
);

/// Verifies a stack, subscribes a Meta app to it, inspects and moves the messages of its queues, delivers samples as Meta does,
/// and runs the function on this computer.
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
    /// Signs a sample, or a body of your own, and delivers it over HTTP, as Meta would.
    #[command(after_help = SECRETS_HELP)]
    Deliver {
        /// The sample, such as events/messages-text.json.
        #[arg(required_unless_present = "body")]
        event: Option<PathBuf>,
        /// Deliver the bytes of this file as the body of a notification, instead of a sample.
        #[arg(long, conflicts_with = "event")]
        body: Option<PathBuf>,
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
        stack: StackArguments,
        /// Do not call AWS: read both secrets from the environment, and send no signed notification with content.
        #[arg(long, requires = "url", conflicts_with_all = ["stack", "local"])]
        no_stack: bool,
    },
    /// Subscribes an app to the fields that have a queue, and lists its subscriptions. Changes nothing without --apply.
    #[command(after_help = SUBSCRIBE_HELP)]
    Subscribe(SubscribeArguments),
    /// Counts the messages of each queue of a stack and its dead-letter queue, with the age of the oldest.
    #[command(after_help = QUEUES_HELP)]
    Queues {
        #[command(flatten)]
        stack: StackArguments,
    },
    /// Moves dead letters of a field back to its queue. Moves nothing without --apply.
    #[command(after_help = MOVE_HELP)]
    Redrive {
        #[command(flatten)]
        arguments: MoveArguments,
        /// Move the messages of this queue, such as a replaced one, instead of dead letters.
        #[arg(long)]
        from: Option<String>,
        /// Move the messages of --from only to this queue of the field; by default to all queues of their routes.
        #[arg(long, requires = "from")]
        to: Option<String>,
    },
    /// Moves messages of a field from the catch-all queue to the field's queue. Moves nothing without --apply.
    #[command(after_help = MOVE_HELP)]
    Reroute {
        #[command(flatten)]
        arguments: MoveArguments,
    },
    /// Counts the messages of a queue by field, kind, reason and day of sending.
    #[command(after_help = PEEK_HELP)]
    Peek {
        #[command(flatten)]
        queue: QueueArguments,
    },
    /// Deletes messages of a field or with a reason from a queue. Deletes nothing without --apply.
    #[command(after_help = DROP_HELP)]
    Drop {
        #[command(flatten)]
        queue: QueueArguments,
        #[command(flatten)]
        filter: FilterArguments,
        /// Delete the messages; by default only print the counts.
        #[arg(long)]
        apply: bool,
    },
    /// Copies messages of a queue to files or to S3. Copies nothing without --apply.
    #[command(after_help = EXPORT_HELP)]
    Export {
        #[command(flatten)]
        queue: QueueArguments,
        #[command(flatten)]
        filter: OptionalFilterArguments,
        /// The folder, or a URL such as `s3://bucket/prefix`.
        #[arg(long)]
        to: ExportDestination,
        /// Delete each message after it was copied.
        #[arg(long)]
        delete: bool,
        /// Copy the messages; by default only print the counts.
        #[arg(long)]
        apply: bool,
    },
    /// Makes the queues of a route as in the template, after one was deleted or changed. Changes nothing without --apply.
    #[command(after_help = RESTORE_HELP)]
    RestoreQueue {
        /// The route, such as messages, messages.statuses or '*'.
        route: String,
        /// Apply the changes; by default only print them.
        #[arg(long)]
        apply: bool,
        #[command(flatten)]
        stack: StackArguments,
    },
    /// Lists, verifies, replays and erases archived notifications.
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Runs the function in Docker with `sam local invoke`, on queues and a secret of a local AWS.
    SamLocal {
        /// The samples, such as events/messages-text.json; by default all of events/.
        events: Vec<PathBuf>,
        /// The Python interpreter, with SAM CLI and the local AWS installed.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
}

/// A command about the archive.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Lists notifications with time, request id, size, changes and signature. Prints no content.
    #[command(after_help = ARCHIVE_HELP)]
    List {
        #[command(flatten)]
        selection: SelectionArguments,
        #[command(flatten)]
        archive: ArchiveArguments,
    },
    /// Prints the body of the first selected notification: what customers write. No other command prints content.
    #[command(after_help = ARCHIVE_HELP)]
    Show {
        #[command(flatten)]
        selection: SelectionArguments,
        #[command(flatten)]
        archive: ArchiveArguments,
    },
    /// Checks each notification's signature with the app secrets of the stack, older ones included.
    #[command(after_help = ARCHIVE_HELP)]
    Verify {
        #[command(flatten)]
        selection: SelectionArguments,
        #[command(flatten)]
        archive: ArchiveArguments,
    },
    /// Sends notifications to the callback URL or to queues again. Sends nothing without --apply.
    #[command(after_help = REPLAY_HELP)]
    Replay {
        #[command(flatten)]
        destination: DestinationArguments,
        #[command(flatten)]
        selection: SelectionArguments,
        /// Send; by default only count.
        #[arg(long)]
        apply: bool,
        /// The maximum number of messages, or of requests to the callback URL, per second.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Begin anew instead of after the last notification of an interrupted run.
        #[arg(long)]
        restart: bool,
        #[command(flatten)]
        archive: ArchiveArguments,
    },
    /// Erases a person from the archive. Changes nothing without --apply.
    #[command(after_help = ERASE_HELP)]
    Erase {
        /// A phone number with its country code, or a user id. Repeat it for further ids of the same person.
        #[arg(long = "contact", required = true)]
        contacts: Vec<PersonId>,
        /// The earliest time of receipt in UTC.
        #[arg(long)]
        from: Option<Time>,
        /// The time of receipt in UTC before which notifications are selected.
        #[arg(long)]
        to: Option<Time>,
        /// Erase; by default only count.
        #[arg(long)]
        apply: bool,
        #[command(flatten)]
        archive: ArchiveArguments,
    },
}

/// The archive of a command.
#[derive(Debug, clap::Args)]
pub(crate) struct ArchiveArguments {
    /// Another bucket with archived notifications, such as that of an archive that was turned off; by default that of the stack.
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
}

/// The notifications that a command selects; by default all.
#[derive(Debug, clap::Args)]
pub(crate) struct SelectionArguments {
    /// The earliest time of receipt in UTC, such as 2026-01-02 or 2026-01-02T03:04.
    #[arg(long)]
    from: Option<Time>,
    /// The time of receipt in UTC before which notifications are selected.
    #[arg(long)]
    to: Option<Time>,
    /// API Gateway's id of the request: the attribute `request_id`.
    #[arg(long)]
    request_id: Option<String>,
    /// The route of a change, such as messages.statuses or '*', by the current routes.
    #[arg(long)]
    route: Option<String>,
    /// A person in a change: a phone number with its country code, or a user id. Repeat it for further ids of this person.
    #[arg(long = "contact")]
    contacts: Vec<PersonId>,
    /// The event id of a change.
    #[arg(long)]
    event_id: Option<String>,
    /// The maximum number of notifications.
    #[arg(long)]
    limit: Option<usize>,
}

impl From<SelectionArguments> for archive::selection::Selection {
    fn from(arguments: SelectionArguments) -> Self {
        let SelectionArguments { from, to, request_id, route, contacts, event_id, limit } = arguments;
        let person = (!contacts.is_empty()).then(|| contacts.into_iter().collect());
        Self { from, to, request_id, route, person, event_id, limit }
    }
}

/// Where a replay leads.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DestinationArguments {
    /// Post the original requests to the callback URL of the stack.
    #[arg(long)]
    to_endpoint: bool,
    /// Send the changes of this route, such as messages.statuses or '*', to all queues of the route.
    #[arg(long, value_name = "ROUTE", conflicts_with = "route")]
    to_queue: Option<String>,
    /// Send the selected changes, of any route, to this one queue.
    #[arg(long, value_name = "NAME|URL")]
    queue: Option<String>,
}

impl From<DestinationArguments> for archive::replay::Destination {
    fn from(DestinationArguments { to_queue, queue, .. }: DestinationArguments) -> Self {
        to_queue.map(Self::Route).or(queue.map(Self::Queue)).unwrap_or(Self::Endpoint)
    }
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
    pub(crate) stack: StackArguments,
}

/// The queue of a command.
#[derive(Debug, clap::Args)]
pub(crate) struct QueueArguments {
    /// The route or the name of the queue; by default the catch-all queue.
    #[arg(long, default_value = CATCH_ALL)]
    pub(crate) queue: String,
    /// The maximum number of messages to receive.
    #[arg(long)]
    pub(crate) max_messages: Option<usize>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
}

/// The messages that a command selects.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct FilterArguments {
    /// The field, or one kind of it, such as messages.statuses.
    #[arg(long)]
    field: Option<Field>,
    /// The value of the attribute `unrouted_reason`, such as no-route.
    #[arg(long)]
    reason: Option<String>,
}

/// The messages that a command selects; by default all.
#[derive(Debug, clap::Args)]
pub(crate) struct OptionalFilterArguments {
    /// The field, or one kind of it, such as messages.statuses.
    #[arg(long)]
    field: Option<Field>,
    /// The value of the attribute `unrouted_reason`, such as no-route.
    #[arg(long)]
    reason: Option<String>,
}

impl From<FilterArguments> for Filter {
    fn from(FilterArguments { field, reason }: FilterArguments) -> Self {
        Self { field, reason }
    }
}

impl From<OptionalFilterArguments> for Filter {
    fn from(OptionalFilterArguments { field, reason }: OptionalFilterArguments) -> Self {
        Self { field, reason }
    }
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
    /// `clear`: remove overrides of accounts and phone numbers that lead elsewhere. `set`: set the callback URL as each
    /// account's override, and remove its numbers' overrides that lead elsewhere. By default overrides are kept.
    #[arg(long, requires = "accounts")]
    pub(crate) overrides: Option<OverrideGoal>,
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
    pub(crate) stack: StackArguments,
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

/// The stack of a command, and the form of its output.
#[derive(Debug, clap::Args)]
pub(crate) struct StackArguments {
    /// The name of a deployed stack.
    #[arg(long)]
    pub(crate) stack: Option<String>,
    /// Use the local stack that runs in this folder.
    #[arg(long, conflicts_with = "stack")]
    pub(crate) local: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl StackArguments {
    /// Describes the stack that [`StackChoice::find`] chooses, with its secret.
    pub(crate) async fn info(&self) -> Result<StackInfo, StackInfoError> {
        self.info_without_secret().await?.with_secret().await
    }

    /// Describes the stack that [`StackChoice::find`] chooses.
    pub(crate) async fn info_without_secret(&self) -> Result<StackInfo, StackInfoError> {
        if self.local {
            return StackInfo::running(Path::new("."));
        }
        match StackChoice::find(Path::new("."), self.stack.as_deref())? {
            StackChoice::Local(info) => Ok(*info),
            StackChoice::Deployed(stack) => StackInfo::describe_deployed(&AwsCli::default(), &stack).await,
        }
    }

    /// Describes the stack of a callback URL: the local stack with `--local` or if the URL is its own, else the deployed
    /// stack.
    pub(crate) async fn info_of_url(&self, url: &str) -> Result<StackInfo, StackInfoError> {
        let is_local = StackInfo::running(Path::new(".")).is_ok_and(|local| local.callback_url == url);
        if is_local { self.info_without_secret().await } else { self.info_unless_local().await }
    }

    /// Describes the deployed stack. Uses the local stack only with `--local`.
    pub(crate) async fn info_unless_local(&self) -> Result<StackInfo, StackInfoError> {
        if self.local {
            return StackInfo::running(Path::new("."));
        }
        let stack = StackChoice::deployed_stack(Path::new("."), self.stack.as_deref())?;
        StackInfo::describe_deployed(&AwsCli::default(), &stack).await
    }
}
