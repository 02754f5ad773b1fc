//! Connections that fail, also while the execution environment is frozen.

use std::time::Duration;

use fake_aws::{Fault, Frequency};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    notification::Notification,
    stored::Placement::{Own, Unrouted},
    webhook::{LAMBDA_TIMEOUT, Webhook},
};

#[tokio::test]
async fn dead_connections_after_a_freeze_cost_nothing() {
    let webhook = Webhook::start();
    let large_batch = Notification::of(&["messages", "security", "calls", "messages.statuses"].repeat(60));
    let one = Notification::of(&["messages"]);
    for freeze in [false, true] {
        webhook.aws.sqs().set_latency(Duration::from_millis(20));
        assert_eq!(webhook.deliver(&large_batch.body).await.status, 200);
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
async fn silently_dead_connections_cost_no_message() {
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(20));
    let large_batch = Notification::of(&["messages", "security", "messages.statuses"].repeat(20));
    assert_eq!(webhook.deliver(&large_batch.body).await.status, 200);
    webhook.reset();
    let dead = webhook.aws.accepted_connections();
    assert!(dead > 3);
    webhook.aws.sqs().inject_fault(Fault::hang(), Frequency::when(move |call| call.connection <= dead));
    let one = Notification::of(&["messages"]);
    // Each attempt detects one dead connection, so Meta may have to redeliver.
    let mut deliveries = 1;
    while webhook.deliver_within(&one.body, Duration::from_secs(4)).await.status == 503 {
        assert_eq!(webhook.stored_messages().len(), 0);
        deliveries += 1;
    }
    assert_eq!(webhook.copies(&one)[0].len(), 1);
    assert!(deliveries <= 5, "{deliveries}");
}

#[tokio::test]
async fn call_on_a_closed_connection_is_retried() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "calls", "security"]);
    for count in [1, 3] {
        webhook.reset();
        webhook.aws.sqs().inject_fault(Fault::drop_unread(), Frequency::Next(count));
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.copies(&sent), [[Own], [Unrouted], [Own]]);
    }
    // The connection closes while a body is sent that is larger than the socket buffers.
    let large = Notification::new((0..12).map(|index| ("messages", format!(r#"["{}",{index}]"#, "x".repeat(90_000)))));
    webhook.reset();
    webhook.aws.sqs().inject_fault(Fault::drop_unread(), Frequency::Next(2));
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(webhook.copies(&large), vec![vec![Own]; 12]);
}

#[tokio::test]
async fn sqs_that_closes_every_connection_leads_to_503() {
    let webhook = Webhook::start();
    webhook.aws.sqs().inject_fault(Fault::drop_unread(), Frequency::Always);
    let sent = Notification::of(&["messages", "calls"]);
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(4)).await.status, 503);
    assert_eq!(webhook.copies(&sent), [[], []]);
}

/// A host that drops every packet does not even refuse the connection.
#[tokio::test]
async fn connect_timeout_is_one_second() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Nothing accepts the connections. Once the backlog is full, the system drops further packets.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut backlog = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        backlog.push(stream);
    }
    let webhook = Webhook::with_variables(&[("AWS_ENDPOINT_URL_SQS", &format!("http://{address}"))]);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 503);
    // The connect timeout is shorter than the timeout of a call.
    let line = webhook.function.wait_for_log_line("queue did not store messages", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("connect timeout occurred after 1s"), "{line}");
}
