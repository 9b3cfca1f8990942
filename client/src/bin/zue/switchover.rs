//! `zue switchover`: another replica leads, and no append fails.

use std::time::Instant;

use serde::Serialize;
use zue_client::Client;

use crate::args::{Output, Switchover};
use crate::output::Out;

#[derive(Serialize)]
struct Switched {
    leader: String,
    epoch: u64,
    took_ms: u128,
}

pub(crate) async fn run(client: &Client, switchover: Switchover, output: Output) -> anyhow::Result<()> {
    let Switchover { to } = switchover;
    let begun = Instant::now();
    let epoch = client.switch_over(&to).await?;
    let switched = Switched { leader: to, epoch, took_ms: begun.elapsed().as_millis() };
    let mut out = Out::new();
    match output {
        Output::Json => out.json(&switched)?,
        Output::Table => {
            let Switched { leader, epoch, took_ms } = switched;
            out.line(format!("{leader} leads epoch {epoch}, {took_ms} ms after it was asked for").as_bytes())?;
        }
    }
    out.flush()
}
