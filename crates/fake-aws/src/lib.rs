//! Fakes SQS, Secrets Manager, S3 and Lambda's Runtime API over HTTP/1.1 on loopback, with or without TLS, and builds the
//! events of API Gateway. For tests, soak and bench.
//!
//! The function under test is the built binary. [`Function`] starts it as Lambda does. [`FakeAws`] rejects the requests that
//! AWS rejects, and injects faults of the network and the service if a test requests them.
//!
//! How a call is processed: [`FakeAws`] owns the listener; `server` accepts connections; `dispatch` finds the service, picks
//! the [`Fault`] that applies, and passes the call to `sqs`, `secrets` or `s3`; `answer` writes the result, whole or broken; and
//! `call` keeps the record that [`FakeAws::calls`] returns.
//!
//! ```no_run
//! # async fn example() {
//! use fake_aws::{FakeAws, Fault, Function, Times};
//! use std::time::Duration;
//!
//! let aws = FakeAws::start();
//! let queue = aws.queue("messages");
//! let function = Function::start("target/debug/whatsapp-ingress", &aws, [("SECRET_ID", "ingress")]);
//!
//! let injected = queue.fault(Fault::refuse_entry(0).code("InternalError"), Times::Once);
//! let invocation = function.invoke("{}", Duration::from_secs(10)).await;
//! assert_eq!(invocation.status_code(), Some(200));
//! assert_eq!((injected.fired(), queue.messages().len()), (1, 1));
//! # }
//! ```

mod answer;
mod aws;
mod call;
mod dispatch;
pub mod event;
mod failure;
mod fault;
mod function;
mod handles;
mod ids;
mod lock;
mod rules;
mod s3;
mod secrets;
mod server;
mod sqs;
mod state;
mod tls;

pub use aws::FakeAws;
pub use call::{Call, Service};
pub use fault::Fault;
pub use function::{Function, InitFailure, Invocation, Outcome};
pub use handles::{Bucket, Queue, ServiceHandle};
pub use ids::{ACCOUNT, REGION};
pub use rules::{FaultHandle, Incoming, Times};
pub use s3::Object;
pub use sqs::{Attribute, Entry, Message};
