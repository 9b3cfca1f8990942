//! The program's flags. They override what the file says.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use zue_telemetry::LogFormat;

use crate::node::NodeConfig;
use crate::tls::TlsMode;

/// The storage node of Zue, a replicated append-only log.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(name = "zue-node", version)]
pub struct Args {
    /// A YAML file with the configuration; flags override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The name of this replica for people, for example the pod's name.
    #[arg(long)]
    pub name: Option<String>,
    /// The directory of the log.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen at for clients [default: 0.0.0.0:9440].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_client: Option<SocketAddr>,
    /// The address to listen at for peers and controllers; keep it to the cluster's own network unless --tls-mode is Required [default: 0.0.0.0:9441].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_peer: Option<SocketAddr>,
    /// The address to listen at for scrapes and health checks [default: 0.0.0.0:9442].
    #[arg(long, value_name = "IP:PORT")]
    pub listen_metrics: Option<SocketAddr>,
    /// The address at which clients reach this replica.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_client: Option<String>,
    /// The mode of TLS: whether connections are encrypted, and callers known [default: Off].
    #[arg(long, value_enum, value_name = "MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Holds tls.crt, tls.key, peer-ca.crt and client-ca.crt; read again when they change.
    #[arg(long, value_name = "DIR")]
    pub tls_folder: Option<PathBuf>,
    /// The file that says which clients may do what; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub access_file: Option<PathBuf>,
    /// The format of log lines; `RUST_LOG` says how many there are.
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
    /// A file's configuration, with these flags over it. It is not checked yet.
    #[must_use]
    pub fn over(&self, mut file: NodeConfig) -> NodeConfig {
        let Self {
            config: _,
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
        file.name = name.unwrap_or(file.name);
        file.data_dir = data_dir.unwrap_or(file.data_dir);
        file.listen.client = listen_client.unwrap_or(file.listen.client);
        file.listen.peer = listen_peer.unwrap_or(file.listen.peer);
        file.listen.metrics = listen_metrics.unwrap_or(file.listen.metrics);
        file.advertise.client = advertise_client.or(file.advertise.client);
        file.tls.mode = tls_mode.unwrap_or(file.tls.mode);
        file.tls.folder = tls_folder.or(file.tls.folder);
        file.access.file = access_file.or(file.access.file);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file() {
        let file = "name: from-file\ndataDir: /data\nlisten: {client: \"127.0.0.1:1\"}\n";
        let args = Args::try_parse_from(["zue-node", "--name", "from-flag"]).unwrap();
        let config = args.over(NodeConfig::parse(file).unwrap().unwrap());
        assert_eq!((config.name.as_str(), config.listen.client.port()), ("from-flag", 1));
        assert_eq!(config.data_dir, PathBuf::from("/data"));
    }

    #[test]
    fn a_flag_of_the_wrong_kind_is_refused_with_its_name() {
        let error = Args::try_parse_from(["zue-node", "--listen-client", "localhost"]).unwrap_err().to_string();
        assert!(error.contains("--listen-client") && error.contains("localhost"), "{error}");
    }
}
