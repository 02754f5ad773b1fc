//! Decides which stack a command uses: a named one, the local one that runs in this folder, or that of samconfig.toml.

use std::{fs, path::Path};

use serde_json::Value;

use super::stack_info::{StackInfo, StackInfoError};
use crate::endpoint_secrets::variable;

const SAM_CONFIG: &str = "samconfig.toml";
/// SAM CLI prefers the parameters of a command to those of all commands.
const SAM_COMMANDS: [&str; 2] = ["deploy", "global"];
/// These variables lead the AWS CLI elsewhere than to the local stack.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"];

/// A stack to use.
#[derive(Debug)]
pub enum StackChoice {
    /// The local stack that runs in this folder.
    Local(Box<StackInfo>),
    /// A deployed stack.
    Deployed(DeployedStack),
}

/// The name of a deployed stack.
#[derive(Debug, PartialEq, Eq)]
pub struct DeployedStack {
    pub(super) name: String,
    /// The region of samconfig.toml, if the name is from there.
    saved_region: Option<String>,
}

impl DeployedStack {
    fn named(name: String) -> Self {
        Self { name, saved_region: None }
    }

    /// Returns an error if samconfig.toml names another region, where a stack of the same name may exist.
    pub(super) fn check_region(&self, region: &str) -> Result<(), StackInfoError> {
        check_setting("region", self.saved_region.as_deref(), Some(region), "AWS_REGION")
    }
}

impl StackChoice {
    /// Chooses the stack that `name` or the variable `STACK` names, else the local stack that runs in `root`, else that of the
    /// samconfig.toml in `root`.
    ///
    /// Returns an error if a local stack runs but the environment leads elsewhere, because the caller may mean a deployed stack.
    pub fn find(root: &Path, name: Option<&str>) -> Result<Self, StackInfoError> {
        if let Some(name) = name.map(str::to_owned).or_else(|| variable("STACK")) {
            return Ok(Self::Deployed(DeployedStack::named(name)));
        }
        match StackInfo::running(root) {
            Ok(local) => match find_conflicting_variable(&local) {
                Some(variable) => Err(StackInfoError::AmbiguousStack(variable)),
                None => Ok(Self::Local(Box::new(local))),
            },
            Err(StackInfoError::NotRunning) => Ok(Self::Deployed(Self::deployed_stack(root, None)?)),
            Err(error) => Err(error),
        }
    }

    /// Returns a deployed stack: the named one, else that of the samconfig.toml in `root`.
    pub fn deployed_stack(root: &Path, name: Option<&str>) -> Result<DeployedStack, StackInfoError> {
        if let Some(name) = name.map(str::to_owned).or_else(|| variable("STACK")) {
            return Ok(DeployedStack::named(name));
        }
        let (stack, profile) = saved_stack(root)?.ok_or(StackInfoError::NoStack)?;
        check_setting("profile", profile.as_deref(), variable("AWS_PROFILE").as_deref(), "AWS_PROFILE")?;
        Ok(stack)
    }
}

/// Returns the variable of the environment that leads elsewhere than to the local stack.
fn find_conflicting_variable(local: &StackInfo) -> Option<&'static str> {
    let is_other = |url: &str| url.trim_end_matches('/') != local.aws_endpoint.trim_end_matches('/');
    match ENDPOINT_VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?))) {
        Some((name, url)) => is_other(&url).then_some(name),
        None => variable("AWS_PROFILE").map(|_| "AWS_PROFILE"),
    }
}

fn check_setting(
    setting: &'static str,
    saved: Option<&str>,
    actual: Option<&str>,
    variable: &'static str,
) -> Result<(), StackInfoError> {
    match saved {
        Some(saved) if actual != Some(saved) => {
            let (saved, actual) = (saved.to_owned(), actual.unwrap_or("none").to_owned());
            Err(StackInfoError::OtherSamConfig { setting, saved, actual, variable })
        }
        _ => Ok(()),
    }
}

/// Returns the stack that `sam deploy --guided` saved, and its profile.
fn saved_stack(root: &Path) -> Result<Option<(DeployedStack, Option<String>)>, StackInfoError> {
    let Ok(text) = fs::read_to_string(root.join(SAM_CONFIG)) else { return Ok(None) };
    let config: Value = toml::from_str(&text).map_err(|error| StackInfoError::SamConfig(error.message().to_owned()))?;
    let saved = |name: &str| {
        let values = SAM_COMMANDS.map(|command| config["default"][command]["parameters"][name].as_str());
        values.into_iter().flatten().find(|value| !value.is_empty()).map(str::to_owned)
    };
    let stack = saved("stack_name").map(|name| DeployedStack { name, saved_region: saved("region") });
    Ok(stack.map(|stack| (stack, saved("profile"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(samconfig: &str) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SAM_CONFIG), samconfig).unwrap();
        let saved = saved_stack(folder.path()).map_err(|error| error.to_string())?;
        Ok(saved.map(|(stack, _)| stack.name))
    }

    #[test]
    fn saved_name_of_deploy_precedes_the_global_one() {
        let global = "version = 0.1\n[default.global.parameters]\nstack_name = \"all\"\n";
        let deploy = "[default.deploy.parameters]\nstack_name = \"guided\" # saved\nresolve_s3 = true\n";

        assert_eq!(name_in(&format!("{global}{deploy}")), Ok(Some("guided".to_owned())));
        assert_eq!(name_in(global), Ok(Some("all".to_owned())));
        assert_eq!(name_in("[staging.deploy.parameters]\nstack_name = \"other\""), Ok(None));
        assert!(name_in("version = ").unwrap_err().starts_with("cannot parse samconfig.toml: "));
        assert_eq!(saved_stack(Path::new("/no/such/folder")).unwrap(), None);
    }
}
