//! What the functions are given to do.

use clap::ValueEnum;
use fake_aws::event::event;
use serde_json::Value;
use whatsapp_ingress_bench::notifications::{message, notification, of_changes, receipt};
use whatsapp_webhook::signature::sign;

/// The secret that the notifications are signed with.
pub(crate) const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The token of the verification request.
pub(crate) const VERIFY_TOKEN: &str = "the-verify-token-of-the-bench";

const CHALLENGE: &str = "1158201444";

/// The most that Meta sends, as a rounded-down number of bytes.
const LARGE: usize = 2_900_000;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    /// A process is spawned, and gets one change.
    Cold,
    /// A notification with a signature that nobody made.
    Forgery,
    /// Meta's verification request.
    Challenge,
    /// A message that someone wrote.
    One,
    /// 25 changes, most of them receipts, for two queues.
    Batch,
    /// 1000 changes in 2.9 MB.
    Thousand,
    /// One change of 2.9 MB, which SQS does not take.
    Large,
}

impl Scene {
    /// All but the first, in the order in which one process gets them: what needs the most memory last.
    pub(crate) const WARM: [Self; 6] =
        [Self::Forgery, Self::Challenge, Self::One, Self::Batch, Self::Thousand, Self::Large];

    /// Its name in results and tables.
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

    /// Messages that have to be on the queues afterwards.
    pub(crate) fn messages(self) -> usize {
        match self {
            Self::Forgery | Self::Challenge => 0,
            Self::Cold | Self::One | Self::Large => 1,
            Self::Batch => 25,
            Self::Thousand => 1000,
        }
    }

    /// Whether an answer is the right one.
    pub(crate) fn is_right(self, answer: &Value) -> bool {
        match self {
            Self::Forgery => answer["statusCode"] == 401,
            Self::Challenge => answer["statusCode"] == 200 && answer["body"] == CHALLENGE,
            _ => answer["statusCode"] == 200,
        }
    }

    /// The event that API Gateway would make of the request, as JSON text.
    pub(crate) fn event(self) -> String {
        let body = match self {
            Self::Challenge => return challenge().to_string(),
            Self::Cold | Self::Forgery | Self::One => notification(&[message(0, 60)]),
            Self::Batch => notification(
                &(0..25).map(|at| if at % 4 == 0 { message(at, 60) } else { receipt(at) }).collect::<Vec<_>>(),
            ),
            Self::Thousand => of_changes(1000, LARGE / 1000),
            Self::Large => notification(&[message(0, LARGE)]),
        };
        let secret = if self == Self::Forgery { "a-forgers-secret" } else { APP_SECRET };
        notified(&body, &sign(secret, body.as_bytes())).to_string()
    }
}

fn challenge() -> Value {
    let query = [("hub.mode", "subscribe"), ("hub.challenge", CHALLENGE), ("hub.verify_token", VERIFY_TOKEN)];
    let mut event = event("GET", &query.map(|(name, value)| format!("{name}={value}")).join("&"), &[], b"");
    event["queryStringParameters"] = query.into_iter().collect();
    event
}

fn notified(body: &str, signature: &str) -> Value {
    let length = body.len().to_string();
    event("POST", "", &[("content-length", &length), ("x-hub-signature-256", signature)], body.as_bytes())
}
