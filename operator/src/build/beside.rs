//! A container that runs the command line beside a node's.

use k8s_openapi::api::core::v1::Container;

use super::args::{CONFIG_DIRECTORY, DATA_DIRECTORY};

/// The command line, in the image of a node and with its directories.
pub(super) fn beside(node: &Container, container: Container) -> Container {
    let is_needed = |path: &str| [DATA_DIRECTORY, CONFIG_DIRECTORY].contains(&path);
    let mounts = node.volume_mounts.iter().flatten().filter(|mount| is_needed(&mount.mount_path));
    Container {
        image: node.image.clone(),
        command: Some(vec!["/usr/local/bin/zue".to_owned()]),
        resources: node.resources.clone(),
        security_context: node.security_context.clone(),
        volume_mounts: Some(mounts.cloned().collect()),
        ..container
    }
}
