//! Fakes SQS, Secrets Manager, S3 and Lambda's Runtime API over HTTP/1.1 on loopback, with or without TLS, and builds the
//! events of API Gateway. Tests and benchmarks use it.
//!
//! The function under test is the built binary. [`Function`] starts it as Lambda does. [`FakeAws`] rejects the requests that
//! AWS rejects, and injects faults of the network and the service if a test requests them.
//!
//! How a call is processed: [`FakeAws`] owns the listener; `server` accepts connections; `dispatch` determines the service,
//! selects the [`Fault`] that applies, and passes the call to `sqs`, `secrets` or `s3`; `response` sends the result or
//! a part of it; and `call` keeps the record that [`FakeAws::calls`] returns.
//!
//! ```no_run
//! # async fn example() {
//! use fake_aws::{FakeAws, Fault, Function, Frequency};
//! use std::time::Duration;
//!
//! let aws = FakeAws::start();
//! let queue = aws.queue("messages");
//! let function = Function::start("target/debug/whatsapp-ingress", &aws, [("SECRET_ID", "ingress")]);
//!
//! let handle = queue.inject_fault(Fault::reject_entry(0).code("InternalError"), Frequency::Once);
//! let invocation = function.invoke("{}", Duration::from_secs(10)).await;
//! assert_eq!(invocation.status_code(), Some(200));
//! assert_eq!((handle.fired(), queue.messages().len()), (1, 1));
//! # }
//! ```

mod aws;
mod call;
mod dispatch;
pub mod event;
mod fault;
mod function;
mod handles;
mod ids;
mod lock;
mod response;
mod rules;
mod s3;
mod secrets;
mod server;
mod service_error;
mod sqs;
mod state;
mod tls;

pub use aws::FakeAws;
pub use call::{Call, Service};
pub use fault::Fault;
pub use function::{Function, InitError, Invocation, Outcome};
pub use handles::{Bucket, Queue, ServiceHandle};
pub use ids::{ACCOUNT, REGION};
pub use rules::{FaultHandle, Frequency, IncomingCall};
pub use s3::Object;
pub use sqs::{Attribute, Entry, Message};
