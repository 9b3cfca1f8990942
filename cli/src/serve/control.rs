//! `zue control`: turns of the controller until it is told to stop. `zue dev` uses the same turns.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use zue_controller::{Controller, Event, FileStore, FileStoreError, NodeAddress, Patience, Turn};
use zue_core::control::{Policy, Wish};
use zue_tls::Dial;

use crate::Usage;
use crate::terminal::stop::Stop;
use crate::terminal::{output, times};
use crate::tls::Mode;

/// The leadership policy and its times.
#[derive(Clone, Debug, Args)]
pub(crate) struct Leadership {
    /// The number of replicas that must hold a record before it is committed [default: a majority]
    #[arg(long)]
    pub(crate) quorum: Option<u32>,
    /// Replace a leader that is lost, or wait for the named one
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: PolicyArg,
    /// The replica that leads, counted from 0; with the policy automatic only at first, and among equals
    #[arg(long, value_name = "ORDINAL", default_value_t = 0)]
    pub(crate) leader: usize,
    /// The silence after which a leader counts as lost, from 300ms to 1m; at least three times the nodes' heartbeatInterval
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::detection_time)]
    pub(crate) detection_time: Duration,
    /// The time without an act of a controller after that, before a node elects by itself, from 200ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::standby_after)]
    pub(crate) standby_after: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum PolicyArg {
    #[default]
    Automatic,
    Static,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  zue control --state ./control --nodes a=10.0.0.1:9441/10.0.0.1:9440,b=10.0.0.2:9441/10.0.0.2:9440,c=10.0.0.3:9441/10.0.0.3:9440")]
pub(crate) struct Control {
    /// All replicas in order, each with its name, its address for peers and its address for clients
    #[arg(long, value_delimiter = ',', value_parser = node, required = true, value_name = "NAME=PEER/CLIENT,…")]
    pub(crate) nodes: Vec<NodeAddress>,
    /// The number of members, counted from the first node [default: all]. The others give up their votes one by one
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<usize>,
    /// The file for the state of the controller; keep it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// Reach the nodes with TLS: holds tls.crt and tls.key of a controller, and peer-ca.crt; read again for each connection
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_folder: Option<PathBuf>,
    /// Required: always with TLS. Permissive: without TLS where a node cannot
    #[arg(long, value_name = "MODE", default_value = "Required", requires = "tls_folder")]
    pub(crate) tls_mode: Mode,
    #[command(flatten)]
    pub(crate) leadership: Leadership,
}

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
            PolicyArg::Automatic => Policy::Automatic,
            PolicyArg::Static => Policy::Static,
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
        PolicyArg::Automatic => format!("controlling {count} nodes; a leader that is lost is replaced"),
        PolicyArg::Static => format!("controlling {count} nodes, with {named} to lead"),
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
    match quorum.map(|quorum| zue_settings::check_quorum(replicas, quorum)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(bad)) => Err(Usage(format!("--quorum: {bad}")).into()),
    }
}

fn node(text: &str) -> Result<NodeAddress, String> {
    let parts = text.split_once('=').and_then(|(name, addresses)| Some((name, addresses.split_once('/')?)));
    let Some((name, (peer_address, client_address))) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err("name=peer_host:port/client_host:port is expected".to_owned());
    };
    for address in [peer_address, client_address] {
        zue_client::check_address(address).map_err(|bad| bad.to_string())?;
    }
    let (name, peer_address, client_address) = (name.to_owned(), peer_address.to_owned(), client_address.to_owned());
    Ok(NodeAddress { name, peer_address, dial_address: None, client_address, last_address: None, replica: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_name_and_two_addresses() {
        let address = node("a=h:1/i:2").unwrap();
        assert_eq!((address.peer_address.as_str(), address.client_address.as_str()), ("h:1", "i:2"));
        for bad in ["", "a", "a=h:1", "=h:1/i:2", "a=h/i:2", "a=h:1/i"] {
            assert!(node(bad).is_err(), "{bad}");
        }
    }
}
