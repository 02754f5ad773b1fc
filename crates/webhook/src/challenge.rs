//! Answers Meta's verification request, a GET by which Meta checks that the callback URL belongs to the app.
//!
//! Source: <https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests>

use std::borrow::Cow;

use subtle::ConstantTimeEq;
use thiserror::Error;

/// The reason why a request does not get its challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChallengeError {
    /// The mode is not `subscribe`, or the token is missing or empty.
    #[error("not a verification request")]
    NotAVerificationRequest,
    /// The token in the request is not the verify token.
    #[error("wrong verify token")]
    WrongToken,
    /// Mode and token are right, but the challenge is missing or empty.
    #[error("no challenge")]
    NoChallenge,
}

/// Returns the decoded challenge of a verification request if the mode is `subscribe` and the token is right.
///
/// `query` is the raw query string. Of a repeated parameter only the first value counts. The challenge is opaque text, because
/// Meta's pages call it an integer in one place and a random string in another.
///
/// # Errors
///
/// See [`ChallengeError`]. An empty token is an error even if `verify_token` is empty.
pub fn answer<'q>(query: &'q str, verify_token: &str) -> Result<Cow<'q, str>, ChallengeError> {
    let (mut mode, mut token, mut challenge) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let parameter = match &*name {
            "hub.mode" => &mut mode,
            "hub.verify_token" => &mut token,
            "hub.challenge" => &mut challenge,
            _ => continue,
        };
        parameter.get_or_insert(value);
    }
    let token = token.unwrap_or_default();
    if mode.as_deref() != Some("subscribe") || token.is_empty() {
        return Err(ChallengeError::NotAVerificationRequest);
    }
    if !bool::from(token.as_bytes().ct_eq(verify_token.as_bytes())) {
        return Err(ChallengeError::WrongToken);
    }
    challenge.filter(|challenge| !challenge.is_empty()).ok_or(ChallengeError::NoChallenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_is_decoded_and_returned() {
        for (query, challenge) in [
            ("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=t", "1158201444"),
            ("hub.verify_token=t&hub.challenge=01%2B%3Cb%3E%22+%C3%A4&hub.mode=subscribe", "01+<b>\" ä"),
            ("hub%2Emode=subscribe&hub.challenge=1&hub.challenge=2&hub.verify_token=t&x=y", "1"),
        ] {
            assert_eq!(answer(query, "t").as_deref(), Ok(challenge), "{query}");
        }
    }

    #[test]
    fn wrong_token_is_rejected() {
        for token in ["T", "tt", "t%20", "x&hub.verify_token=t"] {
            let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
            assert_eq!(answer(&query, "t"), Err(ChallengeError::WrongToken), "{token}");
        }
    }

    #[test]
    fn missing_token_or_wrong_mode_is_rejected() {
        for query in [
            "",
            "hub.challenge=1",
            "hub.mode=subscribe&hub.challenge=1",
            "hub.mode=subscribe&hub.challenge=1&hub.verify_token=",
            "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=t",
            "hub.mode=&hub.challenge=1&hub.verify_token=t",
            "hub.challenge=1&hub.verify_token=t",
            "hub_mode=subscribe&hub_challenge=1&hub_verify_token=t",
        ] {
            assert_eq!(answer(query, "t"), Err(ChallengeError::NotAVerificationRequest), "{query}");
        }
        assert_eq!(
            answer("hub.mode=subscribe&hub.challenge=1&hub.verify_token=", ""),
            Err(ChallengeError::NotAVerificationRequest)
        );
    }

    #[test]
    fn missing_or_empty_challenge_is_rejected() {
        for query in ["hub.mode=subscribe&hub.verify_token=t", "hub.mode=subscribe&hub.verify_token=t&hub.challenge="] {
            assert_eq!(answer(query, "t"), Err(ChallengeError::NoChallenge), "{query}");
        }
    }
}
