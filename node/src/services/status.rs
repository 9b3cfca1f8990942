//! The driver's status, for controllers and clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zue_core::{Epoch, Progress, ReplicaId, RoleView};
use zue_proto::{PROTOCOL_VERSION, id_bytes, v1};

use crate::driver::Driver;
use crate::driver::member::Member;
use crate::driver::state::{Reach, Role};
use crate::num::{narrow, wide};
use crate::services::errors::{invalid, not_leader};

/// The problem of a replica that holds a log and belongs to no cluster, for people.
const SEED: &str = "its log was restored from a backup, and it is of no cluster yet: a new one begins with it once every node answers and all \
                    others are empty. To have it join one that there is, empty its disk";

/// The problem of a disk that is a copy, for people.
pub(crate) const RESTORED: &str = "this disk was restored from an older copy: its promises and acknowledgements since then are lost, so \
    it takes part in nothing. Delete its volume: it comes back as a new replica and copies its data from the others";

impl Driver {
    pub(crate) fn role(&self) -> Role {
        match self.engine.replica().role(self.now()) {
            RoleView::Idle { .. } => Role::Idle,
            RoleView::Follower { .. } => Role::Follower,
            RoleView::Leader { .. } => Role::Leader,
            RoleView::Failed => Role::Failed,
        }
    }

    /// The names of the voters in sync, for people; none where none leads. One whose stream has ended may be dead: it is not told to be
    /// in sync, however little it lacked.
    pub(crate) fn isr_names(&self) -> Arc<[String]> {
        let (Some(leading), RoleView::Leader { isr, followers, .. }) =
            (&self.leading, self.engine.replica().role(self.now()))
        else {
            return Arc::default();
        };
        let has_ended =
            |id: ReplicaId| followers.iter().any(|(other, follower)| *other == id && follower.session.is_none());
        let in_sync = leading.members.iter().filter(|member| isr.contains(&member.id) && !has_ended(member.id));
        in_sync.map(|member| member.name.clone()).collect()
    }

    /// The voters that a leader's appends need, and those in reach.
    pub(crate) fn reach(&self) -> Reach {
        match self.engine.replica().role(self.now()) {
            RoleView::Leader { quorum, writing, .. } => Reach { quorum, writing: narrow(wide(writing)) },
            _ => Reach::default(),
        }
    }

    /// True while a follower's stream from its leader is open.
    pub(crate) fn is_connected(&self) -> Option<bool> {
        match self.engine.replica().role(self.now()) {
            RoleView::Follower { connected, .. } => Some(connected),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> v1::StatusResponse {
        let replica = self.engine.replica();
        let identity = &self.parts.handle.identity;
        let (promise, counts) = (replica.promise(), replica.isr_counts());
        let mut status = v1::StatusResponse {
            name: identity.name.clone(),
            replica_id: id_bytes(identity.id.0),
            cluster_id: replica.begun_cluster().map(|id| id_bytes(id.0)).unwrap_or_default(),
            starts: identity.lineage.starts,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: PROTOCOL_VERSION,
            promised: promise.epoch.0,
            promised_leader: promise.leader.map(|id| id_bytes(id.0)).unwrap_or_default(),
            // As a seal would answer: one that is not durable may yet be forgotten.
            last_epoch_start: replica.history().at(replica.durable().epoch).map(Into::into),
            log_start: self.parts.handle.ends.borrow().log_start.0,
            log: Some(replica.log().into()),
            durable: Some(replica.durable().into()),
            commit_end: replica.commit_end().0,
            problem: self.problem().as_deref().unwrap_or_default().to_owned(),
            client_address: identity.client_address.clone(),
            durability: identity.durability.to_owned(),
            isr_shrinks: counts.shrinks,
            isr_expands: counts.expands,
            suspect: replica.suspect().map(Into::into),
            damaged: replica.is_damaged(),
            leaving: self.orders.leaving,
            clock_ahead_ms: self.clocks.ahead_ms,
            log_time_ahead_ms: self.clocks.log_ahead_ms,
            members: self.known_members().iter().map(Member::to_wire).collect(),
            can_stand_by: true,
            standby: self.parts.standing.rule.known().map(|standby| standby.to_wire()),
            ..v1::StatusResponse::default()
        };
        match replica.role(self.now()) {
            RoleView::Idle { waiting_ms } => {
                status.set_role(v1::Role::Idle);
                status.leader_silence_ms = Some(waiting_ms);
            }
            RoleView::Failed => status.set_role(v1::Role::Failed),
            RoleView::Follower { silence_ms, connected, .. } => {
                status.set_role(v1::Role::Follower);
                status.leader_connected = connected;
                status.leader_silence_ms =
                    Some(self.following.heard.as_ref().map_or(silence_ms, |heard| heard.silence_ms()));
            }
            RoleView::Leader { epoch, settled, handing_over, followers, electorate, isr, .. } => {
                status.set_role(v1::Role::Leader);
                status.settled = settled;
                self.parts.standing.elected_by.as_ref().clone_into(&mut status.elected_by);
                status.handing_over = handing_over;
                status.switch_to = self.wanted(epoch).map(|id| id_bytes(id.0)).unwrap_or_default();
                status.isr = isr.into_iter().map(|id| id_bytes(id.0)).collect();
                status.followers = followers
                    .iter()
                    .map(|(id, progress)| self.follower(*id, progress, electorate.contains(id)))
                    .collect();
            }
        }
        status
    }

    /// The problem for people: of its storage or its log, or that the cluster goes on without it.
    pub(crate) fn problem(&self) -> Option<Arc<str>> {
        let replica = self.engine.replica();
        if replica.is_restored() {
            return Some(RESTORED.into());
        }
        let full = || self.troubles.full.as_ref().map(|full| full.to_string().into());
        let of_storage = self.troubles.failure.clone().or_else(full).or_else(|| self.troubles.damage.clone());
        let known = of_storage.or_else(|| self.troubles.neglected.clone());
        let known = known.or_else(|| self.troubles.parted.clone());
        known.or_else(|| self.left()).or_else(|| self.clocks.problem().map(Into::into))
    }

    /// The words for people if it is no member any more: nobody feeds it, and it is no voter of the newest epoch that it knows.
    pub(crate) fn left(&self) -> Option<Arc<str>> {
        let replica = self.engine.replica();
        let fed = match replica.role(self.now()) {
            RoleView::Leader { .. } | RoleView::Failed => true,
            RoleView::Follower { connected, .. } => connected,
            RoleView::Idle { .. } => false,
        };
        if replica.is_seed() {
            return Some(SEED.into());
        }
        let start = replica.history().last().filter(|_| !fed)?;
        let said = || format!("no member since epoch {}: it follows nobody, and its data stays here", start.epoch);
        (!start.voters.contains(&replica.id())).then(|| said().into())
    }

    /// Tells whether no leader has fed it for so long that others may be far ahead: removed while it was down, it would not know. One that
    /// leads needs nobody.
    pub(crate) fn is_unfed(&self) -> bool {
        let silence_ms = match self.engine.replica().role(self.now()) {
            RoleView::Leader { .. } | RoleView::Failed => return false,
            RoleView::Idle { waiting_ms } => waiting_ms,
            RoleView::Follower { silence_ms, connected, .. } => {
                let heard = self.following.heard.as_ref().filter(|_| connected);
                heard.map_or(silence_ms, |heard| heard.silence_ms())
            }
        };
        Duration::from_millis(silence_ms) >= self.parts.unfed_max
    }

    fn known_members(&self) -> Arc<[Member]> {
        let led = self.leading.as_ref().map(|leading| Arc::clone(&leading.members));
        led.or_else(|| self.following.leader.as_ref().map(|(_, members)| Arc::clone(members))).unwrap_or_default()
    }

    fn follower(&self, id: ReplicaId, progress: &Progress, voter: bool) -> v1::FollowerStatus {
        let leading = self.leading.as_ref();
        let member = leading.and_then(|leading| leading.members.iter().find(|member| member.id == id));
        let problem = leading.and_then(|leading| match leading.feeds.get(&id) {
            Some(feed) => feed.note.problem(),
            None => Some("its address is not known, so it gets no records".to_owned()),
        });
        let log_end = self.engine.replica().log().end;
        let lag_records = progress.lag_records(log_end);
        v1::FollowerStatus {
            replica_id: id_bytes(id.0),
            name: member.map(|member| member.name.clone()).unwrap_or_default(),
            connected: progress.session.is_some(),
            in_sync: progress.in_sync,
            durable: Some(progress.durable.into()),
            lag_records,
            lag_ms: if lag_records == 0 && progress.session.is_some() {
                0
            } else {
                progress.caught_up.map_or(u64::MAX, |caught_up| self.now().since(caught_up))
            },
            voter,
            lag_bytes: Some(progress.lag_bytes),
            problem: problem.unwrap_or_default(),
        }
    }

    /// Takes note of who is wanted to lead: the controller reads it in the status.
    pub(crate) fn switch_over(&mut self, to: &str, within: Duration) -> Result<(), v1::Error> {
        let (RoleView::Leader { epoch, .. }, Some(leading)) = (self.engine.replica().role(self.now()), &self.leading)
        else {
            return Err(not_leader(&self.parts.handle.view.borrow()));
        };
        let voters = || leading.members.iter().filter(|member| member.voter);
        let Some(to) = voters().find(|voter| voter.name == to).map(|voter| voter.id) else {
            let names: Vec<&str> = voters().map(|voter| voter.name.as_str()).collect();
            return Err(invalid(format!("no voter is named {to:?}; there are: {}", names.join(", "))));
        };
        self.orders.switch_to = Some((epoch, to, Instant::now() + within));
        Ok(())
    }

    /// The replica that is still wanted to lead instead of this one.
    pub(crate) fn wanted(&self, epoch: Epoch) -> Option<ReplicaId> {
        let (asked, to, until) = self.orders.switch_to?;
        Some(to).filter(|_| asked == epoch && Instant::now() < until)
    }
}
