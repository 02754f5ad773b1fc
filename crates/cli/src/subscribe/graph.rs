//! Meta's Graph API, as far as webhooks are subscribed to with it.

use std::{fmt, str::FromStr, time::Duration};

use reqwest::{Client, Method, Url, redirect::Policy};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use whatsapp_webhook::signature;

use crate::{error::root_cause, http};

/// Where Meta is, with the version of the API whose reference this was written by.
pub const GRAPH_URL: &str = "https://graph.facebook.com/v25.0";
/// What an app subscribes to for the events of its `WhatsApp` Business accounts.
pub const OBJECT: &str = "whatsapp_business_account";

/// Meta calls the challenge before it answers.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Far more pages of accounts' apps than there are apps.
const MOST_PAGES: usize = 100;

/// The id of an app or an account: digits alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Id(String);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_id.then(|| Self(text.to_owned())).ok_or("an id of Meta's is digits alone")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a call is allowed by. It is never printed, and goes in no URL.
#[derive(Clone)]
pub struct Token {
    bearer: String,
    /// Apps may ask that the owner of the app secret make the call: `appsecret_proof`.
    proof: Option<String>,
    /// What must not be told in an answer either.
    app_secret: String,
}

impl Token {
    /// The app's own, which its subscriptions need.
    #[must_use]
    pub fn of_app(app: &Id, app_secret: &str) -> Self {
        Self { bearer: format!("{app}|{app_secret}"), proof: None, app_secret: app_secret.to_owned() }
    }

    /// A system user's, which its accounts need, made for the app of this secret.
    #[must_use]
    pub fn of_user(access_token: &str, app_secret: &str) -> Self {
        let proof = signature::sign(app_secret, access_token.as_bytes()).trim_start_matches("sha256=").to_owned();
        Self { bearer: access_token.to_owned(), proof: Some(proof), app_secret: app_secret.to_owned() }
    }

    fn hide(&self, text: &str) -> String {
        let hidden = [&self.bearer, &self.app_secret].into_iter().chain(&self.proof);
        hidden.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").finish_non_exhaustive()
    }
}

/// What Meta sends for an app, and where to.
#[derive(Debug, Clone, Deserialize)]
pub struct Subscription {
    /// The kind of thing whose events are sent.
    pub object: String,
    /// Where to.
    #[serde(default)]
    pub callback_url: String,
    /// Whether they are sent at all.
    #[serde(default)]
    pub active: bool,
    /// Which of them.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// One field that is subscribed to.
#[derive(Debug, Clone, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
}

/// An app that an account's events are sent to.
#[derive(Debug, Clone, Deserialize)]
pub struct SubscribedApp {
    /// Which one.
    #[serde(rename = "whatsapp_business_api_data")]
    pub app: App,
    /// Where the events about messages go instead of the app's callback URL.
    #[serde(default)]
    pub override_callback_uri: Option<String>,
}

/// An app, as an account knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct App {
    /// Its id.
    pub id: String,
}

/// Why Meta did not do it.
#[derive(Debug, Error)]
pub enum GraphError {
    /// The URL is none.
    #[error("{0} is no URL of a Graph API")]
    Url(String),
    /// Meta is not there.
    #[error("{call}: Meta did not answer: {reason}")]
    NoAnswer {
        /// Method and path.
        call: String,
        /// The innermost cause.
        reason: String,
    },
    /// Meta says no.
    #[error("{call}: Meta refused: {message} (code {code})\n  {advice}")]
    Refused {
        /// Method and path.
        call: String,
        /// Meta's words.
        message: String,
        /// Meta's code.
        code: i64,
        /// What it means here, and what to do.
        advice: &'static str,
    },
    /// Not a Graph API answers.
    #[error("{call}: the answer ({status}) is not understood")]
    Garbled {
        /// Method and path.
        call: String,
        /// The status.
        status: u16,
    },
}

impl GraphError {
    /// Whether it is the token that Meta did not take.
    #[must_use]
    pub fn is_of_token(&self) -> bool {
        matches!(self, Self::Refused { code: 101 | 190, .. })
    }
}

/// A Graph API.
#[derive(Debug)]
pub struct Graph {
    client: Client,
    base: String,
}

impl Graph {
    /// Prepares calls to a base URL, such as [`GRAPH_URL`].
    pub fn new(base: &str) -> Result<Self, GraphError> {
        let wrong = || GraphError::Url(base.to_owned());
        let client = http::client_builder().redirect(Policy::none()).timeout(TIMEOUT).build().map_err(|_| wrong())?;
        Url::parse(base).ok().filter(|url| !url.cannot_be_a_base()).ok_or_else(wrong)?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned() })
    }

    /// What is sent for an app.
    pub async fn subscriptions(&self, app: &Id, token: &Token) -> Result<Vec<Subscription>, GraphError> {
        let page: Page<Subscription> = self.call(Method::GET, &format!("{app}/subscriptions"), token, &[]).await?;
        Ok(page.data)
    }

    /// Has exactly these fields sent to a URL, which Meta asks for its challenge first.
    pub async fn subscribe(
        &self,
        app: &Id,
        token: &Token,
        callback_url: &str,
        verify_token: &str,
        fields: &[String],
    ) -> Result<(), GraphError> {
        let members = [
            ("object", OBJECT),
            ("callback_url", callback_url),
            ("verify_token", verify_token),
            ("fields", &fields.join(",")),
            // Without it, Meta says what changed and not how.
            ("include_values", "true"),
        ];
        self.done(&format!("{app}/subscriptions"), token, &members).await
    }

    /// The apps that an account's events are sent to.
    pub async fn subscribed_apps(&self, account: &Id, token: &Token) -> Result<Vec<SubscribedApp>, GraphError> {
        let (mut apps, mut after) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let members: &[_] = if after.is_empty() { &[] } else { &[("after", after.as_str())] };
            let page: Page<SubscribedApp> =
                self.call(Method::GET, &format!("{account}/subscribed_apps"), token, members).await?;
            apps.extend(page.data);
            match page.paging {
                Some(Paging { cursors: Some(Cursors { after: Some(next) }), next: Some(_) }) => after = next,
                _ => break,
            }
        }
        Ok(apps)
    }

    /// Has an account's events sent to the token's app.
    pub async fn subscribe_account(&self, account: &Id, token: &Token) -> Result<(), GraphError> {
        self.done(&format!("{account}/subscribed_apps"), token, &[]).await
    }

    async fn done(&self, path: &str, token: &Token, members: &[(&str, &str)]) -> Result<(), GraphError> {
        let done: Done = self.call(Method::POST, path, token, members).await?;
        let call = format!("POST /{path}");
        if done.success { Ok(()) } else { Err(GraphError::Garbled { call, status: 200 }) }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        members: &[(&str, &str)],
    ) -> Result<T, GraphError> {
        let call = format!("{method} /{path}");
        let url = format!("{}/{path}", self.base);
        let proof = token.proof.as_deref().map(|proof| ("appsecret_proof", proof));
        let members = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(members.iter().copied())
            .extend_pairs(proof)
            .finish();
        let request = if method == Method::GET {
            self.client.get(if members.is_empty() { url } else { format!("{url}?{members}") })
        } else {
            self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(members)
        };
        let no_answer = |error: reqwest::Error| GraphError::NoAnswer {
            call: call.clone(),
            reason: token.hide(&root_cause(&error.without_url())),
        };
        let answer = request.bearer_auth(&token.bearer).send().await.map_err(no_answer)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(no_answer)?;
        if let Ok(Failed { error }) = serde_json::from_slice(&body) {
            let message = token.hide(&error.message);
            return Err(GraphError::Refused { advice: advice(error.code, &message), call, message, code: error.code });
        }
        serde_json::from_slice(&body).map_err(|_| GraphError::Garbled { call, status })
    }
}

/// What a code means to who subscribes, by Meta's reference of errors.
fn advice(code: i64, message: &str) -> &'static str {
    match code {
        100 if message.contains("appsecret_proof") => {
            "META_ACCESS_TOKEN is of another app than the app secret: make one for this app"
        }
        101 | 190 => {
            "the token is not valid: for the app, app id and app secret have to belong together; for an account, \
             META_ACCESS_TOKEN may have lapsed: make a new one for a system user"
        }
        10 | 200..=299 => {
            "the token lacks a permission: it needs whatsapp_business_management, and the system user needs the \
             account among its assets"
        }
        2200 => {
            "Meta asked the URL for its challenge and did not get it: `make verify` tells what is wrong; a new secret \
             or domain may need a minute"
        }
        100 => "a value is not what Meta expects: see that the ids are right, and that there is a field of each name",
        803 => "there is nothing of this id, or the token may not see it",
        4 | 17 | 32 | 613 | 80008 => "too many calls for now: wait an hour",
        1 | 2 => "Meta has a problem of its own: try again in some minutes",
        _ => "see the code in Meta's reference of Graph API errors",
    }
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    cursors: Option<Cursors>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Cursors {
    after: Option<String>,
}

#[derive(Deserialize)]
struct Done {
    success: bool,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: i64,
}
