//! Verifies that Meta sent a body, by Meta's HMAC-SHA256 of the raw bytes with the app secret as key.
//!
//! Source: <https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads>

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// The name of the header with the signature. The older `x-hub-signature` (SHA-1) is ignored.
pub const HEADER: &str = "x-hub-signature-256";

const SCHEME: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// The reason why a body is not accepted as Meta's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The request has no signature header.
    #[error("no signature")]
    Missing,
    /// The header is not `sha256=` and 64 hex digits.
    #[error("malformed signature")]
    Malformed,
    /// The signature does not match any of the app secrets.
    #[error("signature does not match any app secret")]
    Mismatch,
}

/// Succeeds if `header` is the signature of exactly these bytes with one of the app secrets.
///
/// `body` must be the bytes as received. Meta signs its own escaped JSON (`\u00e4`, `\/`), so JSON that was parsed and
/// serialized again does not match. The comparison takes constant time.
///
/// # Errors
///
/// See [`SignatureError`].
pub fn verify<'s>(
    app_secrets: impl IntoIterator<Item = &'s str>,
    body: &[u8],
    header: Option<&[u8]>,
) -> Result<(), SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?;
    let digest = header.strip_prefix(SCHEME.as_bytes()).ok_or(SignatureError::Malformed)?;
    let mut claimed = [0; DIGEST_BYTES];
    hex::decode_to_slice(digest, &mut claimed).map_err(|_| SignatureError::Malformed)?;
    app_secrets
        .into_iter()
        .any(|secret| mac(secret, body).verify_slice(&claimed).is_ok())
        .then_some(())
        .ok_or(SignatureError::Mismatch)
}

/// Returns the header value that Meta would send with `body`. Tests and the command line sign with it.
#[must_use]
pub fn sign(app_secret: &str, body: &[u8]) -> String {
    format!("{SCHEME}{}", hex::encode(mac(app_secret, body).finalize().into_bytes()))
}

fn mac(app_secret: &str, body: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(app_secret.as_bytes()).expect("HMAC takes keys of any length").chain_update(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4231, test case 2.
    const BODY: &[u8] = b"what do ya want for nothing?";
    const KEY: &str = "Jefe";
    const HEADER: &str = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    fn check(body: &[u8], header: &str) -> Result<(), SignatureError> {
        verify([KEY], body, Some(header.as_bytes()))
    }

    #[test]
    fn published_signature_matches_in_any_letter_case() {
        assert_eq!(check(BODY, HEADER), Ok(()));
        assert_eq!(check(BODY, &format!("sha256={}", HEADER[7..].to_uppercase())), Ok(()));
        assert_eq!(sign(KEY, BODY), HEADER);
    }

    #[test]
    fn signature_of_any_app_secret_is_accepted() {
        let header = Some(HEADER.as_bytes());
        assert_eq!(verify(["new", KEY], BODY, header), Ok(()));
        assert_eq!(verify([KEY, "old"], BODY, header), Ok(()));
        assert_eq!(verify(["new", "old"], BODY, header), Err(SignatureError::Mismatch));
        assert_eq!(verify([], BODY, header), Err(SignatureError::Mismatch));
    }

    #[test]
    fn every_bit_of_body_and_digest_is_verified() {
        for at in 0..BODY.len() * 8 {
            let mut body = BODY.to_vec();
            body[at / 8] ^= 1 << (at % 8);
            assert_eq!(check(&body, HEADER), Err(SignatureError::Mismatch));
        }
        for at in 7..HEADER.len() {
            let mut header = HEADER.as_bytes().to_vec();
            header[at] = if header[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(verify([KEY], BODY, Some(&header)), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn other_forms_of_the_header_are_malformed() {
        let digest = &HEADER[7..];
        for header in [
            String::new(),
            "sha256=".into(),
            digest.into(),
            format!("sha1={digest}"),
            format!("SHA256={digest}"),
            format!(" sha256={digest}"),
            format!("sha256= {digest}"),
            format!("sha256={digest} "),
            format!("sha256={}", &digest[1..]),
            format!("sha256={digest}00"),
            format!("sha256={}", digest.replace('5', "g")),
            format!("{HEADER},{HEADER}"),
            format!("sha256={}é", &digest[2..]),
        ] {
            assert_eq!(check(BODY, &header), Err(SignatureError::Malformed), "{header:?}");
        }
        assert_eq!(verify([KEY], BODY, Some(b"sha256=\xff\xfe")), Err(SignatureError::Malformed));
        assert_eq!(verify([KEY], BODY, None), Err(SignatureError::Missing));
    }
}
