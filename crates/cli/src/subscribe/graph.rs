//! The calls to Meta's [Graph API](https://developers.facebook.com/docs/graph-api/webhooks/subscriptions-edge) that subscribe
//! to webhooks.

use std::{fmt, str::FromStr, time::Duration};

use reqwest::{Client, Method, Url, redirect::Policy};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use thiserror::Error;
use whatsapp_webhook::signature;

use crate::{error::root_cause, http};

/// The base URL, with the version of the API that this module was written for.
pub const GRAPH_URL: &str = "https://graph.facebook.com/v25.0";
/// The object of subscriptions to the events of `WhatsApp` Business accounts.
pub const OBJECT: &str = "whatsapp_business_account";

/// Long, because Meta sends the verification request before it responds.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The limit of pages of one list, in case the cursors never end.
const MAX_PAGES: usize = 100;

/// The id of an app or an account, which consists of digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Id(String);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_id.then(|| Self(text.to_owned())).ok_or("an id of Meta consists of digits")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An access token. It is never printed, and never part of a URL.
#[derive(Clone)]
pub struct Token {
    bearer: String,
    /// The `appsecret_proof`, which [an app may require](https://developers.facebook.com/docs/graph-api/guides/secure-requests).
    proof: Option<String>,
    /// The app secret, which is redacted in error messages.
    app_secret: String,
}

impl Token {
    /// Creates the token of an app, for its subscriptions.
    #[must_use]
    pub fn of_app(app: &Id, app_secret: &str) -> Self {
        Self { bearer: format!("{app}|{app_secret}"), proof: None, app_secret: app_secret.to_owned() }
    }

    /// Wraps the access token of a system user, for accounts. The app of `app_secret` must have issued it.
    #[must_use]
    pub fn of_user(access_token: &str, app_secret: &str) -> Self {
        let proof = signature::sign(app_secret, access_token.as_bytes()).trim_start_matches("sha256=").to_owned();
        Self { bearer: access_token.to_owned(), proof: Some(proof), app_secret: app_secret.to_owned() }
    }

    /// Replaces all secrets in a text.
    fn redact(&self, text: &str) -> String {
        let secrets = [&self.bearer, &self.app_secret].into_iter().chain(&self.proof);
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").finish_non_exhaustive()
    }
}

/// A subscription of an app.
#[derive(Debug, Clone, Deserialize)]
pub struct Subscription {
    /// The kind of object whose events Meta sends.
    pub object: String,
    /// The URL that Meta sends events to.
    #[serde(default)]
    pub callback_url: String,
    /// Whether Meta sends events.
    #[serde(default)]
    pub active: bool,
    /// The fields whose events Meta sends.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// A field of a subscription.
#[derive(Debug, Clone, Deserialize)]
pub struct Field {
    /// The name of the field.
    pub name: String,
}

/// An app to which Meta sends the events of an account.
#[derive(Debug, Clone, Deserialize)]
pub struct SubscribedApp {
    /// The app.
    #[serde(rename = "whatsapp_business_api_data")]
    pub app: App,
    /// The URL for events about messages, instead of the app's callback URL.
    #[serde(default)]
    pub override_callback_uri: Option<String>,
}

/// An app in a list of an account.
#[derive(Debug, Clone, Deserialize)]
pub struct App {
    /// The id of the app.
    pub id: String,
}

/// A phone number of an account.
#[derive(Debug, Clone, Deserialize)]
pub struct PhoneNumber {
    /// The id of the phone number.
    pub id: String,
    /// The callback URLs of the levels.
    #[serde(default)]
    pub webhook_configuration: WebhookConfiguration,
}

/// The callback URLs that an app has set for a phone number and above it. Meta uses the
/// [most specific one](https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/override/).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct WebhookConfiguration {
    /// The URL of the number.
    #[serde(default)]
    pub phone_number: Option<String>,
    /// The URL of the account.
    #[serde(default)]
    pub whatsapp_business_account: Option<String>,
    /// The URL of the app.
    #[serde(default)]
    pub application: Option<String>,
}

/// A callback URL and its verify token.
#[derive(Clone, Copy)]
pub struct Callback<'c> {
    /// The URL.
    pub url: &'c str,
    /// The verify token of the function.
    pub verify_token: &'c str,
}

impl fmt::Debug for Callback<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Callback").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A call to Meta that failed.
#[derive(Debug, Error)]
pub enum GraphError {
    /// The base URL is not valid.
    #[error("{0} is not a URL of a Graph API")]
    InvalidUrl(String),
    /// There was no response.
    #[error("{call}: no response from Meta: {reason}")]
    NoResponse {
        /// Method and path.
        call: String,
        /// The message of the root cause.
        reason: String,
    },
    /// Meta rejected the call.
    #[error("{call}: Meta rejected the call: {message} (code {code})\n  {advice}")]
    Rejected {
        /// Method and path.
        call: String,
        /// Meta's message.
        message: String,
        /// Meta's error code.
        code: i64,
        /// The meaning of the code, and a fix.
        advice: &'static str,
    },
    /// A list has no end.
    #[error("{call}: the list has more than {MAX_PAGES} pages")]
    TooManyPages {
        /// Method and path.
        call: String,
    },
    /// The response is not one of a Graph API.
    #[error("{call}: unexpected response (status {status})")]
    UnexpectedResponse {
        /// Method and path.
        call: String,
        /// The status of the response.
        status: u16,
    },
}

impl GraphError {
    /// Whether Meta rejected the access token.
    #[must_use]
    pub fn is_invalid_token(&self) -> bool {
        matches!(self, Self::Rejected { code: 101 | 190, .. })
    }
}

/// A client for the Graph API.
#[derive(Debug)]
pub struct Graph {
    client: Client,
    base: String,
}

impl Graph {
    /// Prepares calls to a base URL, such as [`GRAPH_URL`].
    pub fn new(base: &str) -> Result<Self, GraphError> {
        let invalid = || GraphError::InvalidUrl(base.to_owned());
        let client = http::client_builder().redirect(Policy::none()).timeout(TIMEOUT).build().map_err(|_| invalid())?;
        Url::parse(base).ok().filter(|url| !url.cannot_be_a_base()).ok_or_else(invalid)?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned() })
    }

    /// Returns the subscriptions of an app.
    pub async fn subscriptions(&self, app: &Id, token: &Token) -> Result<Vec<Subscription>, GraphError> {
        let page: Page<Subscription> = self.call(Method::GET, &format!("{app}/subscriptions"), token, &[]).await?;
        Ok(page.data)
    }

    /// Subscribes an app to exactly these fields. Meta sends the verification request to the URL first.
    pub async fn subscribe(
        &self,
        app: &Id,
        token: &Token,
        callback_url: &str,
        verify_token: &str,
        fields: &[String],
    ) -> Result<(), GraphError> {
        let parameters = [
            ("object", OBJECT),
            ("callback_url", callback_url),
            ("verify_token", verify_token),
            ("fields", &fields.join(",")),
            // Without it, Meta sends the names of the changed fields without values.
            ("include_values", "true"),
        ];
        self.post(&format!("{app}/subscriptions"), token, &parameters).await
    }

    /// Returns the apps to which Meta sends the events of an account.
    pub async fn subscribed_apps(&self, account: &Id, token: &Token) -> Result<Vec<SubscribedApp>, GraphError> {
        self.list(&format!("{account}/subscribed_apps"), token, &[]).await
    }

    /// Returns the phone numbers of an account, with the callback URLs of each level as the app of the token sees them.
    pub async fn phone_numbers(&self, account: &Id, token: &Token) -> Result<Vec<PhoneNumber>, GraphError> {
        self.list(&format!("{account}/phone_numbers"), token, &[("fields", "id,webhook_configuration")]).await
    }

    /// Sets or clears the callback URL of an account, and subscribes the app of the token to it.
    pub async fn override_account(
        &self,
        account: &Id,
        token: &Token,
        callback: Option<Callback<'_>>,
    ) -> Result<(), GraphError> {
        // Without parameters, Meta removes the override.
        let parameters = callback
            .map(|Callback { url, verify_token }| vec![("override_callback_uri", url), ("verify_token", verify_token)]);
        self.post(&format!("{account}/subscribed_apps"), token, &parameters.unwrap_or_default()).await
    }

    /// Sets or clears the callback URL of a phone number.
    pub async fn override_number(
        &self,
        number: &str,
        token: &Token,
        callback: Option<Callback<'_>>,
    ) -> Result<(), GraphError> {
        let configuration = match callback {
            Some(Callback { url, verify_token }) => {
                json!({ "override_callback_uri": url, "verify_token": verify_token })
            }
            // An empty URL removes the override.
            None => json!({ "override_callback_uri": "" }),
        };
        self.post(number, token, &[("webhook_configuration", &configuration.to_string())]).await
    }

    /// Returns the items of all pages of a list.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &Token,
        parameters: &[(&str, &str)],
    ) -> Result<Vec<T>, GraphError> {
        let (mut items, mut after) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let cursor = (!after.is_empty()).then_some(("after", after.as_str()));
            let parameters: Vec<_> = parameters.iter().copied().chain(cursor).collect();
            let page: Page<T> = self.call(Method::GET, path, token, &parameters).await?;
            items.extend(page.data);
            match page.paging {
                Some(Paging { cursors: Some(Cursors { after: Some(next) }), next: Some(_) }) => after = next,
                _ => return Ok(items),
            }
        }
        Err(GraphError::TooManyPages { call: format!("GET /{path}") })
    }

    /// Subscribes the app of the token to the events of an account.
    pub async fn subscribe_account(&self, account: &Id, token: &Token) -> Result<(), GraphError> {
        self.post(&format!("{account}/subscribed_apps"), token, &[]).await
    }

    async fn post(&self, path: &str, token: &Token, parameters: &[(&str, &str)]) -> Result<(), GraphError> {
        let response: PostResponse = self.call(Method::POST, path, token, parameters).await?;
        let call = format!("POST /{path}");
        if response.success { Ok(()) } else { Err(GraphError::UnexpectedResponse { call, status: 200 }) }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        parameters: &[(&str, &str)],
    ) -> Result<T, GraphError> {
        let call = format!("{method} /{path}");
        let url = format!("{}/{path}", self.base);
        let proof = token.proof.as_deref().map(|proof| ("appsecret_proof", proof));
        let parameters = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters.iter().copied())
            .extend_pairs(proof)
            .finish();
        let request = if method == Method::GET {
            self.client.get(if parameters.is_empty() { url } else { format!("{url}?{parameters}") })
        } else {
            self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(parameters)
        };
        let no_response = |error: reqwest::Error| GraphError::NoResponse {
            call: call.clone(),
            reason: token.redact(&root_cause(&error.without_url())),
        };
        let response = request.bearer_auth(&token.bearer).send().await.map_err(no_response)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(no_response)?;
        if let Ok(ErrorResponse { error }) = serde_json::from_slice(&body) {
            let message = token.redact(&error.message);
            return Err(GraphError::Rejected { advice: advice(error.code, &message), call, message, code: error.code });
        }
        serde_json::from_slice(&body).map_err(|_| GraphError::UnexpectedResponse { call, status })
    }
}

/// Returns the meaning of an error code and a fix, by Meta's
/// [reference of errors](https://developers.facebook.com/docs/graph-api/guides/error-handling).
fn advice(code: i64, message: &str) -> &'static str {
    match code {
        100 if message.contains("appsecret_proof") => {
            "META_ACCESS_TOKEN belongs to another app than the app secret: create one for this app"
        }
        101 | 190 => {
            "the token is not valid: for an app, app id and app secret must belong together; for an account, \
             META_ACCESS_TOKEN may have expired: create a new one for a system user"
        }
        10 | 200..=299 => {
            "the token lacks a permission: it needs whatsapp_business_management, and the account must be assigned \
             to the system user"
        }
        2200 => {
            "Meta did not receive its challenge from the URL: `make verify` shows the cause; a new secret or domain may \
             need a minute"
        }
        100 => "Meta rejects a value: check the ids and the names of the fields",
        803 => "no object has this id, or the token has no permission for it",
        4 | 17 | 32 | 613 | 80008 => "throttled: wait an hour",
        1 | 2 => "Meta has an internal error: try again in some minutes",
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
struct PostResponse {
    success: bool,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: i64,
}
