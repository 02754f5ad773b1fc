//! What containers need here: the image of Lambda's runtime, and a way back to this computer.

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
    /// Its name and tag.
    pub image: String,
    /// Why it is not AWS's own.
    pub stand_in_because: Option<String>,
}

/// Why there are no containers.
#[derive(Debug, Error)]
pub enum DockerError {
    /// There is no engine to talk to.
    #[error("Docker cannot be used: {0}. Install Docker, start its engine, and see that `docker info` works")]
    NoEngine(String),
    /// Neither AWS's image nor a stand-in.
    #[error("no image to run the function in: {0}")]
    NoImage(String),
}

/// Gets AWS's image, or makes the stand-in.
pub(crate) async fn image(root: &Path, python: &Path) -> Result<Image, DockerError> {
    docker(&["info"]).await?;
    let made = Command::new(python).arg(IMAGE_SCRIPT).current_dir(root).output().await;
    let told = text_of(made).map_err(DockerError::NoImage)?;
    serde_json::from_str(&told).map_err(|error| DockerError::NoImage(error.to_string()))
}

/// An address of this computer that containers reach as [`HOST_NAME`].
///
/// Where the engine is on this computer, that is its bridge's; where it is in a virtual machine, as Docker Desktop's,
/// there is no such address here, and the name leads to loopback.
pub(crate) async fn address() -> Result<IpAddr, DockerError> {
    let told = docker(&["network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"]).await?;
    let ranges: Vec<Range> = serde_json::from_str(&told).map_err(|error| DockerError::NoEngine(error.to_string()))?;
    let mut bridges = ranges.into_iter().filter_map(Range::gateway);
    let here = bridges.find(|address| TcpListener::bind((*address, 0)).is_ok());
    Ok(here.unwrap_or(Ipv4Addr::LOCALHOST.into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    #[serde(default)]
    subnet: String,
    #[serde(default)]
    gateway: String,
}

impl Range {
    /// Older engines do not tell it unless it was set; it is the first address then.
    fn gateway(self) -> Option<IpAddr> {
        let first = || {
            let network: Ipv4Addr = self.subnet.split_once('/')?.0.parse().ok()?;
            Some(Ipv4Addr::from(u32::from(network) + 1).into())
        };
        self.gateway.parse().ok().or_else(first)
    }
}

async fn docker(arguments: &[&str]) -> Result<String, DockerError> {
    text_of(Command::new("docker").args(arguments).output().await).map_err(DockerError::NoEngine)
}

fn text_of(output: io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(config: &str) -> Option<String> {
        Some(serde_json::from_str::<Range>(config).unwrap().gateway()?.to_string())
    }

    #[test]
    fn the_bridge_has_the_address_that_docker_names_or_the_first_of_its_range() {
        assert_eq!(gateway(r#"{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.9"}"#).as_deref(), Some("172.17.0.9"));
        assert_eq!(gateway(r#"{"Subnet":"172.17.0.0/16"}"#).as_deref(), Some("172.17.0.1"));
        assert_eq!(gateway(r#"{"Subnet":"fd00::/64"}"#), None);
        assert_eq!(gateway("{}"), None);
    }
}
