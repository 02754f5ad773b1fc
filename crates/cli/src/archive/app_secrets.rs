//! All app secrets that may have signed an archived notification.

use super::error::ArchiveError;
use crate::{
    aws::{cli::AwsCli, stack_info::StackInfo},
    endpoint_secrets::variable,
};
use whatsapp_webhook::{credentials::AppCredentials, signature};

/// The app secrets of a stack, now and before.
#[derive(Clone)]
pub struct AppSecrets {
    /// Those that the function accepts now. Never empty.
    current: Vec<String>,
    /// Those of older versions of the secret, and that of the variable `APP_SECRET`.
    older: Vec<String>,
}

/// The app secret that a signature was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    /// One that the function accepts now.
    Current,
    /// One that the function no longer accepts.
    Older,
}

impl AppSecrets {
    /// Reads all versions of the stack's secret that Secrets Manager still has.
    ///
    /// An old version that cannot be read or used is skipped: a notification that only its secret signed does not verify.
    pub async fn of(stack: &StackInfo, aws: &AwsCli) -> Result<Self, ArchiveError> {
        let current = stack.credentials()?.app_secrets;
        let mut older: Vec<String> = variable("APP_SECRET").into_iter().collect();
        let secret = stack.output("SecretArn")?;
        let call = ["secretsmanager", "list-secret-version-ids", "--secret-id", secret, "--include-deprecated"];
        let versions: Option<Vec<String>> = aws.call(&stack.region, &call, "Versions[].VersionId").await?;
        for version in versions.unwrap_or_default() {
            let call = ["secretsmanager", "get-secret-value", "--secret-id", secret, "--version-id", &version];
            let Ok(Some(text)) = aws.call::<Option<String>>(&stack.region, &call, "SecretString").await else {
                continue;
            };
            older.extend(AppCredentials::parse(&text).into_iter().flat_map(|credentials| credentials.app_secrets));
        }
        Ok(Self::new(current, older))
    }

    /// Takes the app secrets that the function accepts now, and older ones.
    #[must_use]
    pub fn new(current: Vec<String>, older: Vec<String>) -> Self {
        let mut distinct = Vec::new();
        for secret in older {
            if !current.contains(&secret) && !distinct.contains(&secret) {
                distinct.push(secret);
            }
        }
        Self { current, older: distinct }
    }

    /// Returns the number of app secrets that the function no longer accepts.
    #[must_use]
    pub fn older_count(&self) -> usize {
        self.older.len()
    }

    pub(crate) fn signer(&self, body: &[u8], header: &str) -> Option<Signer> {
        let is_of = |secrets: &[String]| {
            signature::verify(secrets.iter().map(String::as_str), body, Some(header.as_bytes())).is_ok()
        };
        if is_of(&self.current) { Some(Signer::Current) } else { is_of(&self.older).then_some(Signer::Older) }
    }

    /// Signs a body with the first app secret that the function accepts.
    pub(crate) fn sign(&self, body: &[u8]) -> String {
        signature::sign(&self.current[0], body)
    }
}

impl std::fmt::Debug for AppSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AppSecrets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_secret_precedes_older_ones() {
        let [old, new] = ["old", "new"].map(str::to_owned);
        let secrets = AppSecrets::new(vec![new.clone()], vec![old.clone(), new.clone(), old.clone()]);

        assert_eq!(secrets.older_count(), 1);
        assert_eq!(secrets.signer(b"{}", &signature::sign(&new, b"{}")), Some(Signer::Current));
        assert_eq!(secrets.signer(b"{}", &signature::sign(&old, b"{}")), Some(Signer::Older));
        assert_eq!(secrets.signer(b"{}", &signature::sign("other", b"{}")), None);
        assert_eq!(secrets.signer(b"{ }", &secrets.sign(b"{}")), None);
        assert_eq!(secrets.signer(b"{}", &secrets.sign(b"{}")), Some(Signer::Current));
        assert!(!format!("{secrets:?}").contains("old"));
    }
}
