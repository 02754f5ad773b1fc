//! The function in Docker with `sam local`: in its image, with the emulator of Lambda's Runtime API.

use fake_aws::event::event;
use ingress_tools::{local::sam_local::SamLocal, meta::samples::Sample};

use crate::{TURN, root, sample, tool};

const THREE_MEGABYTES: usize = 3_000_000;

async fn sam_local() -> SamLocal {
    SamLocal::start(root(), &tool("python")).await.unwrap()
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn every_sample_has_the_expected_outcome() {
    let _turn = TURN.lock().await;
    let samples = Sample::load_all(&root().join("events")).unwrap();
    let invoked = sam_local().await.invoke_all(&samples).await.unwrap();
    assert_eq!(invoked.len(), samples.len());
    for invoked in invoked {
        assert_eq!(invoked.outcome.problems, Vec::<String>::new(), "{}\n{}", invoked.outcome.sample, invoked.log);
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn api_handles_challenge_and_largest_notification() {
    let _turn = TURN.lock().await;
    let mut sam_local = sam_local().await;
    let api = sam_local.start_api().await.unwrap();
    let text = "x".repeat(900);
    let changes: Vec<_> = (0..1000)
        .map(|at| {
            let message = format!(
                r#"{{"id":"wamid.{at}","from":"12025550101","type":"text","text":{{"body":"{}"}}}}"#,
                if at < 8 { "y".repeat(260_000) } else { text.clone() }
            );
            format!(r#"{{"field":"messages","value":{{"messages":[{message}]}}}}"#)
        })
        .collect();
    let largest =
        format!(r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{}]}}]}}"#, changes.join(","));
    assert!(
        largest.len() > THREE_MEGABYTES - 100_000 && largest.len() < THREE_MEGABYTES + 100_000,
        "{}",
        largest.len()
    );
    let signature = [("x-hub-signature-256", "")];
    for sample in [
        Sample::load(&root().join("events/challenge.json")).unwrap(),
        sample("forged", &event("POST", "", &signature, largest.as_bytes())),
        sample("unsigned", &event("POST", "", &[], largest.as_bytes())),
        sample("largest", &event("POST", "", &signature, largest.as_bytes())),
    ] {
        let outcome = sam_local.deliver(&sample, &api).await.unwrap();
        assert_eq!(outcome.problems, Vec::<String>::new(), "{}", outcome.sample);
    }
}
