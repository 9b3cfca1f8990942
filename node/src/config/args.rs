//! The program's flags. They override what the file says.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use zue_telemetry::LogFormat;

use crate::config::{ConfigError, NodeConfig};
use crate::tls::TlsMode;

/// The storage node of Zue, a replicated append-only log.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(name = "zue-node", version)]
pub struct Args {
    /// A YAML file with the configuration; flags override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What people call this replica, for example the pod's name.
    #[arg(long)]
    pub name: Option<String>,
    /// The directory of the log.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen for clients [default: 0.0.0.0:9440].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_client: Option<SocketAddr>,
    /// Where to listen for peers and controllers; keep it to the cluster's own network unless --tls-mode is Required [default: 0.0.0.0:9441].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_peer: Option<SocketAddr>,
    /// Where to listen for scrapes and health checks [default: 0.0.0.0:9442].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_metrics: Option<SocketAddr>,
    /// Where clients reach this replica.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_client: Option<String>,
    /// Whether connections are encrypted, and who calls is known [default: Off].
    #[arg(long, value_enum, value_name = "MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Holds tls.crt, tls.key, peer-ca.crt and client-ca.crt; read again when they change.
    #[arg(long, value_name = "DIR")]
    pub tls_folder: Option<PathBuf>,
    /// The file that says which clients may do what; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub access_file: Option<PathBuf>,
    /// How log lines look; `RUST_LOG` says how many there are.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Print the configuration, defaults and all, and end.
    #[arg(long)]
    pub print_config: bool,
    /// Print how much memory the limits let the node take at most, and of what, and end.
    #[arg(long)]
    pub print_limits: bool,
}

impl Args {
    /// The configuration that the file and the flags make.
    ///
    /// # Errors
    /// When the file cannot be read, or a value cannot be.
    pub fn to_config(&self) -> Result<NodeConfig, ConfigError> {
        let Self {
            config,
            name,
            data_dir,
            listen_client,
            listen_peer,
            listen_metrics,
            advertise_client,
            tls_mode,
            tls_folder,
            access_file,
            log_format: _,
            print_config: _,
            print_limits: _,
        } = self.clone();
        let mut made = config.as_deref().map_or_else(|| Ok(NodeConfig::default()), NodeConfig::read)?;
        made.name = name.unwrap_or(made.name);
        made.data_dir = data_dir.unwrap_or(made.data_dir);
        made.listen.client = listen_client.unwrap_or(made.listen.client);
        made.listen.peer = listen_peer.unwrap_or(made.listen.peer);
        made.listen.metrics = listen_metrics.unwrap_or(made.listen.metrics);
        made.advertise.client = advertise_client.or(made.advertise.client);
        made.tls.mode = tls_mode.unwrap_or(made.tls.mode);
        made.tls.folder = tls_folder.or(made.tls.folder);
        made.access.file = access_file.or(made.access.file);
        made.validate()?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yaml");
        std::fs::write(&file, "name: from-file\ndataDir: /data\nlisten: {client: \"127.0.0.1:1\"}\n").unwrap();
        let file = file.to_str().unwrap();
        let args = Args::try_parse_from(["zue-node", "--config", file, "--name", "from-flag"]).unwrap();
        let config = args.to_config().unwrap();
        assert_eq!((config.name.as_str(), config.listen.client.port()), ("from-flag", 1));
        assert_eq!(config.data_dir, PathBuf::from("/data"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let args = Args::try_parse_from(["zue-node", "--config", "/nowhere/node.yaml"]).unwrap();
        assert!(args.to_config().unwrap_err().to_string().contains("/nowhere/node.yaml"));
    }

    #[test]
    fn a_flag_of_the_wrong_kind_is_refused_with_its_name() {
        let error = Args::try_parse_from(["zue-node", "--listen-client", "localhost"]).unwrap_err().to_string();
        assert!(error.contains("--listen-client") && error.contains("localhost"), "{error}");
    }
}
