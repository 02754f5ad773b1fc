//! The states of KMS keys.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::cli::AwsCli;

/// The state of a key that can encrypt.
pub(crate) const ENABLED: &str = "Enabled";

/// Returns the state of each key, such as [`ENABLED`] or `PendingDeletion`, or the reason why it is unknown.
pub(crate) async fn key_states(
    aws: &AwsCli,
    region: &str,
    keys: BTreeSet<String>,
) -> BTreeMap<String, Result<String, String>> {
    let states = keys.into_iter().map(async |key| {
        let call = ["kms", "describe-key", "--key-id", &key];
        let state = aws.call(region, &call, "KeyMetadata.KeyState").await.map_err(|error| error.to_string());
        (key, state)
    });
    join_all(states).await.into_iter().collect()
}
