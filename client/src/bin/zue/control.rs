//! `zue control`: turns of the controller until it is told to stop. `zue dev` uses the same turns.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zue_client::control::{Controller, ControllerConfig, Event, FileStore, FileStoreError, NodeAddress, Turn};
use zue_core::control::{Policy, Wish};

use crate::Usage;
use crate::args::Control;
use crate::output;

/// Between two turns.
pub(crate) const TURN_INTERVAL: Duration = Duration::from_millis(200);

/// SIGINT and SIGTERM.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The controller of some nodes.
pub(crate) struct Turns {
    controller: Controller<FileStore>,
    nodes: Vec<NodeAddress>,
    wish: Wish,
}

impl Turns {
    pub(crate) fn new(store: FileStore, nodes: Vec<NodeAddress>, leader: usize, quorum: Option<u32>) -> Self {
        let controller = Controller::new(store, ControllerConfig::default());
        Self { controller, nodes, wish: Wish { policy: Policy::Static { ordinal: leader }, quorum } }
    }

    /// One turn, then a pause. What happened goes to stderr.
    pub(crate) async fn next(&mut self) -> Turn {
        let turn = self.controller.turn(&self.nodes, &self.wish).await;
        turn.events.iter().for_each(tell);
        tokio::time::sleep(TURN_INTERVAL).await;
        turn
    }

    /// Turns for ever.
    pub(crate) async fn go_on(&mut self) {
        loop {
            self.next().await;
        }
    }
}

fn tell(event: &Event) {
    let level = if event.is_warning() { "warning: " } else { "" };
    eprintln!("{level}{event}");
}

pub(crate) async fn run(control: Control) -> anyhow::Result<()> {
    let Control { nodes, state, leader, quorum } = control;
    let count = nodes.len();
    let is_twice = |(n, node): (usize, &NodeAddress)| nodes.iter().skip(n + 1).any(|other| same(node, other));
    if nodes.iter().enumerate().any(is_twice) {
        return Err(Usage("--nodes names a node or an address twice".to_owned()).into());
    }
    if count > zue_core::VOTERS_MAX {
        return Err(
            Usage(format!("--nodes names {count} nodes; a cluster has {} at most", zue_core::VOTERS_MAX)).into()
        );
    }
    if leader >= count {
        return Err(Usage(format!("--leader {leader} is none of the {count} nodes, which count from 0")).into());
    }
    check_quorum(count, quorum)?;
    let mut stop = Stop::new().context("signals cannot be listened to")?;
    let store = FileStore::open(&state).map_err(|error| match error {
        FileStoreError::InUse(path) => anyhow::anyhow!("{} is in use by another controller", path.display()),
        error => error.into(),
    })?;
    output::line(&format!(
        "controlling {count} nodes, with {} to lead",
        nodes.get(leader).map_or("", |node| &node.name)
    ))?;
    let mut turns = Turns::new(store, nodes, leader, quorum);
    tokio::select! {
        () = turns.go_on() => {}
        () = stop.asked() => {}
    }
    Ok(())
}

fn same(a: &NodeAddress, b: &NodeAddress) -> bool {
    a.name == b.name || a.peer_address == b.peer_address || a.client_address == b.client_address
}

pub(crate) fn check_quorum(replicas: usize, quorum: Option<u32>) -> anyhow::Result<()> {
    match quorum.map(|quorum| zue_node::check_quorum(replicas, quorum)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(bad)) => Err(Usage(format!("--quorum: {bad}")).into()),
    }
}
