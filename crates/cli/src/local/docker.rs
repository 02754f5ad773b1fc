//! The image of Lambda's runtime, and the address at which containers reach this computer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
    process::Output,
};

use serde::Deserialize;
use thiserror::Error;
use tokio::process::Command;

const IMAGE_SCRIPT: &str = "infra/lambda_image.py";
/// The name of this computer within a container, which Docker resolves to [`HOST_GATEWAY`].
pub(crate) const HOST_NAME: &str = "host.docker.internal";
pub(crate) const HOST_GATEWAY: &str = "host-gateway";

/// The image that the function runs in.
#[derive(Debug, Clone, Deserialize)]
pub struct Image {
    /// The name and tag of the image.
    pub image: String,
    /// The reason why it is not AWS's own image.
    pub stand_in_reason: Option<String>,
}

/// Containers that cannot be started.
#[derive(Debug, Error)]
pub enum DockerError {
    /// The Docker engine is not available.
    #[error("Docker is not available: {0}. Install Docker, start its engine, and check that `docker info` works")]
    NoEngine(String),
    /// Neither AWS's image nor a stand-in is available.
    #[error("no image for the function: {0}")]
    NoImage(String),
}

/// Pulls AWS's image, or builds the stand-in.
pub(crate) async fn prepare_image(root: &Path, python: &Path) -> Result<Image, DockerError> {
    docker(&["info"]).await?;
    let output = Command::new(python).arg(IMAGE_SCRIPT).current_dir(root).output().await;
    let image = standard_output(output).map_err(DockerError::NoImage)?;
    serde_json::from_str(&image).map_err(|error| DockerError::NoImage(error.to_string()))
}

/// Returns the address of this computer that containers reach as [`HOST_NAME`].
///
/// If the engine runs on this computer, this is the address of its bridge. If it runs in a virtual machine, as Docker
/// Desktop's does, this computer has no such address, and the name leads to loopback.
pub(crate) async fn host_address() -> Result<IpAddr, DockerError> {
    let configs = docker(&["network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"]).await?;
    let configs: Vec<IpamConfig> =
        serde_json::from_str(&configs).map_err(|error| DockerError::NoEngine(error.to_string()))?;
    let mut gateways = configs.into_iter().filter_map(IpamConfig::gateway);
    let local = gateways.find(|address| TcpListener::bind((*address, 0)).is_ok());
    Ok(local.unwrap_or(Ipv4Addr::LOCALHOST.into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    #[serde(default)]
    subnet: String,
    #[serde(default)]
    gateway: String,
}

impl IpamConfig {
    /// Returns the address of the bridge. Older engines report it only if it was set. Otherwise it is the first address of
    /// the subnet.
    fn gateway(self) -> Option<IpAddr> {
        let first_address = || {
            let network: Ipv4Addr = self.subnet.split_once('/')?.0.parse().ok()?;
            Some(Ipv4Addr::from(u32::from(network) + 1).into())
        };
        self.gateway.parse().ok().or_else(first_address)
    }
}

async fn docker(arguments: &[&str]) -> Result<String, DockerError> {
    standard_output(Command::new("docker").args(arguments).output().await).map_err(DockerError::NoEngine)
}

/// Returns the standard output of a command, or the standard error if the command failed.
fn standard_output(output: io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(config: &str) -> Option<String> {
        Some(serde_json::from_str::<IpamConfig>(config).unwrap().gateway()?.to_string())
    }

    #[test]
    fn gateway_is_reported_or_first_address_of_subnet() {
        assert_eq!(gateway(r#"{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.9"}"#).as_deref(), Some("172.17.0.9"));
        assert_eq!(gateway(r#"{"Subnet":"172.17.0.0/16"}"#).as_deref(), Some("172.17.0.1"));
        assert_eq!(gateway(r#"{"Subnet":"fd00::/64"}"#), None);
        assert_eq!(gateway("{}"), None);
    }
}
