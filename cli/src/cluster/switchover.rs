//! `zue switchover`: another replica leads, and no append fails.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use zue_client::{Client, SwitchedOver};

use crate::terminal::output::{Out, Output};
use crate::terminal::waiting::Waiting;

#[derive(Debug, Args)]
#[command(after_help = "\
The leader passes the request to the controller (the operator, `zue dev`, `zue control`), which acts as soon as the replica is in sync.
Not for clusters with the policy static: change the leader in the settings of the controller.")]
pub(crate) struct Switchover {
    /// The name of the new leader
    #[arg(long, value_name = "NAME")]
    pub(crate) to: String,
}

#[derive(Serialize)]
struct Switched {
    leader: String,
    epoch: u64,
    took_ms: u128,
}

pub(crate) async fn run(
    (client, mut waiting): (Client, Waiting),
    switchover: Switchover,
    output: Output,
) -> anyhow::Result<()> {
    let Switchover { to } = switchover;
    let begun = Instant::now();
    let SwitchedOver { epoch, led_before } = waiting.on(client.switch_over(&to), || true).await?;
    let switched = Switched { leader: to, epoch, took_ms: begun.elapsed().as_millis() };
    let mut out = Out::new();
    match output {
        Output::Json => out.json(&switched)?,
        Output::Table if led_before => {
            let Switched { leader, epoch, .. } = switched;
            out.line(format!("{leader} leads already, in epoch {epoch}").as_bytes())?;
        }
        Output::Table => {
            let Switched { leader, epoch, took_ms } = switched;
            out.line(format!("{leader} leads epoch {epoch}, {took_ms} ms after it was asked for").as_bytes())?;
        }
    }
    out.flush()
}
