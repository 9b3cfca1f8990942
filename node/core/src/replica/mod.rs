//! A replica: takes facts, gives work. The one place where a role changes. Knows no disk, no network and no clock.

pub(crate) mod backlog;
pub(crate) mod clocks;
pub(crate) mod follow;
pub(crate) mod incarnations;
pub(crate) mod joint;
pub(crate) mod lead;
pub(crate) mod persist;
pub(crate) mod progress;
pub(crate) mod read_index;
pub(crate) mod role_view;
pub(crate) mod state;
pub(crate) mod trim;
pub(crate) mod waiting;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::replica::follow::may_vote;
use crate::replica::joint::Joint;
use crate::replica::progress::Leader;
use crate::replica::state::{Asked, Counts, Doubts, Following, LeaderFacts, LogState, Pending, Replica, Role, Starts};
use crate::replica::waiting::Effect;
use crate::types::history::EpochStart;
use crate::types::incarnations::KnownStarts;
use crate::types::io::{Input, Millis, RequestId, Session, Start, Terms};
use crate::types::output::{Output, Reply};
use crate::types::recovered::{Limits, Promise, Recovered};
use crate::types::refusal::Refusal;
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Epoch, Offset, Tail};

impl Replica {
    /// A replica that starts: it leads and follows nothing until told to.
    pub fn new(limits: Limits, recovered: Recovered) -> Self {
        let Recovered { id, cluster, promise, history, log, commit_end, log_start, producers, .. } = recovered;
        let Recovered { suspect, damaged, starts: KnownStarts { lineage, mut runs }, restored, .. } = recovered;
        // It knows its own start best.
        runs.learn(id, lineage.run(), |_| true);
        let cluster = cluster.filter(|_| promise.binds(id, history.last()) || suspect.is_some());
        let suspect = suspect.filter(|suspect| *suspect > log);
        let log = LogState {
            history,
            tail: log,
            durable: log,
            commit_end: commit_end.max(log_start).min(log.end),
            start: log_start,
            trimmed: log_start,
            producers,
        };
        let replica = Self {
            id,
            limits,
            cluster,
            promise,
            log,
            doubts: Doubts { suspect, sealed_before_start: promise.epoch, damaged },
            starts: Starts { lineage, noted: runs.clone(), runs, restored },
            role: if restored { Role::Failed } else { Role::Idle },
            idle_since: Millis::default(),
            counts: Counts::default(),
            disk: Asked::default(),
            waiting: BTreeMap::new(),
        };
        replica.check();
        replica
    }

    /// Takes one fact, as of `now`, and adds to `out` the work that follows from it.
    pub fn step(&mut self, now: Millis, input: Input, out: &mut Vec<Output>) {
        let (start_before, commit_before) = (self.log.start, self.log.commit_end);
        let (promise_before, round_before) = (self.promise, self.counts.round);
        let (asked_before, begun_before) = (self.disk.issued, self.cluster.filter(|_| !self.log.history.is_empty()));
        let (was_idle, had_failed) = (self.role == Role::Idle, self.role == Role::Failed);
        let (led, others) = (matches!(self.role, Role::Leader(_)), out.len());
        if let Role::Leader(leader) = &mut self.role
            && !leader.begun
        {
            leader.start_clocks(now);
        }
        match input {
            Input::Seal { request, cluster, epoch } => self.seal(request, cluster, epoch, out),
            Input::Appoint { request, cluster, terms } => self.appoint(now, request, cluster, terms, out),
            Input::Learners { request, epoch, learners } => self.learners(now, request, epoch, learners, out),
            Input::HandOver { request, epoch, to, deadline_ms } => {
                self.hand_over(now, request, epoch, to, deadline_ms, out);
            }
            Input::Append { request, producer, count, bytes } => {
                self.append(now, request, producer, (count, bytes), out);
            }
            Input::ConfirmRead { request } => self.confirm_read(now, request, out),
            Input::Persisted(ticket) => self.persist(now, ticket, out),
            Input::Promised(ticket) => self.promised(ticket, out),
            Input::DiskFull(is_full) => self.disk.full_since = is_full.then(|| self.disk.full_since.unwrap_or(now)),
            Input::Damaged(is_damaged) => self.doubts.damaged = is_damaged,
            Input::DiskFailed => self.fail(out),
            Input::Tick => self.tick(now, out),
            Input::Clock(shown) => self.hear_clock(shown),
            Input::Started { from, session, log: _, durable, lineage, runs } => {
                let run = lineage.run();
                if !self.is_exposed_by(from, &runs, out) {
                    self.meet(from, &lineage, &runs, out);
                    self.started(now, from, session, durable, run, out);
                }
            }
            Input::Acked { from, session: _, durable, round, run } => {
                self.acked(now, from, durable, round, run, out);
            }
            Input::Disconnected { from, session } => self.disconnected(now, from, session),
            Input::Start { session, start } => self.start(now, session, start, out),
            Input::Frames { session, prev, facts, commit_end, round } => {
                let told = LeaderFacts { commit_end, log_end: facts.end.end, round };
                self.frames(now, session, prev, facts, told, out);
            }
            Input::Heartbeat { session, commit_end, log_end, round } => {
                self.heartbeat(now, session, LeaderFacts { commit_end, log_end, round }, out);
            }
            Input::Runs { session, runs } => self.hear_of_runs(session, runs, out),
            Input::StreamEnded { session } => self.stream_ended(session),
            Input::Trim { request, before } => self.trim(request, before, out),
            Input::Trimmed { from, log_start } => self.follower_trimmed(from, log_start, out),
            Input::LogStart { session, log_start } => self.leader_trimmed(session, log_start, out),
        }
        if self.role == Role::Idle && !(was_idle && promise_before.epoch == self.promise.epoch) {
            self.idle_since = now;
        }
        assert!(commit_before <= self.log.commit_end, "the commit end fell");
        assert!(start_before <= self.log.start, "the log's start fell");
        assert!(promise_before.allows(self.promise), "a promise fell, or was given to two leaders");
        assert!(round_before <= self.counts.round, "a round fell");
        assert!(asked_before <= self.disk.issued, "a ticket was given twice");
        assert!(begun_before.is_none_or(|before| self.cluster == Some(before)), "the log has gone to another cluster");
        assert!(!had_failed || self.role == Role::Failed, "a failed replica takes part again");
        let asked = out.get(others..).unwrap_or_default();
        self.check_asked(asked_before, asked);
        self.check_told((promise_before, commit_before, led), asked);
        self.check();
    }

    // ---- promises and appointments

    fn seal(&mut self, request: RequestId, cluster: Option<ClusterId>, epoch: Epoch, out: &mut Vec<Output>) {
        if let Err(refusal) = self.may_promise(cluster, epoch) {
            return out.push(Output::Reply(request, Reply::Refused(refusal)));
        }
        // From here on nothing of a lower epoch is accepted or acknowledged. Waiting appends are kept: this replica has the
        // longest log and may well be appointed again.
        self.leave_role(out);
        debug_assert!(self.role == Role::Idle, "a replica promises an epoch, and goes on in an earlier one");
        self.write_promise(Promise { epoch, leader: None }, self.cluster, out);
        self.after_disk(Effect::Sealed(request, epoch));
    }

    fn may_promise(&self, cluster: Option<ClusterId>, epoch: Epoch) -> Result<(), Refusal> {
        // What was restored is sealed for the first epoch of a cluster, and for no cluster that there is.
        if !(self.is_seed() && cluster.is_none() && self.role != Role::Failed) {
            self.may_serve(cluster)?;
        }
        if epoch <= self.promise.epoch {
            return Err(Refusal::Promised { asked: epoch, promised: self.promise.epoch });
        }
        self.is_near(epoch)
    }

    /// To promise an epoch that is far ahead would leave few above it.
    pub(crate) fn is_near(&self, epoch: Epoch) -> Result<(), Refusal> {
        let promised = self.promise.epoch;
        let is_near = epoch <= promised || epoch.follows(promised);
        if is_near { Ok(()) } else { Err(Refusal::TooFarAhead { asked: epoch, promised }) }
    }

    /// Returns whether a message of this cluster may be served at all. A blank replica serves any: a cluster begins with an epoch start,
    /// and one that was only named binds nobody. One that was restored has a log and no cluster: it begins one, and follows nobody.
    pub(crate) fn may_serve(&self, cluster: Option<ClusterId>) -> Result<(), Refusal> {
        let has_begun = !self.log.history.is_empty() || self.doubts.suspect.is_some();
        match (&self.role, self.cluster.filter(|_| has_begun)) {
            (Role::Failed, _) => Err(Refusal::Failed),
            (_, Some(ours)) if cluster != Some(ours) => Err(Refusal::OtherCluster { ours, theirs: cluster }),
            (_, None) if self.is_seed() => Err(Refusal::NotBlank),
            _ => Ok(()),
        }
    }

    pub(crate) fn sealed(&self) -> Sealed {
        Sealed {
            replica: self.id,
            cluster: self.cluster,
            last: self.log.history.at(self.log.durable.epoch).cloned(),
            durable: self.log.durable,
            commit_end: self.log.commit_end,
            suspect: self.doubts.suspect,
            damaged: self.doubts.damaged,
            lineage: self.starts.lineage.clone(),
            runs: self.starts.noted.clone(),
        }
    }

    fn appoint(&mut self, now: Millis, request: RequestId, cluster: ClusterId, terms: Terms, out: &mut Vec<Output>) {
        let Terms { epoch, voters, quorum, old_voters } = terms;
        let start = EpochStart { epoch, start: self.log.tail.end, leader: self.id, voters, quorum, old_voters };
        if let Err(refusal) = self.may_lead(cluster, &start) {
            return out.push(Output::Reply(request, Reply::Refused(refusal)));
        }
        if let Err(_out_of_order) = self.log.history.push(start.clone()) {
            return out.push(Output::Reply(request, Reply::Refused(Refusal::AlreadyStarted(epoch))));
        }
        debug_assert!(self.role == Role::Idle, "one is to lead that leads or follows already");
        debug_assert!(self.doubts.sealed_before_start < epoch, "one leads that may have forgotten an acknowledgement");
        self.write_promise(Promise { epoch, leader: Some(self.id) }, Some(cluster), out);
        self.log.tail.epoch = epoch;
        let ticket = self.next_ticket();
        out.push(Output::WriteEpochStart { ticket, start: start.clone() });
        self.after_disk(Effect::Durable(self.log.tail));
        // It feeds nobody before its epoch start is durable: were it to forget it, a repeated appointment could lead the epoch
        // a second time, from another place.
        self.after_disk(Effect::Appointed(request, epoch));
        self.role = Role::Leader(Leader::new(start, now, self.limits.sync));
    }

    fn may_lead(&self, cluster: ClusterId, start: &EpochStart) -> Result<(), Refusal> {
        // What was restored leads the first epoch of a cluster whose id is new.
        if !self.is_seed() || self.role == Role::Failed {
            self.may_serve(Some(cluster))?;
        }
        // The promise must be durable too: it is, once no work of the disk on it is left.
        let sealing = self.disk.effects.iter().any(|(_, effect)| matches!(effect, Effect::Sealed(..)));
        if self.promise.epoch != start.epoch || sealing {
            return Err(Refusal::NotSealed { asked: start.epoch, promised: self.promise.epoch });
        }
        if self.log.history.last_epoch() >= start.epoch {
            return Err(Refusal::AlreadyStarted(start.epoch));
        }
        if start.epoch <= self.doubts.sealed_before_start {
            return Err(Refusal::SealedBeforeStart(start.epoch));
        }
        match self.promise.leader {
            Some(leader) => return Err(Refusal::OtherLeader { epoch: start.epoch, leader }),
            None => start.check().map_err(Refusal::Impossible)?,
        }
        match self.log.history.last() {
            Some(_) if self.is_seed() && self.log.history.is_left_by(start) => Ok(()),
            // It would be taken for one that was restored, should it stop now.
            Some(last) if !last.names(self.id) => {
                Err(Refusal::Impossible("the epoch before, which it holds, has other voters"))
            }
            _ => may_vote(&self.log.history, start),
        }
    }

    /// Stops leading or following; what is promised next decides what comes after.
    pub(crate) fn leave_role(&mut self, out: &mut Vec<Output>) {
        if let Role::Leader(leader) = &mut self.role {
            if let Some(request) = leader.hand_over.take().and_then(|hand_over| hand_over.request) {
                out.push(Output::Reply(request, Reply::Refused(Refusal::SteppedDown)));
            }
            leader.abandon_reads(out);
            leader.abandon_trims(&Refusal::SteppedDown, out);
            out.push(Output::StepDown);
        }
        if self.role != Role::Failed {
            self.role = Role::Idle;
        }
    }

    // ---- following

    fn start(&mut self, now: Millis, session: Session, start: Start, out: &mut Vec<Output>) {
        if let Err(refusal) = self.may_follow(&start) {
            if let Refusal::TooFarAhead { .. } = refusal {
                self.come_nearer(out);
            }
            return out.push(Output::Refuse { session, refusal });
        }
        if self.contradicts(start.leader, &start.runs) {
            let refusal = Refusal::Impossible("its leader's disk has started since, or is another copy of it");
            return out.push(Output::Refuse { session, refusal });
        }
        // Histories that part below what is committed here are of no leader that was elected: it is not listened to, that is all.
        let joint = match self.joint(&start) {
            Ok(joint) => joint,
            Err(refusal) => return out.push(Output::Refuse { session, refusal }),
        };
        self.leave_role(out);
        self.abandon_waiting(&Refusal::SteppedDown, out);
        let Start { cluster, leader, epoch, history: _, log, commit_end, oldest: _, origin, runs } = start;
        let promise = Promise { epoch, leader: Some(leader) };
        if self.promise != promise || self.cluster.is_none() {
            self.write_promise(promise, Some(cluster), out);
        }
        let pending = match joint {
            Joint::End => None,
            Joint::Cut(to) => Some(Pending::Cut(to)),
            Joint::Origin => origin.map(|origin| Pending::Reset(Box::new(origin))),
        };
        let (session_now, leader_log_end) = (Some(session), log.end);
        self.role = Role::Follower(Following {
            session: session_now,
            leader,
            epoch,
            heard: now,
            commit_end,
            leader_log_end,
            log_start: Offset(0),
            round: 0,
            agreed_ms: None,
            runs,
            pending,
        });
        if self.holds_leaders_start() && self.believe(out) {
            return out.push(Output::Refuse { session, refusal: Refusal::Restored });
        }
        self.after_disk(Effect::Started(session));
        self.drain_effects(now, out);
    }

    /// The tail of what this log shares with the leader's; none if the leader has forgotten too much to tell.
    pub(crate) fn shared_with(&self, start: &Start) -> Option<Tail> {
        // Within its epoch the leader's log only grows, and what was taken from it is a part of it: a start that comes late,
        // with an end from long ago, must not cut what has been acknowledged since.
        let same_epoch = self.log.history.last_epoch() == start.epoch;
        let leader_end = if same_epoch { self.log.tail.end.max(start.log.end) } else { start.log.end };
        let shared = self.log.history.common(self.log.tail.end, &start.history, leader_end);
        debug_assert!(shared.is_none_or(|shared| shared <= self.log.tail), "more is shared than is in this log");
        shared.or_else(|| (start.oldest == Offset(0)).then(Tail::default))
    }
}
