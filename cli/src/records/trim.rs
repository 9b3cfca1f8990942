//! `zue trim`: the oldest records go.

use clap::Args;
use zue_client::Client;

use crate::terminal::output::{self, Output};
use crate::terminal::waiting::Waiting;

#[derive(Debug, Args)]
pub(crate) struct Trim {
    /// The first offset to be kept; all before it must be committed
    #[arg(long, value_name = "OFFSET")]
    pub(crate) before: u64,
}

pub(crate) async fn run((client, mut waiting): (Client, Waiting), trim: Trim, output: Output) -> anyhow::Result<()> {
    let log_start = waiting.on(client.trim(trim.before), || true).await?;
    output::line(&match output {
        Output::Table => log_start.to_string(),
        Output::Json => serde_json::json!({ "log_start": log_start }).to_string(),
    })
}
