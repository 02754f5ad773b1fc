//! The environment variables of a function. [Lambda's defined variables] are set as Lambda sets them.
//!
//! [Lambda's defined variables]: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime

use crate::aws::FakeAws;
use crate::ids::REGION;
use crate::tls::system_ca_bundle;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Returns the number of invocations that run at a time, one by default.
pub(super) fn max_concurrency<K: AsRef<OsStr>, V: AsRef<OsStr>>(variables: &[(K, V)]) -> usize {
    let variable = variables.iter().find(|(name, _)| name.as_ref() == "AWS_LAMBDA_MAX_CONCURRENCY");
    variable.and_then(|(_, value)| value.as_ref().to_str()?.parse().ok()).unwrap_or(1)
}

pub(super) fn set(command: &mut Command, aws: &FakeAws, runtime_api: SocketAddr) {
    let task_root = Path::new(command.get_program()).parent().unwrap_or_else(|| Path::new("/")).to_owned();
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "en_US.UTF-8")
        .env("TZ", ":UTC")
        .env("LAMBDA_TASK_ROOT", task_root)
        .env("_HANDLER", "bootstrap")
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "function")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/function")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "2025/01/01/[$LATEST]0123456789abcdef0123456789abcdef")
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        .env("AWS_SESSION_TOKEN", "example-session-token")
        .env("AWS_ENDPOINT_URL", aws.endpoint())
        // Lambda has no instance metadata service. Without this variable an SDK might call its link-local address.
        .env("AWS_EC2_METADATA_DISABLED", "true");
    if let Some(trust_stores) = aws.trust_stores() {
        command
            .env("SSL_CERT_FILE", &trust_stores.system_bundle)
            .env("AWS_CA_BUNDLE", &trust_stores.system_bundle)
            // Node.js has the public authorities compiled in, so it needs the additional one only.
            .env("NODE_EXTRA_CA_CERTS", &trust_stores.authority);
    } else if let Some(bundle) = system_ca_bundle() {
        // Lambda does not set this variable. Without it a function on Debian would also read the few hundred files of the
        // system's certificate directory.
        command.env("SSL_CERT_FILE", bundle);
    }
}
