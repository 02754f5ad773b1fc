//! The requests that the functions process.

use clap::ValueEnum;
use fake_aws::event::event;
use serde_json::Value;
use whatsapp_ingress_bench::notifications::{message, notification, notification_of_size, receipt};
use whatsapp_webhook::signature::sign;

/// The app secret of the notifications.
pub(crate) const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The token of the verification requests.
pub(crate) const VERIFY_TOKEN: &str = "the-verify-token-of-the-bench";

const CHALLENGE: &str = "1158201444";

/// Almost the size limit of Meta, in bytes.
const LARGE_BYTES: usize = 2_900_000;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// A new process, and a notification with one message.
    Cold,
    /// A notification with a forged signature.
    Forgery,
    /// A verification request.
    Challenge,
    /// A notification with one message.
    One,
    /// 25 changes, most of them receipts, for two queues.
    Batch,
    /// 1000 changes in 2.9 MB.
    Thousand,
    /// One change of 2.9 MB, which is over the limit of SQS.
    Large,
}

impl Scenario {
    /// All but the cold start, in the order of their invocations. Those that need the most memory come last.
    pub(crate) const WARM: [Self; 6] =
        [Self::Forgery, Self::Challenge, Self::One, Self::Batch, Self::Thousand, Self::Large];

    /// Returns the name in results and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold start",
            Self::Forgery => "forgery",
            Self::Challenge => "challenge",
            Self::One => "one change",
            Self::Batch => "25 changes",
            Self::Thousand => "1000 changes, 2.9 MB",
            Self::Large => "one change, 2.9 MB",
        }
    }

    /// Returns the expected number of messages.
    pub(crate) fn message_count(self) -> usize {
        match self {
            Self::Forgery | Self::Challenge => 0,
            Self::Cold | Self::One | Self::Large => 1,
            Self::Batch => 25,
            Self::Thousand => 1000,
        }
    }

    /// Returns whether a response is the expected one.
    pub(crate) fn is_expected(self, response: &Value) -> bool {
        match self {
            Self::Forgery => response["statusCode"] == 401,
            Self::Challenge => response["statusCode"] == 200 && response["body"] == CHALLENGE,
            _ => response["statusCode"] == 200,
        }
    }

    /// Returns the event of API Gateway as JSON text.
    pub(crate) fn event(self) -> String {
        let body = match self {
            Self::Challenge => return challenge().to_string(),
            Self::Cold | Self::Forgery | Self::One => notification(&[message(0, 60)]),
            Self::Batch => notification(
                &(0..25)
                    .map(|index| if index % 4 == 0 { message(index, 60) } else { receipt(index) })
                    .collect::<Vec<_>>(),
            ),
            Self::Thousand => notification_of_size(1000, LARGE_BYTES / 1000),
            Self::Large => notification(&[message(0, LARGE_BYTES)]),
        };
        let secret = if self == Self::Forgery { "a-forgers-secret" } else { APP_SECRET };
        signed_event(&body, &sign(secret, body.as_bytes())).to_string()
    }
}

fn challenge() -> Value {
    let query = [("hub.mode", "subscribe"), ("hub.challenge", CHALLENGE), ("hub.verify_token", VERIFY_TOKEN)];
    let mut event = event("GET", &query.map(|(name, value)| format!("{name}={value}")).join("&"), &[], b"");
    event["queryStringParameters"] = query.into_iter().collect();
    event
}

fn signed_event(body: &str, signature: &str) -> Value {
    let length = body.len().to_string();
    event("POST", "", &[("content-length", &length), ("x-hub-signature-256", signature)], body.as_bytes())
}
