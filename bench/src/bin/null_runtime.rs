//! A function that reads the event as this project's does and answers 200: the floor without `lambda_http`.

use std::convert::Infallible;

use lambda_http::{
    Error, LambdaEvent, aws_lambda_events::apigw::ApiGatewayV2httpResponse, lambda_runtime::Runtime, service_fn,
};
use whatsapp_ingress::event::Event;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let handler = service_fn(async |event: LambdaEvent<Event>| {
        drop(event);
        let mut response = ApiGatewayV2httpResponse::default();
        response.status_code = 200;
        Ok::<_, Infallible>(response)
    });
    Runtime::new(handler).run().await
}
