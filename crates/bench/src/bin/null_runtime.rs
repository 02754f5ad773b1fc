//! A function that skips the event and returns 200. It measures the cost of `lambda_runtime` without `lambda_http`.

use std::convert::Infallible;

use lambda_http::{
    Error, LambdaEvent, aws_lambda_events::apigw::ApiGatewayV2httpResponse, lambda_runtime::Runtime, service_fn,
};
use serde::de::IgnoredAny;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let handler = service_fn(async |event: LambdaEvent<IgnoredAny>| {
        drop(event);
        let mut response = ApiGatewayV2httpResponse::default();
        response.status_code = 200;
        Ok::<_, Infallible>(response)
    });
    Runtime::new(handler).run().await
}
