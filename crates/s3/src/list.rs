//! `ListObjectsV2`: one page of the keys with a prefix.

use std::fmt::Write as _;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};
use aws_types::SdkConfig;
use percent_encoding::utf8_percent_encode;

use crate::request::{ESCAPED_IN_QUERY, Request, S3Error};

/// The keys to be listed.
#[derive(Debug, Clone, Copy)]
pub struct ListObjects<'o> {
    /// The name of the bucket.
    pub bucket: &'o str,
    /// The prefix of the keys.
    pub prefix: &'o str,
    /// Only keys after this one, such as the last one of the previous page. It need not exist.
    pub start_after: Option<&'o str>,
    /// The account that must own the bucket.
    pub owner: Option<&'o str>,
}

/// At most 1000 objects, in the order of the bytes of their keys.
#[derive(Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// The objects.
    pub objects: Vec<ListedObject>,
    /// Whether there are more keys after the last one.
    pub is_truncated: bool,
}

/// An object of a list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The key, not percent-encoded.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
}

impl<'o> ListObjects<'o> {
    /// Sends the request once, without a time limit.
    pub async fn send(self, aws: &SdkConfig) -> Result<ObjectPage, S3Error> {
        self.request().send(aws, "ListObjectsV2", read_page).await
    }

    pub(crate) fn request(self) -> Request<'o> {
        let Self { bucket, prefix, start_after, owner } = self;
        let mut query = format!("list-type=2&prefix={}", utf8_percent_encode(prefix, ESCAPED_IN_QUERY));
        if let Some(key) = start_after {
            // Writing to a string cannot fail.
            let _ = write!(query, "&start-after={}", utf8_percent_encode(key, ESCAPED_IN_QUERY));
        }
        Request { query, ..Request::new("GET", bucket, "", owner) }
    }
}

fn read_page(xml: &[u8]) -> Result<ObjectPage, BoxError> {
    let mut document = Document::new(std::str::from_utf8(xml)?);
    let mut root = document.root_element()?;
    let (mut objects, mut is_truncated) = (Vec::new(), None);
    while let Some(mut tag) = root.next_tag() {
        match tag.start_el().local() {
            "Contents" => objects.push(read_object(&mut tag)?),
            "IsTruncated" => is_truncated = Some(try_data(&mut tag)? == "true"),
            _ => {}
        }
    }
    // Without it, the list would seem to be complete.
    Ok(ObjectPage { objects, is_truncated: is_truncated.ok_or("the list of objects is not complete")? })
}

fn read_object(contents: &mut ScopedDecoder<'_, '_>) -> Result<ListedObject, BoxError> {
    let mut object = ListedObject::default();
    while let Some(mut tag) = contents.next_tag() {
        match tag.start_el().local() {
            "Key" => object.key = try_data(&mut tag)?.into_owned(),
            "Size" => object.size = try_data(&mut tag)?.parse()?,
            _ => {}
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_keys_are_read() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name><Prefix>a&amp;b</Prefix>
<KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>
<Contents><Key>a&amp;b/&lt;1&gt; &quot;x&apos;&#233;&#x2b;</Key><ETag>&quot;00&quot;</ETag><Size>12</Size>
<Owner><ID>1</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>a&amp;b/2=</Key><Size>4294967296</Size></Contents></ListBucketResult>"#;

        let page = read_page(xml.as_bytes()).unwrap();

        let object = |key: &str, size| ListedObject { key: key.to_owned(), size };
        assert_eq!(page.objects, [object("a&b/<1> \"x'\u{e9}+", 12), object("a&b/2=", 4_294_967_296)]);
        assert!(page.is_truncated);
    }

    #[test]
    fn empty_list_is_read() {
        let page = read_page(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>").unwrap();

        assert_eq!(page, ObjectPage { objects: Vec::new(), is_truncated: false });
    }

    #[test]
    fn incomplete_list_is_an_error() {
        for xml in [
            &b""[..],
            b"{}",
            b"\xff",
            b"<ListBucketResult></ListBucketResult>",
            b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
        ] {
            assert!(read_page(xml).is_err(), "{}", String::from_utf8_lossy(xml));
        }
    }
}
