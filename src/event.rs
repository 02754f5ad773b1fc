//! The Lambda event of an API Gateway HTTP API, payload format 2.0, reduced to the members that the function needs.
//!
//! The types of `lambda_http` build a URL and a request from host, path, query and all headers, and fail if one of them is
//! unusual. The failed invocation would be a 500 for Meta. This module therefore reads few members, skips the rest without
//! interpreting it, and never fails. Any other event becomes [`Event::Unsupported`].
//!
//! At invalid JSON this module stops reading and returns `Unsupported`. `lambda_runtime` accepts that, because it does not
//! check that all of the input was read.
//!
//! Format: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use whatsapp_webhook::signature;

/// A Lambda event.
#[derive(Debug)]
pub enum Event {
    /// An HTTP request.
    Request(HttpRequest),
    /// Not a request of an HTTP API, or not valid JSON.
    Unsupported,
}

/// An HTTP request.
#[derive(Default)]
pub struct HttpRequest {
    /// The method as sent.
    pub method: String,
    /// The raw query string, still percent-encoded.
    pub query: String,
    /// The value of the signature header.
    pub signature: Option<String>,
    /// The body, decoded from base64 if the event marks it as such. `None` if the base64 is invalid.
    pub body: Option<Vec<u8>>,
    /// API Gateway's id of the request.
    pub request_id: Option<String>,
    /// The distinguished name in the caller's client certificate.
    pub client_subject: Option<String>,
}

/// Prints no member, because the log must not contain data of a caller.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpRequest").finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(event: D) -> Result<Self, D::Error> {
        let mut members = Members::default();
        // Not returned, because an error would be a failed invocation.
        let result = ObjectReader { object: Object::Event, members: &mut members }.deserialize(event);
        let request = result.ok().and_then(|()| members.into_request());
        Ok(request.map_or(Self::Unsupported, Self::Request))
    }
}

/// The members of an event that are needed.
#[derive(Default)]
struct Members {
    method: Option<String>,
    query: Option<String>,
    signature: Option<String>,
    body: Option<Vec<u8>>,
    is_base64: bool,
    request_id: Option<String>,
    client_subject: Option<String>,
}

impl Members {
    fn into_request(self) -> Option<HttpRequest> {
        let body = self.body.unwrap_or_default();
        Some(HttpRequest {
            method: self.method?,
            query: self.query.unwrap_or_default(),
            signature: self.signature,
            body: if self.is_base64 { BASE64.decode(body).ok() } else { Some(body) },
            request_id: self.request_id,
            client_subject: self.client_subject,
        })
    }
}

/// An object of the event.
#[derive(Clone, Copy)]
enum Object {
    Event,
    Headers,
    RequestContext,
    Http,
    Authentication,
    ClientCertificate,
}

/// Reads the needed members of one object and skips the rest. Skips a value that is not an object.
struct ObjectReader<'m> {
    object: Object,
    members: &'m mut Members,
}

impl<'de> DeserializeSeed<'de> for ObjectReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let members = self.members;
        while let Some(Bytes(name)) = object.next_key()? {
            let inner = match (self.object, name.as_slice()) {
                (Object::Event, b"headers") => Object::Headers,
                (Object::Event, b"requestContext") => Object::RequestContext,
                (Object::RequestContext, b"http") => Object::Http,
                (Object::RequestContext, b"authentication") => Object::Authentication,
                (Object::Authentication, b"clientCert") => Object::ClientCertificate,
                (Object::Event, b"body") => {
                    members.body = object.next_value::<Option<Bytes>>()?.map(|Bytes(body)| body);
                    continue;
                }
                (Object::Event, b"isBase64Encoded") => {
                    members.is_base64 = object.next_value::<Box<RawValue>>()?.get() == "true";
                    continue;
                }
                (parent, name) => {
                    match members.text_of_member(parent, name) {
                        Some(text) => *text = string_text(&object.next_value::<Box<RawValue>>()?),
                        None => drop(object.next_value::<IgnoredAny>()?),
                    }
                    continue;
                }
            };
            object.next_value_seed(ObjectReader { object: inner, members })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

impl Members {
    /// The place for the text of a member. `None` if the member is not needed.
    fn text_of_member(&mut self, object: Object, name: &[u8]) -> Option<&mut Option<String>> {
        match (object, name) {
            (Object::Event, b"rawQueryString") => Some(&mut self.query),
            (Object::RequestContext, b"requestId") => Some(&mut self.request_id),
            (Object::Http, b"method") => Some(&mut self.method),
            (Object::ClientCertificate, b"subjectDN") => Some(&mut self.client_subject),
            // The first header whose value is a string counts.
            (Object::Headers, name) if name.eq_ignore_ascii_case(signature::HEADER.as_bytes()) => {
                Some(&mut self.signature).filter(|signature| signature.is_none())
            }
            _ => None,
        }
    }
}

/// The bytes of a JSON string, which need not be valid Unicode.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl Visitor<'_> for BytesVisitor {
            type Value = Vec<u8>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        value.deserialize_bytes(BytesVisitor).map(Self)
    }
}

/// The text of a JSON string, with U+FFFD in place of bytes that are not Unicode. `None` for any other type.
fn string_text(json: &RawValue) -> Option<String> {
    let Bytes(bytes) = serde_json::from_str(json.get()).ok()?;
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &[u8]) -> Option<HttpRequest> {
        match serde_json::from_slice(event).unwrap_or(Event::Unsupported) {
            Event::Request(request) => Some(request),
            Event::Unsupported => None,
        }
    }

    const CONTEXT: &str = r#""requestContext":{"http":{"method":"POST"}}"#;

    #[test]
    fn needed_members_are_read() {
        let request = read(
            br#"{"version":"2.0","rawPath":"/webhook","rawQueryString":"a=1&b=%20","headers":{"accept":"*/*","X-Hub-Signature-256":"sha256=1"},
            "requestContext":{"requestId":"id","http":{"method":"POST","path":"/"},"authentication":{"clientCert":{"subjectDN":"CN=a"}}},
            "body":"a \"b\" \u00e4","isBase64Encoded":false}"#,
        );
        let request = request.unwrap();
        assert_eq!((request.method.as_str(), request.query.as_str()), ("POST", "a=1&b=%20"));
        assert_eq!(request.signature.as_deref(), Some("sha256=1"));
        assert_eq!((request.request_id.as_deref(), request.client_subject.as_deref()), (Some("id"), Some("CN=a")));
        assert_eq!(request.body.as_deref(), Some("a \"b\" ä".as_bytes()));
    }

    #[test]
    fn base64_body_is_decoded_for_any_member_order() {
        let body = |members: &str| read(format!("{{{members},{CONTEXT}}}").as_bytes()).unwrap().body;
        assert_eq!(body(r#""isBase64Encoded":true,"body":"\/\/4=""#), Some(b"\xff\xfe".to_vec()));
        assert_eq!(body(r#""body":"//4=","isBase64Encoded":true"#), Some(b"\xff\xfe".to_vec()));
        assert_eq!(body(r#""body":"//4=","isBase64Encoded":false"#), Some(b"//4=".to_vec()));
        assert_eq!(body(r#""body":"//4","isBase64Encoded":true"#), None);
        assert_eq!(body(r#""body":null,"isBase64Encoded":true"#), Some(Vec::new()));
    }

    #[test]
    fn bytes_that_are_not_unicode_are_skipped_or_kept() {
        for invalid in [&b"\xff"[..], b"\\ud800"] {
            let event =
                [b"{\"a", invalid, b"\":\"", invalid, b"\",\"headers\":{\"", invalid, b"\":\"\"},\"body\":\"x\","];
            let event = [&event.concat(), CONTEXT.as_bytes(), b"}"].concat();
            assert_eq!(read(&event).unwrap().body.unwrap(), b"x");
        }
        let event = [b"{\"body\":\"\xff\",", CONTEXT.as_bytes(), b"}"].concat();
        assert_eq!(read(&event).unwrap().body.unwrap(), b"\xff");
    }

    #[test]
    fn first_signature_header_with_a_string_counts() {
        let headers = r#"{"X-HUB-signature-256":null,"x-hub-signature-256":"a","x-Hub-Signature-256":"b"}"#;
        let request = read(format!(r#"{{"headers":{headers},{CONTEXT}}}"#).as_bytes()).unwrap();
        assert_eq!(request.signature.as_deref(), Some("a"));
    }

    #[test]
    fn debug_output_has_no_data_of_a_request() {
        let request = HttpRequest { query: "hush".to_owned(), ..HttpRequest::default() };
        assert!(!format!("{:?}", Event::Request(request)).contains("hush"));
    }
}
