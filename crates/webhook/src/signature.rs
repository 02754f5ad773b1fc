//! The proof that Meta sent a body: HMAC-SHA256 over its raw bytes, keyed with the app secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// The header that carries the signature. The older `x-hub-signature` (SHA-1) is never read.
pub const HEADER: &str = "x-hub-signature-256";

const SCHEME: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// Why a body is not taken for Meta's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The request has no signature header.
    #[error("no signature")]
    Missing,
    /// The header is not `sha256=` and 64 hex digits.
    #[error("malformed signature")]
    Malformed,
    /// No app secret that is known makes this signature of this body.
    #[error("signature of no known app secret")]
    Mismatch,
}

/// Passes a body only if one of `app_secrets` made the signature in `header` over exactly these bytes.
///
/// `body` is what came over the wire: Meta signs its own escaped JSON (`\u00e4`, `\/`), so text that was
/// parsed and written again does not match. The comparison takes the same time wherever two digests differ.
pub fn verify<'s>(
    app_secrets: impl IntoIterator<Item = &'s str>,
    body: &[u8],
    header: Option<&[u8]>,
) -> Result<(), Rejection> {
    let header = header.ok_or(Rejection::Missing)?;
    let digest = header.strip_prefix(SCHEME.as_bytes()).ok_or(Rejection::Malformed)?;
    let mut claimed = [0; DIGEST_BYTES];
    hex::decode_to_slice(digest, &mut claimed).map_err(|_| Rejection::Malformed)?;
    app_secrets
        .into_iter()
        .any(|secret| mac(secret, body).verify_slice(&claimed).is_ok())
        .then_some(())
        .ok_or(Rejection::Mismatch)
}

/// Makes the header value that Meta would send with `body`: what samples and probes are signed with.
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

    fn check(body: &[u8], header: &str) -> Result<(), Rejection> {
        verify([KEY], body, Some(header.as_bytes()))
    }

    #[test]
    fn the_published_vector_passes_in_either_case() {
        assert_eq!(check(BODY, HEADER), Ok(()));
        assert_eq!(check(BODY, &format!("sha256={}", HEADER[7..].to_uppercase())), Ok(()));
        assert_eq!(sign(KEY, BODY), HEADER);
    }

    #[test]
    fn any_of_the_known_secrets_may_have_signed() {
        let header = Some(HEADER.as_bytes());
        assert_eq!(verify(["new", KEY], BODY, header), Ok(()));
        assert_eq!(verify([KEY, "old"], BODY, header), Ok(()));
        assert_eq!(verify(["new", "old"], BODY, header), Err(Rejection::Mismatch));
        assert_eq!(verify([], BODY, header), Err(Rejection::Mismatch));
    }

    #[test]
    fn every_bit_of_the_body_and_of_the_digest_counts() {
        for at in 0..BODY.len() * 8 {
            let mut body = BODY.to_vec();
            body[at / 8] ^= 1 << (at % 8);
            assert_eq!(check(&body, HEADER), Err(Rejection::Mismatch));
        }
        for at in 7..HEADER.len() {
            let mut header = HEADER.as_bytes().to_vec();
            header[at] = if header[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(verify([KEY], BODY, Some(&header)), Err(Rejection::Mismatch));
        }
    }

    #[test]
    fn a_header_of_any_other_shape_is_malformed() {
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
            assert_eq!(check(BODY, &header), Err(Rejection::Malformed), "{header:?}");
        }
        assert_eq!(verify([KEY], BODY, Some(b"sha256=\xff\xfe")), Err(Rejection::Malformed));
        assert_eq!(verify([KEY], BODY, None), Err(Rejection::Missing));
    }
}
