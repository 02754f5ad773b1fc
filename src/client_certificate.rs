//! Reads the common name in the distinguished name of a client certificate.
//!
//! Access depends on the common name. A distinguished name that cannot be parsed therefore counts as one without a common name.

/// Whether a distinguished name has this common name and no other.
///
/// The distinguished name has the string form of [RFC 4514](https://www.rfc-editor.org/rfc/rfc4514) or of OpenSSL. OpenSSL puts
/// spaces around `=` and `,` and may quote values: `O = "Meta Platforms, Inc.", CN = example`. `CN=` inside the value of
/// another attribute does not count.
#[must_use]
pub fn has_common_name(distinguished_name: &str, common_name: &str) -> bool {
    let Some(attributes) = parse(distinguished_name.as_bytes()) else { return false };
    let mut found =
        attributes.into_iter().filter(|(attribute_type, _)| is_common_name(attribute_type)).map(|(_, value)| value);
    found.next().is_some_and(|value| value == common_name.as_bytes()) && found.next().is_none()
}

fn is_common_name(attribute_type: &[u8]) -> bool {
    [&b"CN"[..], b"commonName", b"2.5.4.3", b"OID.2.5.4.3"].iter().any(|name| name.eq_ignore_ascii_case(attribute_type))
}

/// The attributes of a distinguished name, as type and value. `None` if it is malformed.
fn parse(mut rest: &[u8]) -> Option<Vec<(&[u8], Vec<u8>)>> {
    let mut attributes = Vec::new();
    loop {
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let attribute_type = skip_spaces(&rest[..equals]);
        let attribute_type = attribute_type.strip_suffix(b" ").unwrap_or(attribute_type);
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if attribute_type.is_empty() || !attribute_type.iter().all(is_allowed) {
            return None;
        }
        let after = skip_spaces(&rest[equals + 1..]);
        let (value, after) = after.strip_prefix(b"\"").map_or_else(|| parse_plain(after), parse_quoted)?;
        attributes.push((attribute_type, value));
        match after.split_first() {
            None => return Some(attributes),
            Some((b',' | b'+', after)) => rest = after,
            Some(_) => return None,
        }
    }
}

/// Skips spaces. Other white space is a part of the value.
fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

/// Parses a value up to the next separator, without the spaces after it. Returns the value and the rest of the text.
fn parse_plain(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut value, mut trimmed_length) = (Vec::new(), 0);
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b',' | b'+' => break,
            b'\\' => {
                let (byte, after) = parse_escape(after)?;
                value.push(byte);
                trimmed_length = value.len();
                rest = after;
                continue;
            }
            // RFC 4514 allows these characters only in an escaped form.
            b'"' | b';' | b'<' | b'>' | 0 => return None,
            b' ' => value.push(b' '),
            byte => {
                value.push(*byte);
                trimmed_length = value.len();
            }
        }
        rest = after;
    }
    value.truncate(trimmed_length);
    Some((value, rest))
}

/// Parses a value up to the closing quote. Returns the value and the rest of the text.
fn parse_quoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((value, skip_spaces(rest))),
            b'\\' => {
                let (byte, after) = parse_escape(rest)?;
                value.push(byte);
                rest = after;
            }
            byte => value.push(*byte),
        }
    }
}

/// Parses the text after a backslash: two hexadecimal digits, or a character that stands for itself. Returns the byte and the
/// rest of the text.
fn parse_escape(rest: &[u8]) -> Option<(u8, &[u8])> {
    if let Some(digits) = rest.first_chunk::<2>()
        && let Ok([byte]) = hex::decode(digits).as_deref()
    {
        return Some((*byte, &rest[2..]));
    }
    let (byte, rest) = rest.split_first()?;
    (byte.is_ascii_punctuation() || *byte == b' ').then_some((*byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "client.webhooks.fbclientcerts.com";

    fn is_meta(name: &str) -> bool {
        has_common_name(&name.replace("{}", META), META)
    }

    #[test]
    fn names_of_rfc_4514_and_openssl_are_read() {
        for name in [
            "CN={}",
            "cn={},O=Meta",
            "C=US, ST=California, O=Meta, CN={}",
            "C = US, ST = California, O = Meta, CN = {}",
            r"CN={},O=Meta Platforms\, Inc.,L=Menlo Park,ST=California,C=US",
            r"C=US,O=Meta Platforms\2C Inc.,CN={}",
            r#"C = US, O = "Meta Platforms, Inc.", CN = {}"#,
            r#"CN="{}", O="say \"CN=x\" + more; <b>""#,
            "O=Meta+CN={}",
            r"2.5.4.3={},O=a\=b\;c\ ",
            r"O=M\C3\BCller,CN={}",
            "commonName={}",
            "O=,CN={}",
        ] {
            assert!(is_meta(name), "{name}");
        }
    }

    #[test]
    fn common_name_must_be_the_only_one() {
        for name in
            ["CN=a,CN={}", "CN={},CN={}", "CN={}+cn=a", "2.5.4.3=a,CN={}", r#"CN="a",CN={}"#, "OID.2.5.4.3=a, CN={}"]
        {
            assert!(!is_meta(name), "{name}");
        }
    }

    #[test]
    fn common_name_inside_another_value_is_rejected() {
        for name in [
            r"O=a\,CN={}",
            r#"O="a,CN={}""#,
            r"O=a\2cCN={}",
            r#"O="a\",CN={}"#,
            r"O=a\\\,CN={}",
            "O=CN={}",
            "O=a;CN={}",
            "/C=US/O=a/CN={}",
            "O=a/CN={}",
        ] {
            assert!(!is_meta(name), "{name}");
        }
    }

    #[test]
    fn other_and_malformed_names_are_rejected() {
        for name in [
            "",
            "CN=",
            "{}",
            "CN={}.example",
            "CN=x{}",
            "CN={}x",
            r"CN={}\ ",
            r"CN={}\00",
            "CN={}\0",
            "O={}",
            "CN={},",
            "CN={},O",
            "CN={},=a",
            r"CN={}\",
            r#"CN="{}"#,
            r#"CN="{}"x"#,
            "X CN={}",
            "#CN={}",
            "CN=#0c0161",
            "CN={}\n",
            "CN=\t{}",
            "CN=\n{}",
            "CN\t={}",
        ] {
            assert!(!is_meta(name), "{name:?}");
        }
    }
}
