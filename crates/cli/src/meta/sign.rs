//! The headers of a sample that depend on its body: both signatures and the length.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use whatsapp_webhook::signature;

use crate::meta::samples::{FORGER_APP_SECRET, Sample, Signer};

/// The header with the SHA-1 signature, which Meta still sends and the function never reads.
pub const LEGACY_HEADER: &str = "x-hub-signature";

/// Returns the signature headers of a sample, signed by its [`Signer`]; none for [`Signer::Nobody`].
#[must_use]
pub fn headers(sample: &Sample, app_secret: &str) -> Vec<(&'static str, String)> {
    let secret = match sample.signer() {
        Signer::Meta => app_secret,
        Signer::Forger => FORGER_APP_SECRET,
        Signer::Nobody => return Vec::new(),
    };
    vec![(LEGACY_HEADER, sign_sha1(secret, &sample.body)), (signature::HEADER, signature::sign(secret, &sample.body))]
}

/// Returns the text of the sample's event with new headers. All other bytes remain the same.
#[must_use]
pub fn sign_event(sample: &Sample, app_secret: &str) -> String {
    let length = ("content-length", sample.body.len().to_string());
    headers(sample, app_secret)
        .into_iter()
        .chain([length])
        .fold(sample.text.clone(), |text, (name, value)| replace_member(&text, name, &value))
}

/// Replaces the value of the first member with this name, which must be a string. Without such a member, returns the
/// text unchanged.
///
/// The member is never part of the body, because the body is a JSON string, in which every quote is escaped. Names and
/// values of the headers contain no character that JSON escapes.
fn replace_member(text: &str, name: &str, value: &str) -> String {
    let opening = format!("\"{name}\": \"");
    let Some((before, rest)) = text.split_once(&opening) else { return text.to_owned() };
    let Some((_, after)) = rest.split_once('"') else { return text.to_owned() };
    format!("{before}{opening}{value}\"{after}")
}

fn sign_sha1(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC accepts keys of any length");
    format!("sha1={}", hex::encode(mac.chain_update(body).finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EVENT: &str = r#"{
  "rawQueryString": "",
  "headers": {
    "content-length": "1",
    "x-hub-signature": "sha1=old",
    "x-hub-signature-256": "sha256=old"
  },
  "requestContext": { "http": { "method": "POST" } },
  "body": "\"x-hub-signature-256\": \"sha256=old\"",
  "isBase64Encoded": false
}
"#;

    fn sample(name: &str) -> Sample {
        Sample::from_text(Path::new(name), EVENT.to_owned()).unwrap()
    }

    #[test]
    fn only_the_three_headers_change() {
        let signed = sign_event(&sample("text.json"), "secret");

        // Computed with `openssl dgst -hmac secret` over the body.
        let expected = EVENT
            .replacen("\"1\"", "\"35\"", 1)
            .replacen("sha1=old", "sha1=fc0158301a2e5587e0c91c2024f0bc6033481cab", 1)
            .replacen(
                "\"sha256=old\"",
                "\"sha256=61999e76994753085efcdd0bfc8cb6d0187c38514a5d9d79a9c005a4782c953e\"",
                1,
            );
        assert_eq!(signed, expected);
    }

    #[test]
    fn forged_sample_remains_forged() {
        let forged = sample("forged.json");

        assert_eq!(sign_event(&forged, "one"), sign_event(&forged, "another"));
        assert_ne!(sign_event(&forged, "one"), sign_event(&sample("text.json"), "one"));
    }

    #[test]
    fn unsigned_sample_remains_unsigned() {
        let unsigned = EVENT.replace("    \"x-hub-signature\": \"sha1=old\",\n", "").replacen(
            ",\n    \"x-hub-signature-256\": \"sha256=old\"",
            "",
            1,
        );
        let unsigned = Sample::from_text(Path::new("unsigned.json"), unsigned).unwrap();

        assert!(!sign_event(&unsigned, "secret").contains("sha256=\""));
        assert_eq!(headers(&unsigned, "secret"), []);
    }
}
