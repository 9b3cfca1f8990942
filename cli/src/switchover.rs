//! `zue switchover`: another replica leads, and no append fails.

use std::time::Instant;

use serde::Serialize;
use zue_client::{Client, SwitchedOver};

use crate::args::{Output, Switchover};
use crate::output::Out;
use crate::waiting::Waiting;

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
