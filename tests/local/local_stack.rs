//! The built function, deployed with `template.yaml` on the local AWS, from the callback URL to the queues.
//!
//! The local AWS enforces the policies of the template, so a missing permission fails here.

use crate::corpus;
use fake_aws::event::event;
use ingress_tools::{
    endpoint_secrets::EndpointSecrets,
    local::{run::LocalRun, stack::Stack},
    meta::deliver::Endpoint,
    queues::stack_queues::{ReceivedMessage, StackQueues},
};
use oracle::fragments;
use tokio::sync::MutexGuard;
use whatsapp_webhook::signature::sign;

use crate::{TURN, root, sample, tool};

struct Deployed {
    queues: StackQueues,
    endpoint: Endpoint,
    secrets: EndpointSecrets,
    stack: Stack,
    _turn: MutexGuard<'static, ()>,
}

impl Deployed {
    async fn new() -> Self {
        let turn = TURN.lock().await;
        let stack = Stack::start(root(), &tool("python")).await.unwrap();
        Self {
            queues: StackQueues::of(&stack.info),
            endpoint: Endpoint::new(&stack.info.callback_url).unwrap(),
            secrets: stack.secrets(),
            stack,
            _turn: turn,
        }
    }

    async fn deliver(&self, body: &str, secrets: &EndpointSecrets) -> u16 {
        // `Endpoint::deliver` replaces the signature.
        let unsigned = event("POST", "", &[("x-hub-signature-256", "")], body.as_bytes());
        self.endpoint.deliver(&sample("test", &unsigned), secrets).await.unwrap().status
    }

    async fn receive_all(&mut self) -> Vec<ReceivedMessage> {
        self.queues.receive_all().await.unwrap()
    }
}

#[tokio::test]
async fn every_sample_has_the_expected_outcome() {
    let _turn = TURN.lock().await;
    let local = LocalRun::deploy_and_deliver(root(), &root().join("events"), &tool("python")).await.unwrap();
    assert!(local.is_as_expected());
}

#[tokio::test]
async fn changes_of_public_payloads_are_stored_unchanged() {
    let Some(folder) = corpus::folder() else { return };
    let mut deployed = Deployed::new().await;
    let mut expected = Vec::new();
    for (name, body) in corpus::payloads(&folder) {
        assert_eq!(deployed.deliver(&body, &deployed.secrets).await, 200, "{name}");
        for fragment in fragments(body.as_bytes()) {
            let route = fragment.route(|route| deployed.queues.has_route(route));
            expected.push((
                deployed.queues.queues_of(&route).next().unwrap().to_owned(),
                String::from_utf8(fragment.bytes().to_vec()).unwrap(),
            ));
        }
    }
    let mut stored: Vec<_> =
        deployed.receive_all().await.into_iter().map(|message| (message.queue, message.body)).collect();
    assert!(expected.len() > 200);
    for message in expected {
        let index = stored.iter().position(|found| *found == message);
        stored.remove(index.unwrap_or_else(|| panic!("{message:?} is missing")));
    }
    assert_eq!(stored, []);
}

#[tokio::test]
async fn forged_notifications_are_not_stored() {
    let mut deployed = Deployed::new().await;
    let body =
        r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"security","value":{}}]}]}"#;
    let signature = sign(&deployed.secrets.app_secret, body.as_bytes());

    let altered = body.replace("security", "securitY");
    let reserialised = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(body).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy();
    let url = reqwest::Url::parse(&deployed.stack.info.callback_url).unwrap();
    let address = ([127, 0, 0, 1], url.port().unwrap()).into();
    let client = client.resolve(url.host_str().unwrap(), address).build().unwrap();
    for forged in [altered, reserialised, String::new()] {
        let post = client.post(url.clone()).header("x-hub-signature-256", &signature).body(forged.clone());
        assert_eq!(post.send().await.unwrap().status(), 401, "{forged}");
    }
    let others = EndpointSecrets { app_secret: "another".to_owned(), ..deployed.secrets.clone() };
    assert_eq!(deployed.deliver(body, &others).await, 401);
    assert_eq!(deployed.receive_all().await.len(), 0);

    let post = client.post(url).header("X-Hub-Signature-256", &signature).body(body);
    assert_eq!(post.send().await.unwrap().status(), 200);
    assert_eq!(deployed.receive_all().await.len(), 1);
}
