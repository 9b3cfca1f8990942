//! The task that elects where no controller does: the machine of control, driven as the operator drives it, but without a store. It rests
//! as long as this replica has a leader.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zue_controller::{Controller, NodeAddress, Patience, StandbyTimes, Store};
use zue_core::control::{Recorded, Wish};
use zue_tls::Dial;

use crate::inbox::Identity;
use crate::leaderless::Standing;
use crate::standby::{Standby, keep, load};
use crate::vital::Vitals;

/// How long a node may take to tell its status: one that hangs is not to hold up the rest.
const CALL_MS: u64 = 400;

/// A standby writes nothing down anywhere.
#[derive(Debug)]
struct Nowhere;

/// Nobody asks.
#[derive(Debug, thiserror::Error)]
#[error("a node that stands by has no record")]
struct NoRecord;

impl Store for Nowhere {
    type Error = NoRecord;

    async fn load(&self) -> Result<Recorded, NoRecord> {
        Err(NoRecord)
    }

    async fn swap(&self, _: &Recorded, _: &Recorded) -> Result<bool, NoRecord> {
        Err(NoRecord)
    }
}

/// Begins to stand by, by what is kept; gives what the driver has of it.
pub(crate) fn begin(
    data_dir: &Path,
    (identity, listening): (&Arc<Identity>, SocketAddr),
    (vitals, stop): (&Vitals, &CancellationToken),
    dial: Dial,
) -> Standing {
    let known = load(data_dir, identity).unwrap_or_else(|error| {
        tracing::warn!(%error, "by what this node stands by cannot be read: it waits until it is told again");
        None
    });
    let (told, terms) = watch::channel(known.map(Arc::new));
    let (needs, needed) = watch::channel(false);
    let (identity, own_address) = (Arc::clone(identity), reached_here(listening));
    let standing_by = StandingBy { identity, own_address, data_dir: data_dir.to_owned(), terms, needed, dial };
    let (vital, stop) = (vitals.task("who stands by", stop), stop.clone());
    tokio::spawn(vital.run(async move { _ = stop.run_until_cancelled(standing_by.run()).await }));
    let elected_for = zue_proto::v1::ElectionReason::Unspecified;
    Standing { terms: told, told: None, needed: needs, elected_by: "".into(), elected_for }
}

/// Where this process reaches itself, whatever its name is resolved to.
fn reached_here(listening: SocketAddr) -> SocketAddr {
    let loopback = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(loopback, listening.port())
}

/// What it takes.
#[derive(Debug)]
struct StandingBy {
    identity: Arc<Identity>,
    own_address: SocketAddr,
    data_dir: PathBuf,
    terms: watch::Receiver<Option<Arc<Standby>>>,
    /// Whether this replica has lost its leader, or wants to lead no more.
    needed: watch::Receiver<bool>,
    /// How it reaches the others.
    dial: Dial,
}

impl StandingBy {
    /// Keeps what it is told, and acts when it has to, until the driver is gone.
    async fn run(self) {
        tokio::join!(self.keep_what_is_told(), self.act_when_needed());
    }

    async fn keep_what_is_told(&self) {
        let mut told = self.terms.clone();
        while told.changed().await.is_ok() {
            let Some(terms) = told.borrow_and_update().clone() else { continue };
            let (dir, identity) = (self.data_dir.clone(), Arc::clone(&self.identity));
            let kept = tokio::task::spawn_blocking(move || keep(&dir, &identity, &terms)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "by what this node stands by could not be kept: after a start it waits until it is told again");
            }
        }
    }

    async fn act_when_needed(&self) {
        let (mut told, mut needed) = (self.terms.clone(), self.needed.clone());
        while needed.wait_for(|needed| *needed).await.is_ok() {
            let terms = told.borrow_and_update().clone();
            let own = |terms: &Standby| terms.members.iter().position(|member| member.id == self.identity.id);
            match terms.as_ref().and_then(|terms| Some((terms, own(terms)?))) {
                Some((terms, own)) => self.act(terms, own).await,
                // Nobody has told it how, or it does not vote.
                None => {
                    tokio::select! {
                        changed = told.changed() => if changed.is_err() { return },
                        known = needed.wait_for(|needed| !needed) => if known.is_err() { return },
                    }
                }
            }
        }
    }

    /// Turns of the machine, until this replica has a leader or is told otherwise.
    async fn act(&self, terms: &Standby, own: usize) {
        let (told, mut needed) = (self.terms.clone(), self.needed.clone());
        let node = |member: &crate::state::Member| NodeAddress {
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            dial_address: (member.id == self.identity.id).then(|| self.own_address.to_string()),
            last_address: member.dial_address,
            replica: Some(member.id),
        };
        let nodes: Vec<NodeAddress> = terms.members.iter().map(node).collect();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wish = Wish {
            replicas: nodes.len(),
            policy: terms.policy,
            ordinal: terms.preferred,
            switch_to: None,
            detection_ms: ms(terms.detection),
            quorum: None,
            standby_after_ms: None,
        };
        let times = StandbyTimes { after_ms: ms(terms.after), ..StandbyTimes::default() };
        let patience = Patience { call_ms: CALL_MS, ..Patience::default() };
        let controller = Controller::standing_by(Nowhere, own, self.identity.name.clone(), times, patience);
        let mut controller = controller.dialling(self.dial.clone());
        while *needed.borrow() && told.borrow().as_deref() == Some(terms) {
            let turn = controller.turn(&nodes, &wish).await;
            for event in turn.events {
                if event.is_warning() {
                    tracing::warn!(%event, "standing by");
                } else {
                    tracing::info!(%event, "standing by");
                }
            }
            tokio::select! {
                () = controller.rest() => {}
                _ = needed.wait_for(|needed| !needed) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reaches_itself_where_it_listens() {
        for (listening, reached) in [
            ("0.0.0.0:9441", "127.0.0.1:9441"),
            ("[::]:9441", "[::1]:9441"),
            ("10.0.0.1:9441", "10.0.0.1:9441"),
            ("[fd00::1]:9441", "[fd00::1]:9441"),
        ] {
            assert_eq!(reached_here(listening.parse().unwrap()).to_string(), reached);
        }
    }
}
