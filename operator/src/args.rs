//! The command line.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use zue_telemetry::LogFormat;

/// The operator of Zue: reconciles ZueCluster resources.
#[derive(Parser, Debug)]
#[command(version)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs the operator until it is told to stop.
    Run(Run),
    /// Prints the definition of the ZueCluster resource.
    Crd,
    /// Prints the role that the operator needs.
    Rbac,
    /// Checks an installation: that the resource is known and may be read, and that an operator acts.
    Check(Check),
}

/// The check.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// A namespace that is watched; several by commas or by repeating it. All by default.
    #[arg(long = "namespace", env = "ZUE_OPERATOR_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// The Lease, in this pod's namespace, that the operator which acts holds.
    #[arg(long, env = "ZUE_OPERATOR_LEASE", default_value = "zue-operator")]
    pub lease: String,
    /// The seconds that an operator may take to renew it.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub within: u64,
}

/// The settings of a run.
#[derive(clap::Args, Debug)]
pub struct Run {
    /// A namespace to watch; several by commas or by repeating it. All by default.
    #[arg(long = "namespace", env = "ZUE_OPERATOR_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// The address to serve /metrics, /livez and /readyz at.
    #[arg(long, env = "ZUE_OPERATOR_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// The nodes' image for clusters that name none.
    #[arg(long, env = "ZUE_OPERATOR_IMAGE", default_value = concat!("zue-node:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// The format of log lines. What is logged is set by the variable `RUST_LOG`.
    #[arg(long, env = "ZUE_OPERATOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The Lease, in the operator's namespace, that one of several operators holds: that one acts.
    #[arg(long, env = "ZUE_OPERATOR_LEASE", default_value = "zue-operator")]
    pub lease: String,
    /// The name of this pod, for Events and the Lease.
    #[arg(long, env = "POD_NAME", default_value = "zue-operator")]
    pub instance: String,
}
