//! The task that elects where no controller does: the machine of control, driven as the operator drives it, but without a store. It rests
//! as long as this replica has a leader.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zue_controller::{Controller, NodeAddress, Patience, StandbyTimes, Store};
use zue_core::control::Recorded;
use zue_engine::standby::{self, Duty};
use zue_tls::Dial;

use crate::driver::leaderless::DriverStandby;
use crate::driver::member::Identity;
use crate::process::vital::Vitals;
use crate::standby::{Standby, keep, load};

/// The time that a node may take to tell its status: one that hangs is not to hold up the rest.
const CALL_MS: u64 = 400;

/// A standby writes nothing down anywhere.
#[derive(Debug)]
struct Nowhere;

/// Nobody asks.
#[derive(Debug, thiserror::Error)]
#[error("a standby node has no record")]
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
) -> DriverStandby {
    let known = load(data_dir, identity).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the standby settings: no standby until the leader sends them again");
        None
    });
    let known = known.map(Arc::new);
    let (told, terms) = watch::channel(known.clone());
    let (duties, duty) = watch::channel(None);
    let (identity, own_address) = (Arc::clone(identity), reached_here(listening));
    let standing_by = StandingBy { identity, own_address, data_dir: data_dir.to_owned(), terms, duty, dial };
    let (vital, stop) = (vitals.task("who stands by", stop), stop.clone());
    tokio::spawn(vital.run(async move { _ = stop.run_until_cancelled(standing_by.run()).await }));
    let elected_for = zue_proto::v1::ElectionReason::Unspecified;
    DriverStandby {
        rule: standby::StandbyState::new(known),
        terms: told,
        duty: duties,
        elected_by: "".into(),
        elected_for,
    }
}

/// The address at which this process reaches itself, whatever its name is resolved to.
fn reached_here(listening: SocketAddr) -> SocketAddr {
    let loopback = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(loopback, listening.port())
}

/// The parts of an election.
#[derive(Debug)]
struct StandingBy {
    identity: Arc<Identity>,
    own_address: SocketAddr,
    data_dir: PathBuf,
    terms: watch::Receiver<Option<Arc<Standby>>>,
    /// The duty, while this replica has lost its leader, or wants to lead no more.
    duty: watch::Receiver<Option<Duty<Standby>>>,
    /// The way to the others.
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
                tracing::warn!(%error, "cannot save the standby settings: after a restart, no standby until the leader sends them again");
            }
        }
    }

    async fn act_when_needed(&self) {
        let mut duty = self.duty.clone();
        while let Ok(known) = duty.wait_for(Option::is_some).await.map(|known| known.clone()) {
            if let Some(known) = known {
                self.act(known).await;
            }
        }
    }

    /// Turns of the machine, until this replica has a leader or is told otherwise.
    async fn act(&self, known: Duty<Standby>) {
        let (mut duty, (terms, own)) = (self.duty.clone(), &known);
        let is_it = |now: &Option<Duty<Standby>>| now.as_ref() == Some(&known);
        let node = |member: &crate::driver::member::Member| NodeAddress {
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            dial_address: (member.id == self.identity.id).then(|| self.own_address.to_string()),
            last_address: member.dial_address,
            replica: Some(member.id),
        };
        let nodes: Vec<NodeAddress> = terms.members.iter().map(node).collect();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wish = standby::wish(terms.as_ref());
        let times = StandbyTimes { after_ms: ms(terms.after), ..StandbyTimes::default() };
        let patience = Patience { call_ms: CALL_MS, ..Patience::default() };
        let controller = Controller::standing_by(Nowhere, *own, self.identity.name.clone(), times, patience);
        let mut controller = controller.dialling(self.dial.clone());
        while is_it(&duty.borrow()) {
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
                now = duty.wait_for(|now| !is_it(now)) => if now.is_err() { return },
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
