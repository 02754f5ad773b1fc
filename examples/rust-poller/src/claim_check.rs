//! Bodies that are too large for SQS: the message has a pointer instead.

use aws_config::SdkConfig;
use aws_sdk_s3::{Client, config::Builder};
use serde::Deserialize;

use crate::failure::{Failure, describe};

#[derive(Deserialize)]
struct Pointer(#[allow(dead_code, reason = "the name of a Java class")] String, Object);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    s3_bucket_name: String,
    s3_key: String,
}

/// A client, also for a local stack, where a bucket's own host name does not resolve.
pub(crate) fn client(aws: &SdkConfig) -> Client {
    Client::from_conf(Builder::from(aws).force_path_style(aws.endpoint_url().is_some()).build())
}

/// The body that a pointer points to.
pub(crate) async fn body(s3: &Client, pointer: &[u8]) -> Result<Vec<u8>, Failure> {
    let Pointer(_, object) = serde_json::from_slice(pointer)?;
    let found = s3.get_object().bucket(object.s3_bucket_name).key(object.s3_key).send().await;
    let bytes = found.map_err(describe)?.body.collect().await?;
    Ok(bytes.to_vec())
}
