//! Carrying out what the replica asks for: bytes to the disk and to memory, answers to who waits, news to who watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zue_core::{Epoch, Input, Joint, Refusal, ReplicaId, Reply, RoleView, Session, Ticket};
use zue_engine::driver::StreamAnswer;
use zue_log::Batch;

use crate::driver::handle::{Outbox, Waiter};
use crate::driver::member::Member;
use crate::driver::state::{Ends, FollowerView, LeaderView, Leadership, ReplicaView, Role};
use crate::driver::{Action, Driver, Leading, SenderTask};
use crate::num::wide;
use crate::services::status::RESTORED;
use crate::storage::{Share, Task, Work};

impl Driver {
    pub(crate) fn carry_out(&mut self, mut actions: Vec<Action>) {
        let mut parted = None;
        for action in actions.drain(..) {
            match action {
                Action::Disk(task) => self.task(task),
                Action::Lengthen(ticket, batch, share) => self.lengthen(ticket, batch, share),
                Action::Answer(waiter, reply) => self.answer(waiter, reply),
                Action::Say(session, word) => self.say(session, word),
                Action::Lead(epoch, followers) => self.lead(epoch, &followers),
                Action::StepDown => self.step_down(),
                // A leader may commit before its own sync: the log writes down no more than is durable.
                Action::Committed(end) => {
                    self.parts.storage.note_commit(end);
                    self.leads_for_good();
                }
                Action::Parted(problem) => parted = Some(problem),
            }
        }
        self.actions = actions;
        if let Some(problem) = parted {
            tracing::error!(problem, "internal error: replica state and log disagree; stopping");
            self.fail(problem.into());
        }
    }

    fn task(&mut self, task: Task) {
        match &task.work {
            Work::Promise { .. } | Work::Runs(_) => self.turn.view_is_stale = true,
            Work::Restored => {
                tracing::error!("{RESTORED}");
                self.turn.view_is_stale = true;
            }
            Work::Cut(to) => tracing::warn!(%to, "cutting the records that the leader does not have"),
            Work::Reset(origin) => {
                tracing::warn!(at = %origin.at, "the leader's log starts past this replica's end: beginning a new log there");
            }
            _ => {}
        }
        self.turn.tasks.push(task);
    }

    fn lengthen(&mut self, ticket: Ticket, batch: Batch, share: Option<Share>) {
        let records = batch.record_count();
        if records > 0 {
            self.parts.metrics.append_records.inc_by(records);
            self.parts.metrics.append_bytes.inc_by(wide(batch.bytes().len()));
        }
        self.parts.cache.push(batch.clone());
        self.turn.tasks.push(Task { ticket, work: Work::Write(batch), share });
    }

    fn answer(&mut self, Waiter { reply: waiter, since }: Waiter, reply: Reply) {
        match (&reply, since) {
            (Reply::Appointed(_), _) => self.turn.view_is_stale = true,
            (Reply::Appended { .. }, Some(since)) => {
                self.parts.metrics.commit_duration.observe(since.elapsed().as_secs_f64());
            }
            _ => {}
        }
        self.turn.answers.push((waiter, reply));
    }

    fn say(&mut self, session: Session, word: StreamAnswer) {
        match word {
            StreamAnswer::Started(log, durable) => {
                // All that was asked of the disk is done. What a joint takes is still there.
                let last_ms = self.parts.storage.last_timestamp_ms();
                self.send(session, |outbox| {
                    outbox.started = Some((log, durable, outbox.joint_ms.unwrap_or(last_ms)));
                });
            }
            StreamAnswer::Ack(durable, round) => self.send(session, |outbox| outbox.ack = Some((durable, round))),
            StreamAnswer::Trimmed(log_start) => self.send(session, |outbox| outbox.trimmed = Some(log_start)),
            StreamAnswer::Refused(refusal) => self.refuse(session, refusal),
        }
    }

    // ---- following

    /// The time of the last record before a joint that takes something of the log: none that follows may be older. Refuses to cut
    /// inside an append: a leader's log ends between appends, and so does every copy of it. Reads one record of the disk, and only where
    /// the logs part.
    pub(crate) fn joint_ms(&self, start: &zue_core::Start) -> Result<Option<u64>, Refusal> {
        match self.engine.replica().joint(start) {
            Ok(Joint::Cut(to)) => match self.parts.peers.reader.cut_ms(to.end) {
                Ok(Some(last_ms)) => Ok(Some(last_ms)),
                Ok(None) => Err(Refusal::Impossible("the logs part inside an append")),
                // It is on its way to the disk. Whoever leads tries again.
                Err(_) => Err(Refusal::Impossible("what is to be cut is not written yet")),
            },
            Ok(Joint::Origin) => Ok(start.origin.as_ref().map(|origin| origin.timestamp_ms)),
            // The replica says why not.
            Ok(Joint::End) | Err(_) => Ok(None),
        }
    }

    pub(crate) fn send(&self, session: Session, change: impl FnOnce(&mut Outbox)) {
        if let Some(outbox) = self.outboxes.get(&session) {
            outbox.send_modify(change);
        }
    }

    pub(crate) fn refuse(&mut self, session: Session, refusal: Refusal) {
        if !self.outboxes.contains_key(&session) {
            return; // It has been told before.
        }
        tracing::warn!(%refusal, "refusing a leader's stream");
        let promised = self.engine.replica().promise().epoch;
        if let Refusal::Parted { .. } = refusal {
            self.troubles.parted = Some(refusal.to_string().into());
        }
        self.turn.view_is_stale = true;
        self.send(session, |outbox| outbox.refused = Some((refusal, promised)));
        self.outboxes.remove(&session);
    }

    // ---- leading

    fn lead(&mut self, epoch: Epoch, followers: &[ReplicaId]) {
        let Some(cluster) = self.engine.replica().cluster() else { return };
        let (me, members) = self.members(epoch);
        let leadership = Arc::new(Leadership { cluster, epoch, me, members: Arc::clone(&members) });
        // A leader's handshake must not name an end that lies before its epoch's start.
        self.publish_ends();
        let (stop, fed, mut feeds) = self.leading.take().map_or_else(
            || (CancellationToken::new(), Arc::default(), BTreeMap::new()),
            |Leading { stop, members, feeds }| (stop, members, feeds),
        );
        let member_of = |members: &[Member], id| members.iter().find(|member| member.id == id).cloned();
        let goes_on = |id: &ReplicaId| followers.contains(id) && member_of(&fed, *id) == member_of(&members, *id);
        let ended = feeds.extract_if(.., |id, _| !goes_on(id));
        ended.for_each(|(id, feed)| {
            feed.stop.cancel();
            if let Some(member) = member_of(&fed, id) {
                self.parts.metrics.feeds_no_more(&member.name);
            }
        });
        for follower in followers {
            if feeds.contains_key(follower) {
                continue;
            }
            let Some(member) = member_of(&members, *follower) else {
                tracing::warn!(replica = %follower, "no address is known for this follower: it gets no records");
                continue;
            };
            let stop = stop.child_token();
            let note = self.parts.peers.spawn(&leadership, member, self.parts.handle.clone(), stop.clone());
            feeds.insert(*follower, SenderTask { note, stop });
        }
        tracing::info!(%epoch, followers = wide(followers.len()), "leading");
        self.begins_to_lead(epoch);
        self.leading = Some(Leading { stop, members, feeds });
        (self.following.leader, self.troubles.parted) = (None, None);
        self.turn.view_is_stale = true;
    }

    /// Takes note of where voters are that were looked for elsewhere. Who was looked for there is nowhere that is known.
    pub(crate) fn move_voters(&mut self, epoch: Epoch, moved: Vec<Member>) {
        let Some(start) = self.engine.replica().history().last() else { return };
        let Some((_, members)) = self.orders.appointed.as_mut().filter(|(appointed, _)| *appointed == epoch) else {
            return;
        };
        for member in moved {
            let voter = start.voters.contains(&member.id);
            if voter || start.old_voters.iter().flatten().any(|old| *old == member.id) {
                members.retain(|known| known.id != member.id && known.name != member.name);
                members.push(Member { voter, ..member });
            }
        }
    }

    /// This replica, and all members of the epoch that it leads by their names.
    fn members(&self, epoch: Epoch) -> (Member, Arc<[Member]>) {
        let named = self.orders.appointed.as_ref().filter(|(appointed, _)| *appointed == epoch);
        let mut members: Vec<Member> = named.map(|(_, members)| members.clone()).unwrap_or_default();
        let learners =
            self.orders.learners.iter().filter(|learner| members.iter().all(|member| member.id != learner.id));
        let learners: Vec<Member> = learners.cloned().collect();
        // A node holds one replica: where a learner is, a voter of that name is no more.
        members.retain(|member| learners.iter().all(|learner| learner.name != member.name));
        members.extend(learners);
        let identity = &self.parts.handle.identity;
        // What this replica says of itself beats what the controller knows of it.
        let me = Member {
            id: identity.id,
            name: identity.name.clone(),
            peer_address: identity.peer_address.clone(),
            client_address: identity.client_address.clone(),
            dial_address: members.iter().find(|member| member.id == identity.id).and_then(|me| me.dial_address),
            voter: true,
        };
        members.retain(|member| member.id != me.id);
        members.push(me.clone());
        members.sort_by(|a, b| a.name.cmp(&b.name));
        (me, members.into())
    }

    fn step_down(&mut self) {
        if let Some(leading) = self.leading.take() {
            leading.stop.cancel();
            tracing::info!("stepping down");
            self.change.led_until = Some(Instant::now());
        }
        self.orders.learners.clear();
        self.parts.cache.clear();
        self.parts.metrics.feeds_nobody();
        self.turn.view_is_stale = true;
    }

    // ---- publishing

    /// Gives the disk its work, the others the news, and then those who wait their answers.
    pub(crate) fn publish(&mut self) {
        while !self.turn.tasks.is_empty() {
            self.give_work();
        }
        self.publish_ends();
        if std::mem::take(&mut self.turn.view_is_stale) {
            let view = self.view();
            replace(&self.parts.published.view, view);
        }
        self.parts.answers.give(&mut self.turn.answers);
    }

    /// A follower may wait for its disk, once: the leader goes on with another. One that leads must not.
    fn give_work(&mut self) {
        let tasks = self.turn.tasks.drain(..);
        if self.leading.is_some() || !self.parts.inbox.disk.is_empty() {
            return self.parts.storage.push(tasks);
        }
        let begun = Instant::now();
        let done = self.parts.storage.write(tasks);
        if let Some(heard) = &self.following.heard {
            heard.was_away(begun.elapsed());
        }
        if let Some(ticket) = done {
            self.persisted(ticket);
        }
    }

    /// All work up to this ticket is durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        let epoch = self.engine.replica().durable().epoch;
        self.step(Input::Persisted(ticket));
        self.turn.view_is_stale |= self.engine.replica().durable().epoch != epoch;
    }

    fn publish_ends(&self) {
        let replica = self.engine.replica();
        let (log, durable, commit_end) = (replica.log(), replica.durable(), replica.commit_end());
        let changed = |ends: &mut Ends| {
            let new = Ends { log_start: replica.log_start(), log, durable, commit_end, round: replica.round() };
            let changed = *ends != new;
            *ends = new;
            changed
        };
        self.parts.published.ends.send_if_modified(changed);
        let end = self.parts.published.ends.borrow().readable();
        self.parts.published.readable.send_if_modified(|readable| std::mem::replace(readable, end) != end);
    }

    /// The members as they are shown: who votes as far as that is settled.
    fn as_settled(&self, members: &[Member]) -> Arc<[Member]> {
        let RoleView::Leader { electorate, .. } = self.engine.replica().role(self.now()) else { return members.into() };
        members.iter().map(|member| Member { voter: electorate.contains(&member.id), ..member.clone() }).collect()
    }

    /// The followers that the leader does not reach, and why.
    fn unreached(&self) -> Arc<[(ReplicaId, String)]> {
        let feeds = self.leading.iter().flat_map(|leading| &leading.feeds);
        feeds.filter_map(|(id, feed)| Some((*id, feed.note.problem()?))).collect()
    }

    fn view(&self) -> ReplicaView {
        let replica = self.engine.replica();
        let (role, left) = (self.role(), self.left());
        let (leader, members) = match role {
            Role::Leader => (
                Some(zue_proto::v1::LeaderHint {
                    name: self.parts.handle.identity.name.clone(),
                    address: self.parts.handle.identity.client_address.clone(),
                }),
                self.leading.as_ref().map(|leading| self.as_settled(&leading.members)),
            ),
            Role::Idle | Role::Failed if left.is_none() => (None, None),
            Role::Follower | Role::Idle | Role::Failed => (
                self.following.leader.as_ref().map(|(leader, _)| leader.to_hint()),
                self.following.leader.as_ref().map(|(_, members)| Arc::clone(members)),
            ),
        };
        ReplicaView {
            role,
            cluster: replica.cluster(),
            epoch: replica.history().last_epoch(),
            leader,
            members: members.unwrap_or_default(),
            as_leader: LeaderView {
                unreached: self.unreached(),
                isr: self.isr_names(),
                reach: self.reach(),
                elected_by: self.leading.as_ref().map(|_| Arc::clone(&self.parts.standing.elected_by)),
            },
            as_follower: FollowerView { connected: self.is_connected(), unfed: self.is_unfed() },
            full: self.troubles.full.clone(),
            left,
            problem: self.problem(),
            runs: Arc::new(replica.runs().clone()),
            standby: self.parts.standing.rule.known().cloned(),
        }
    }
}

fn replace(sender: &watch::Sender<ReplicaView>, view: ReplicaView) {
    sender.send_if_modified(|old| {
        let changed = *old != view;
        *old = view;
        changed
    });
}
