//! The settings' way into the node: the file is read, the flags are put over it, and all of it is checked.

pub(crate) mod convert;

use std::path::Path;

use zue_settings::{Args, ConfigError, NodeConfig};

/// The most bytes that a settings file may have.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a node's file. Flags may still override what it says, so its values are checked by [`NodeConfig::validate`].
///
/// # Errors
/// When it cannot be read, says nothing, or has unknown fields or values of the wrong kind.
pub fn read_config(path: &Path) -> Result<NodeConfig, ConfigError> {
    let text = zue_log::read_text(path, FILE_BYTES_MAX)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    NodeConfig::of_file(path, &text)
}

/// The configuration that a file and the flags make.
///
/// # Errors
/// When the file cannot be read, or a value cannot be.
pub fn config_of(args: &Args) -> Result<NodeConfig, ConfigError> {
    let file = args.config.as_deref().map_or_else(|| Ok(NodeConfig::default()), read_config)?;
    let config = args.over(file);
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &[&str]) -> Args {
        clap::Parser::parse_from([&["zue-node"], flags].concat())
    }

    #[test]
    fn flags_override_the_file_and_the_sum_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yaml");
        std::fs::write(&file, "name: from-file\ndataDir: /data\nlisten: {client: \"127.0.0.1:1\"}\n").unwrap();
        let file = file.to_str().unwrap();
        let config = config_of(&args(&["--config", file, "--name", "from-flag"])).unwrap();
        assert_eq!((config.name.as_str(), config.listen.client.port()), ("from-flag", 1));
        let error = config_of(&args(&["--config", file, "--name", "a b"])).unwrap_err().to_string();
        assert!(error.contains("--name"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = config_of(&args(&["--config", "/nowhere/node.yaml"])).unwrap_err().to_string();
        assert!(error.contains("/nowhere/node.yaml"), "{error}");
    }
}
