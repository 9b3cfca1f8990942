//! `zue control`: turns of the controller until it is told to stop. `zue dev` uses the same turns.

use anyhow::Context as _;
use zue_controller::{Controller, Event, FileStore, FileStoreError, NodeAddress, Patience, Turn};
use zue_core::control::{Policy, Wish};
use zue_tls::Dial;

use crate::Usage;
use crate::args::{self, Control, Leadership};
use crate::output;
use crate::stop::Stop;

/// The controller of some nodes.
pub(crate) struct Turns {
    controller: Controller<FileStore>,
    nodes: Vec<NodeAddress>,
    wish: Wish,
}

impl Turns {
    /// `replicas` of the nodes are to be members, the first ones. `by` says which command it is.
    pub(crate) fn new(
        by: &str,
        store: FileStore,
        (nodes, dial): (Vec<NodeAddress>, Dial),
        replicas: usize,
        leadership: &Leadership,
    ) -> Self {
        let controller = Controller::new(store, by, Patience::default()).dialling(dial);
        let Leadership { quorum, policy, leader, detection_time, standby_after } = *leadership;
        let standby_after_ms = u64::try_from(standby_after.as_millis()).ok();
        let policy = match policy {
            args::Policy::Automatic => Policy::Automatic,
            args::Policy::Static => Policy::Static,
        };
        let detection_ms = u64::try_from(detection_time.as_millis()).unwrap_or(u64::MAX);
        Self {
            controller,
            nodes,
            wish: Wish { replicas, policy, ordinal: leader, switch_to: None, detection_ms, quorum, standby_after_ms },
        }
    }

    /// One turn, then a rest. What happened goes to stderr.
    pub(crate) async fn next(&mut self) -> Turn {
        let turn = self.controller.turn(&self.nodes, &self.wish).await;
        turn.events.iter().for_each(tell);
        self.controller.rest().await;
        turn
    }

    /// The nodes behind the first ones are looked at no more.
    pub(crate) fn keep(&mut self, nodes: usize) {
        self.nodes.truncate(nodes);
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
    zue_telemetry::say_seldom(format!("{level}{event}"));
}

pub(crate) async fn run(control: Control) -> anyhow::Result<()> {
    let Control { nodes, replicas, state, tls_folder, tls_mode, leadership } = control;
    let dial = tls_folder.map_or_else(|| Ok(Dial::plain()), |folder| Dial::controller(&folder, tls_mode.insecure()))?;
    let count = nodes.len();
    let replicas = replicas.unwrap_or(count);
    let is_twice = |(n, node): (usize, &NodeAddress)| nodes.iter().skip(n + 1).any(|other| same(node, other));
    if nodes.iter().enumerate().any(is_twice) {
        return Err(Usage("--nodes names a node or an address twice".to_owned()).into());
    }
    if count > zue_core::VOTERS_MAX {
        return Err(
            Usage(format!("--nodes names {count} nodes; a cluster has {} at most", zue_core::VOTERS_MAX)).into()
        );
    }
    if !(1..=count).contains(&replicas) {
        return Err(Usage(format!("--replicas is {replicas}; --nodes names {count}")).into());
    }
    check(replicas, &leadership)?;
    let mut stop = Stop::of_a_service().context("signals cannot be listened to")?;
    let store = FileStore::open(&state).map_err(|error| match error {
        FileStoreError::InUse(path) => anyhow::anyhow!("{} is in use by another controller", path.display()),
        error => error.into(),
    })?;
    let named = nodes.get(leadership.leader).map_or("", |node| &node.name);
    let begins = match leadership.policy {
        args::Policy::Automatic => format!("controlling {count} nodes; a leader that is lost is replaced"),
        args::Policy::Static => format!("controlling {count} nodes, with {named} to lead"),
    };
    // It controls whether or not somebody reads this.
    if let Err(error) = output::line(&begins) {
        zue_telemetry::say(format!("{error:#}"));
    }
    let mut turns = Turns::new("zue control", store, (nodes, dial), replicas, &leadership);
    tokio::select! {
        () = turns.go_on() => {}
        _ = stop.asked() => {}
    }
    Ok(())
}

fn same(a: &NodeAddress, b: &NodeAddress) -> bool {
    a.name == b.name || a.peer_address == b.peer_address || a.client_address == b.client_address
}

/// Checks what depends on the number of replicas.
pub(crate) fn check(replicas: usize, leadership: &Leadership) -> anyhow::Result<()> {
    let Leadership { quorum, leader, policy: _, detection_time: _, standby_after: _ } = *leadership;
    if leader >= replicas {
        return Err(Usage(format!("--leader {leader} is none of the {replicas} nodes, which count from 0")).into());
    }
    match quorum.map(|quorum| zue_node::check_quorum(replicas, quorum)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(bad)) => Err(Usage(format!("--quorum: {bad}")).into()),
    }
}
