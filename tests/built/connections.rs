//! Connections that break, or that died while the sandbox was frozen.

use std::time::Duration;

use fake_aws::{Fault, Times};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    notification::Notification,
    stored::Copy::{Own, Unrouted},
    webhook::{LAMBDA_TIMEOUT, Webhook},
};

#[tokio::test]
async fn connections_that_died_while_the_sandbox_was_frozen_cost_nothing() {
    let webhook = Webhook::start();
    let many = Notification::of(&["messages", "security", "calls", "messages.statuses"].repeat(60));
    let one = Notification::of(&["messages"]);
    for freeze in [false, true] {
        webhook.aws.sqs().set_latency(Duration::from_millis(20));
        assert_eq!(webhook.deliver(&many.body).await.status, 200);
        assert!(webhook.aws.open_connections() > 4);
        if freeze {
            webhook.function.freeze();
        }
        webhook.reset();
        webhook.aws.close_idle_connections();
        while freeze && webhook.aws.open_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        webhook.function.thaw();
        assert_eq!(webhook.deliver(&one.body).await.status, 200);
        assert_eq!(webhook.copies(&one), [[Own]]);
        webhook.reset();
    }
}

#[tokio::test]
async fn connections_that_died_without_a_word_cost_no_message() {
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(20));
    let many = Notification::of(&["messages", "security", "messages.statuses"].repeat(20));
    assert_eq!(webhook.deliver(&many.body).await.status, 200);
    webhook.reset();
    let dead = webhook.aws.accepted_connections();
    assert!(dead > 3);
    webhook.aws.sqs().fault(Fault::hang(), Times::when(move |call| call.connection <= dead));
    let one = Notification::of(&["messages"]);
    // Each attempt finds out about one of them; Meta may have to come again.
    let mut deliveries = 1;
    while webhook.deliver_within(&one.body, Duration::from_secs(4)).await.status == 503 {
        assert_eq!(webhook.stored().len(), 0);
        deliveries += 1;
    }
    assert_eq!(webhook.copies(&one)[0].len(), 1);
    assert!(deliveries <= 5, "{deliveries}");
}

#[tokio::test]
async fn a_connection_that_closes_before_the_call_is_read_costs_one_more_call() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "calls", "security"]);
    for times in [1, 3] {
        webhook.reset();
        webhook.aws.sqs().fault(Fault::drop_unread(), Times::Next(times));
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.copies(&sent), [[Own], [Unrouted], [Own]]);
    }
    // A body that is larger than what the network holds breaks while it is written.
    let large = Notification::new((0..12).map(|at| ("messages", format!(r#"["{}",{at}]"#, "x".repeat(90_000)))));
    webhook.reset();
    webhook.aws.sqs().fault(Fault::drop_unread(), Times::Next(2));
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(webhook.copies(&large), vec![vec![Own]; 12]);
}

#[tokio::test]
async fn a_service_that_closes_every_connection_unread_is_answered_with_503_in_time() {
    let webhook = Webhook::start();
    webhook.aws.sqs().fault(Fault::drop_unread(), Times::Always);
    let sent = Notification::of(&["messages", "calls"]);
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(4)).await.status, 503);
    assert_eq!(webhook.copies(&sent), [[], []]);
}

/// A host that drops every packet answers not even with a refusal.
#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_after_a_second() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Nobody accepts, and once the queue of those who wait is full, the system drops what comes.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let webhook = Webhook::with(&[("AWS_ENDPOINT_URL_SQS", &format!("http://{address}"))]);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 503);
    // Sooner than a call that is not answered.
    let line = webhook.function.log_line("queue failed", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("connect timeout occurred after 1s"), "{line}");
}
