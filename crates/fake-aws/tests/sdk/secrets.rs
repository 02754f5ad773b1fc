//! Values of secrets, and errors in reading them.

use crate::{CLIENT_TIMEOUT, code, config};
use aws_sdk_secretsmanager::Client;
use fake_aws::{FakeAws, Fault, Frequency};

#[tokio::test]
async fn secret_is_read_by_name_and_arn() {
    let aws = FakeAws::start();
    let client = Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await);
    for text in [r#"{"app_secret":"one"}"#, r#"{"app_secret":"two"}"#] {
        aws.set_secret("ingress", text);
        for id in ["ingress", &FakeAws::secret_arn("ingress")] {
            let value = client.get_secret_value().secret_id(id).send().await.expect("the secret is there");
            assert_eq!((value.secret_string(), value.name()), (Some(text), Some("ingress")));
        }
    }
    aws.set_binary_secret("ingress", [1, 2, 3]);
    let value = client.get_secret_value().secret_id("ingress").send().await.expect("the secret is there");
    assert_eq!(value.secret_string(), None);
    assert_eq!(value.secret_binary().map(AsRef::as_ref), Some([1, 2, 3].as_slice()));
}

#[tokio::test]
async fn secret_errors_have_codes_of_secrets_manager() {
    let aws = FakeAws::start();
    let client = Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await);
    let read = || client.get_secret_value().secret_id("ingress").send();
    assert!(read().await.expect_err("the secret was never set").into_service_error().is_resource_not_found_exception());
    aws.set_secret("ingress", "text");
    aws.remove_secret("ingress");
    assert!(read().await.expect_err("the secret was removed").into_service_error().is_resource_not_found_exception());

    aws.set_secret("ingress", "text");
    let cases = [
        (Fault::access_denied(), "AccessDeniedException"),
        (Fault::throttled(), "ThrottlingException"),
        (Fault::internal_error(), "InternalServiceError"),
        (Fault::kms_disabled(), "DecryptionFailure"),
    ];
    for (fault, expected) in cases {
        aws.secrets().inject_fault(fault, Frequency::Once);
        assert_eq!(code(read().await), expected);
    }
    assert!(read().await.is_ok());
}
