//! The error of a command about the archive.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{printable::printable, time::Time};
use crate::{
    aws::{cli::AwsCliError, stack_info::StackInfoError},
    meta::deliver::DeliverError,
    queues::error::QueueError,
};

/// The archive cannot be used, or a call failed.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The function has no bucket for the archive.
    #[error("the archive of the stack {0} is off: the parameter ArchiveDays, if it is not 0, turns it on")]
    Off(String),
    /// The function has no bucket for large bodies.
    #[error("a message is over the SQS limit, and the function has no PAYLOAD_BUCKET")]
    NoPayloadBucket,
    /// AWS did not return a setting of the stack.
    #[error(transparent)]
    Aws(#[from] AwsCliError),
    /// The secret of the stack cannot be used, or the stack is of another template.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
    /// S3 rejects a call, or does not answer.
    #[error("cannot {action} {}: {reason}", printable(key))]
    S3 {
        /// Completes "cannot … the key".
        action: &'static str,
        /// The key or the prefix.
        key: String,
        /// The code of S3, or the cause.
        reason: String,
    },
    /// A queue rejects all messages, or does not answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The callback URL cannot be used, or does not answer.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The callback URL did not accept a notification.
    #[error("the callback URL answered {status} to {}{hint}", printable(key))]
    Status {
        /// The status.
        status: u16,
        /// The key of the notification.
        key: String,
        /// The likely cause.
        hint: &'static str,
    },
    /// The stack has no such route.
    #[error("the stack has no route {0}")]
    UnknownRoute(String),
    /// No notification can be in the selected time.
    #[error("no time is selected: --from {} is not before --to {}", from.as_str(), to.as_str())]
    EmptyTime {
        /// The earliest time.
        from: Time,
        /// The time that is too late.
        to: Time,
    },
    /// The file that remembers how far a replay got cannot be used.
    #[error("cannot {action} {}: {reason}", path.display())]
    State {
        /// Completes "cannot … the file".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// There is no folder for the file that remembers how far a replay got.
    #[error("no folder for the state of the replay: set HOME or XDG_STATE_HOME")]
    NoStateFolder,
    /// Another process runs the same replay.
    #[error("the same replay runs already: two would send each message twice")]
    Running,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// A signal ended the command.
    #[error("interrupted")]
    Interrupted,
}

impl ArchiveError {
    pub(crate) fn state<'p>(action: &'static str, path: &'p std::path::Path) -> impl Fn(io::Error) -> Self + use<'p> {
        move |error| Self::State { action, path: path.to_owned(), reason: error.to_string() }
    }
}
