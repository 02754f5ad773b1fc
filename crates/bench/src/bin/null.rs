//! A function that does nothing. It measures the cost of `lambda_http` and the Runtime API.

use std::convert::Infallible;

use lambda_http::{Body, Error, Request, Response, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::run(service_fn(|_: Request| async { Ok::<_, Infallible>(Response::new(Body::Empty)) })).await
}
