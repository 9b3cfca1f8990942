//! `zue backup create` of a cluster that runs: one of its nodes makes it, to the store that its configuration names.

use serde_json::json;
use zue_client::{BackedUp, Client};

use super::store::show;
use crate::terminal::output::Output;
use crate::terminal::waiting::Waiting;

pub(super) async fn run((client, mut waiting): (Client, Waiting), output: Output) -> anyhow::Result<()> {
    let BackedUp { id, end, replica } = waiting.on(client.back_up(), || true).await?;
    let json = json!({ "id": id, "end": end, "replica": replica });
    show(output, &json, &[format!("{id}: the log up to offset {end}, made by {replica}")])
}
