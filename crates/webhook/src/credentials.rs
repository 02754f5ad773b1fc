//! Parses the function's secret: the verify token, the app secrets, and the key of conversation group ids.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

/// The value that the template writes in place of the app secret.
const PLACEHOLDER: &str = "REPLACE_ME";

/// The content of the function's secret.
pub struct AppCredentials {
    /// The token that Meta sends in its verification request.
    pub verify_token: String,
    /// The keys with which Meta signs notifications, at least one. There are several if several apps use the callback URL, or
    /// while an app secret is rotated.
    pub app_secrets: Vec<String>,
    /// The optional member `group_key`.
    group_key: Option<String>,
}

impl AppCredentials {
    /// Parses the secret: a JSON object with the string `verify_token`, the string or list of strings `app_secret`, and
    /// optionally the string `group_key`.
    ///
    /// # Errors
    ///
    /// If a member is missing or cannot be used. The error names the member and contains no part of the secret.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        // Deserializing into a struct could fail with an error of serde that quotes the secret.
        let secret: Map<String, Value> = serde_json::from_str(text).map_err(|_| CredentialsError::NotAnObject)?;
        let verify_token = parse_member("verify_token", secret.get("verify_token"))?;
        let app_secrets = match secret.get("app_secret") {
            Some(Value::Array(list)) if list.is_empty() => Err(member_error("app_secret", "is an empty list")),
            Some(Value::Array(list)) => list.iter().map(|value| parse_member("app_secret", Some(value))).collect(),
            value => parse_member("app_secret", value).map(|app_secret| vec![app_secret]),
        }?;
        let group_key = secret.get("group_key").map(|key| parse_member("group_key", Some(key))).transpose()?;
        Ok(Self { verify_token, app_secrets, group_key })
    }

    /// The HMAC key of conversation group ids: the member `group_key`, or else the id of the secret.
    ///
    /// The key must not change when another member is rotated, because with a new key every conversation has another group.
    #[must_use]
    pub fn group_key<'k>(&'k self, secret_id: &'k str) -> &'k str {
        self.group_key.as_deref().unwrap_or(secret_id)
    }

    /// Whether all app secrets have the form that Meta uses: 32 hexadecimal digits.
    #[must_use]
    pub fn has_usual_app_secrets(&self) -> bool {
        self.app_secrets.iter().all(|secret| secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

impl fmt::Debug for AppCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AppCredentials").finish_non_exhaustive()
    }
}

/// Why a secret cannot be used. The text contains no part of the secret.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The text is not a JSON object.
    #[error("the secret must be a JSON object with verify_token and app_secret")]
    NotAnObject,
    /// A member cannot be used.
    #[error("{member} in the secret {problem}")]
    Member {
        /// The name of the member.
        member: &'static str,
        /// The reason.
        problem: &'static str,
    },
}

fn parse_member(member: &'static str, value: Option<&Value>) -> Result<String, CredentialsError> {
    let problem = match value {
        None => "is missing",
        Some(Value::String(text)) if text.trim().is_empty() => "is empty or blank",
        Some(Value::String(text)) if text == PLACEHOLDER => "is still the placeholder REPLACE_ME",
        // The next two problems come from copying and pasting. No signature or token of Meta would match such a value.
        Some(Value::String(text)) if text.trim_matches(is_white_space) != text => "has white space around it",
        Some(Value::String(text)) if is_quoted(text) => "is in quotes",
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => "is not a string",
    };
    Err(member_error(member, problem))
}

fn is_white_space(character: char) -> bool {
    // The byte order mark and the zero-width space are invisible, but Rust does not count them as white space.
    character.is_whitespace() || matches!(character, '\u{feff}' | '\u{200b}')
}

fn is_quoted(text: &str) -> bool {
    const QUOTES: &[char] = &['"', '\'', '`', '“', '”', '„', '‘', '’', '«', '»'];
    text.starts_with(QUOTES) || text.ends_with(QUOTES)
}

const fn member_error(member: &'static str, problem: &'static str) -> CredentialsError {
    CredentialsError::Member { member, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_secret_is_a_string_or_a_list() {
        let one = AppCredentials::parse(r#"{"verify_token":"t","app_secret":"a","more":1}"#).unwrap();
        assert_eq!((one.verify_token.as_str(), one.app_secrets), ("t", vec!["a".to_owned()]));
        let list = AppCredentials::parse(r#"{"app_secret":["new","old"],"verify_token":"x y"}"#).unwrap();
        assert_eq!((list.verify_token.as_str(), list.app_secrets), ("x y", vec!["new".to_owned(), "old".to_owned()]));
    }

    #[test]
    fn error_names_the_member_that_cannot_be_used() {
        for (text, expected) in [
            ("hush", "the secret must be a JSON object with verify_token and app_secret"),
            ("\"hush\"", "the secret must be a JSON object with verify_token and app_secret"),
            (r#"{"app_secret":"hush"}"#, "verify_token in the secret is missing"),
            (r#"{"verify_token":"","app_secret":"hush"}"#, "verify_token in the secret is empty or blank"),
            (r#"{"verify_token":" \n","app_secret":"hush"}"#, "verify_token in the secret is empty or blank"),
            (r#"{"verify_token":7,"app_secret":"hush"}"#, "verify_token in the secret is not a string"),
            (r#"{"verify_token":"hush"}"#, "app_secret in the secret is missing"),
            (
                r#"{"verify_token":"hush","app_secret":"hush","group_key":" "}"#,
                "group_key in the secret is empty or blank",
            ),
            (r#"{"verify_token":"hush","app_secret":null}"#, "app_secret in the secret is not a string"),
            (r#"{"verify_token":"hush","app_secret":[]}"#, "app_secret in the secret is an empty list"),
            (r#"{"verify_token":"hush","app_secret":["hush",""]}"#, "app_secret in the secret is empty or blank"),
            (r#"{"verify_token":"hush","app_secret":["hush",["hush"]]}"#, "app_secret in the secret is not a string"),
            (r#"{"verify_token":"hush","app_secret":"hush\n"}"#, "app_secret in the secret has white space around it"),
            (r#"{"verify_token":" hush","app_secret":"hush"}"#, "verify_token in the secret has white space around it"),
            (
                r#"{"verify_token":"hush","app_secret":["hush","\u00a0hush"]}"#,
                "app_secret in the secret has white space around it",
            ),
            (r#"{"verify_token":"hush","app_secret":"\"hush\""}"#, "app_secret in the secret is in quotes"),
            (r#"{"verify_token":"'hush'","app_secret":"hush"}"#, "verify_token in the secret is in quotes"),
            (r#"{"verify_token":"hush","app_secret":"“hush”"}"#, "app_secret in the secret is in quotes"),
            (r#"{"verify_token":"hush","app_secret":"hush\""}"#, "app_secret in the secret is in quotes"),
            (
                r#"{"verify_token":"\ufeffhush","app_secret":"hush"}"#,
                "verify_token in the secret has white space around it",
            ),
            (
                r#"{"verify_token":"hush","app_secret":"REPLACE_ME"}"#,
                "app_secret in the secret is still the placeholder REPLACE_ME",
            ),
            (
                r#"{"verify_token":"REPLACE_ME","app_secret":"hush"}"#,
                "verify_token in the secret is still the placeholder REPLACE_ME",
            ),
        ] {
            assert_eq!(AppCredentials::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn group_key_survives_rotation() {
        let key = |secret: &str| AppCredentials::parse(secret).unwrap().group_key("arn").to_owned();
        assert_eq!(key(r#"{"verify_token":"t","app_secret":"a"}"#), "arn");
        assert_eq!(key(r#"{"verify_token":"new","app_secret":["b","a"]}"#), "arn");
        assert_eq!(key(r#"{"verify_token":"new","app_secret":"b","group_key":"k"}"#), "k");
    }

    #[test]
    fn usual_app_secrets_are_32_hexadecimal_digits() {
        let parse = |secrets: &str| {
            AppCredentials::parse(&format!(r#"{{"verify_token":"t","app_secret":{secrets}}}"#)).unwrap()
        };
        assert!(parse(r#""0123456789abcdef0123456789ABCDEF""#).has_usual_app_secrets());
        assert!(!parse(r#""0123456789abcdef0123456789abcdeg""#).has_usual_app_secrets());
        assert!(!parse(r#"["0123456789abcdef0123456789abcdef","x"]"#).has_usual_app_secrets());
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = AppCredentials::parse(r#"{"verify_token":"hush","app_secret":"hush"}"#).unwrap();
        assert_eq!(format!("{credentials:?}"), "AppCredentials { .. }");
    }
}
