//! Uploads and downloads of objects.

use crate::{CLIENT_TIMEOUT, code, config};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::primitives::ByteStream;
use fake_aws::{FakeAws, Fault, Frequency};

async fn client(aws: &FakeAws) -> Client {
    Client::from_conf(Builder::from(&config(aws, 1, CLIENT_TIMEOUT).await).force_path_style(true).build())
}

#[tokio::test]
async fn chunked_upload_is_decoded_and_keeps_content_type() {
    let aws = FakeAws::start();
    let (bucket, client) = (aws.bucket("payloads"), client(&aws).await);
    // The SDK sends a body in memory as it is, and that of a file in chunks with a checksum in the trailer.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let body = std::fs::read(path).expect("the package has a manifest");
    let in_memory = ByteStream::from(body.clone());
    let in_file = ByteStream::from_path(path).await.expect("the package has a manifest");
    for (key, stream) in [("messages/2025-01-01/known", in_memory), ("messages/a b/ü", in_file)] {
        let put = client.put_object().bucket("payloads").key(key).content_type("application/json").body(stream);
        put.send().await.expect("the bucket is there");
        let object = bucket.object(key).unwrap_or_else(|| panic!("{key} is missing: {:?}", bucket.objects().keys()));
        assert_eq!((object.body.as_ref(), object.content_type.as_deref()), (body.as_slice(), Some("application/json")));

        let download = client.get_object().bucket("payloads").key(key).send().await.expect("the object is there");
        assert_eq!(download.content_type(), Some("application/json"));
        assert_eq!(download.body.collect().await.expect("the body is complete").into_bytes(), body);
    }
    let sent: Vec<_> = aws.calls().into_iter().filter(|call| call.operation == "PutObject").collect();
    assert_eq!(sent[0].bytes, body.len());
    assert!(sent[1].bytes > body.len(), "it was sent in chunks");
}

#[tokio::test]
async fn missing_object_and_faults_have_codes_of_s3() {
    let aws = FakeAws::start();
    let (bucket, client) = (aws.bucket("payloads"), client(&aws).await);
    let missing = client.get_object().bucket("payloads").key("k").send().await;
    assert!(missing.expect_err("there is no object").into_service_error().is_no_such_key());
    let put = || client.put_object().bucket("payloads").key("k").body(ByteStream::from_static(b"b")).send();
    let cases = [
        (Fault::access_denied(), "AccessDenied", 0),
        (Fault::throttled(), "SlowDown", 0),
        (Fault::internal_error(), "InternalError", 0),
        (Fault::kms_disabled(), "KMS.DisabledException", 0),
    ];
    for (fault, expected, stored) in cases {
        aws.s3().inject_fault(fault, Frequency::Once);
        assert_eq!(code(put().await), expected);
        assert_eq!(bucket.objects().len(), stored);
    }
    aws.s3().inject_fault(Fault::commit_then_drop(), Frequency::Once);
    assert!(put().await.is_err());
    assert_eq!(bucket.objects().len(), 1);
    for fault in [Fault::commit_then_truncate(), Fault::commit_then_stall()] {
        let name = fault.name();
        aws.s3().inject_fault(fault, Frequency::Once);
        assert!(put().await.is_err(), "{name}: the response to an upload has no body to cut off");
    }
    bucket.delete();
    assert_eq!(code(put().await), "NoSuchBucket");
}
