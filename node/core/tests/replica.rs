//! Replicas that talk to each other through a test that carries every message by hand: what is delivered, and when the disk is
//! done, is the test's choice.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "this is a test: what is not there fails it"
)]

use std::collections::BTreeMap;

use zue_core::election::{First, Sealed, choose};
use zue_core::{
    ClusterId, EPOCHS_AHEAD_MAX, Epoch, FrameFacts, History, Input, KnownStarts, Limits, Lineage, Millis, Offset,
    Output, ProducerId, Producers, Promise, Recovered, Refusal, Replica, ReplicaId, Reply, RequestId, RoleView, Run,
    Runs, Session, Start, Tail, Terms, Ticket,
};

const CLUSTER: ClusterId = ClusterId(7);

/// A replica and what it has asked for that the test has not carried out yet.
struct Node {
    replica: Replica,
    disk: Vec<Output>,
}

struct World {
    nodes: BTreeMap<u128, Node>,
    replies: BTreeMap<u64, Reply>,
    next: u64,
    now: u64,
    /// Streams of the current leader: follower, session, cursor.
    streams: BTreeMap<u128, (Session, Tail)>,
    /// Followers whose stream is cut.
    unreachable: Vec<u128>,
    /// Replicas whose disk does nothing for now.
    stuck: Vec<u128>,
}

fn blank(id: u128) -> Recovered {
    Recovered {
        id: ReplicaId(id),
        cluster: None,
        promise: Promise::default(),
        history: History::default(),
        log: Tail::default(),
        commit_end: Offset(0),
        log_start: Offset(0),
        producers: Producers::default(),
        suspect: None,
        damaged: false,
        // What everybody knows of everybody changes nothing.
        starts: KnownStarts {
            lineage: Lineage::default(),
            runs: (1..=9).map(|id| (ReplicaId(id), Run::default())).collect(),
        },
        restored: false,
    }
}

impl World {
    fn new(count: u128) -> Self {
        let node = |id| Node { replica: Replica::new(Limits::default(), blank(id)), disk: vec![] };
        Self {
            nodes: (1..=count).map(|id| (id, node(id))).collect(),
            replies: BTreeMap::new(),
            next: 0,
            now: 0,
            streams: BTreeMap::new(),
            unreachable: vec![],
            stuck: vec![],
        }
    }

    /// Three replicas, the first of which leads epoch 1.
    fn led() -> Self {
        let mut world = Self::new(3);
        world.elect(1, &[1, 2, 3]);
        world
    }

    fn replica(&self, id: u128) -> &Replica {
        &self.nodes[&id].replica
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn step(&mut self, id: u128, input: Input) -> Vec<Output> {
        let mut out = vec![];
        let node = self.nodes.get_mut(&id).unwrap();
        node.replica.step(Millis(self.now), input, &mut out);
        for output in &out {
            match output {
                Output::WritePromise { .. }
                | Output::Cut { .. }
                | Output::WriteEpochStart { .. }
                | Output::WriteSuspect(..)
                | Output::WriteAppend { .. }
                | Output::WriteFrames { .. } => node.disk.push(output.clone()),
                Output::Reply(RequestId(request), reply) => {
                    assert!(self.replies.insert(*request, reply.clone()).is_none(), "a request was answered twice");
                }
                _ => {}
            }
        }
        out
    }

    /// Lets a replica's disk finish all its work.
    fn persist(&mut self, id: u128) -> Vec<Output> {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(last) = node.disk.drain(..).map(|work| ticket(&work)).max() else { return vec![] };
        self.step(id, Input::Persisted(last))
    }

    fn ask(&mut self, id: u128, input: impl FnOnce(RequestId) -> Input) -> u64 {
        let request = self.fresh();
        self.step(id, input(RequestId(request)));
        request
    }

    fn seal(&mut self, id: u128, epoch: u64) -> Result<Sealed, Reply> {
        let cluster = self.replica(id).cluster();
        let request = self.ask(id, |request| Input::Seal { request, cluster, epoch: Epoch(epoch) });
        self.persist(id);
        match self.replies.remove(&request) {
            Some(Reply::Sealed(sealed)) => Ok(sealed),
            other => Err(other.unwrap()),
        }
    }

    /// Seals `among`, appoints whom the rule names, and lets everything settle.
    fn elect(&mut self, epoch: u64, among: &[u128]) -> u128 {
        let answers: Vec<Sealed> = among.iter().map(|id| self.seal(*id, epoch).unwrap()).collect();
        let all: Vec<ReplicaId> = self.nodes.keys().map(|id| ReplicaId(*id)).collect();
        let first = Some(First { voters: &all, listed: &all });
        let choice = choose(&answers, Some(ReplicaId(1)), first, None, None).unwrap();
        let leader = choice.leader.0;
        let reply = self.appoint(leader, epoch);
        assert!(matches!(reply, Some(Reply::Appointed(_))), "{reply:?}");
        self.connect(leader);
        self.settle(leader);
        leader
    }

    fn terms(&self, epoch: u64) -> Terms {
        let voters = self.nodes.keys().map(|id| ReplicaId(*id)).collect::<Vec<_>>();
        let quorum = u32::try_from(voters.len() / 2 + 1).unwrap();
        Terms { epoch: Epoch(epoch), voters, quorum, old_voters: None }
    }

    fn appoint(&mut self, id: u128, epoch: u64) -> Option<Reply> {
        let terms = self.terms(epoch);
        let request = self.ask(id, |request| Input::Appoint { request, cluster: CLUSTER, terms });
        if !self.stuck.contains(&id) {
            self.persist(id);
        }
        self.replies.remove(&request)
    }

    /// All promise epoch 2, and the second replica leads it. Its streams are not open yet.
    fn appoint_the_second(&mut self) {
        for id in 1..=3 {
            self.seal(id, 2).unwrap();
        }
        assert!(matches!(self.appoint(2, 2), Some(Reply::Appointed(_))));
    }

    /// Opens the leader's streams to all that can be reached.
    fn connect(&mut self, leader: u128) {
        self.streams.clear();
        let of = self.replica(leader);
        let start = Start {
            cluster: CLUSTER,
            leader: ReplicaId(leader),
            epoch: of.history().last_epoch(),
            history: of.history().clone(),
            log: of.log(),
            commit_end: of.commit_end(),
            oldest: Offset(0),
            origin: None,
            runs: of.runs().clone(),
        };
        for id in self.nodes.keys().copied().filter(|id| *id != leader).collect::<Vec<_>>() {
            if self.unreachable.contains(&id) {
                continue;
            }
            let session = Session(self.fresh());
            let mut out = self.step(id, Input::Start { session, start: start.clone() });
            out.extend(self.persist(id));
            for output in out {
                if let Output::SendStarted { session, log, durable } = output {
                    self.streams.insert(id, (session, log));
                    self.step(
                        leader,
                        Input::Started {
                            from: ReplicaId(id),
                            session,
                            log,
                            durable,
                            lineage: Lineage::default(),
                            runs: Runs::default(),
                        },
                    );
                }
            }
        }
    }

    /// Feeds every follower all that the leader has.
    fn feed(&mut self, leader: u128) {
        let (end, commit_end) = (self.replica(leader).log(), self.replica(leader).commit_end());
        let round = self.replica(leader).round();
        for (id, (session, prev)) in self.streams.clone() {
            if self.unreachable.contains(&id) {
                continue;
            }
            if prev < end {
                let after = |epoch: Epoch| epoch > prev.epoch && epoch <= end.epoch;
                let starts = self.replica(leader).history().starts();
                let epoch_starts = starts.iter().filter(|start| after(start.epoch)).cloned().collect();
                let facts = FrameFacts { end, epoch_starts, appends: vec![] };
                self.step(id, Input::Frames { session, prev, facts, commit_end, round });
                self.streams.insert(id, (session, end));
            } else {
                let heartbeat = Input::Heartbeat { session, commit_end, log_end: end.end, round };
                let out = self.step(id, heartbeat);
                self.carry_acks(leader, id, out);
            }
        }
    }

    fn carry_acks(&mut self, leader: u128, from: u128, out: Vec<Output>) {
        for output in out {
            if let Output::SendAck { session, durable, round } = output {
                self.step(leader, Input::Acked { from: ReplicaId(from), session, durable, round, run: Run::default() });
            }
        }
    }

    /// Feeds, persists and acknowledges until nothing is left to do.
    fn settle(&mut self, leader: u128) {
        for _ in 0..4 {
            self.feed(leader);
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                if !self.stuck.contains(&id) {
                    let out = self.persist(id);
                    self.carry_acks(leader, id, out);
                }
            }
        }
    }

    /// A replica that holds nothing joins the world.
    fn join(&mut self, id: u128) {
        self.nodes.insert(id, Node { replica: Replica::new(Limits::default(), blank(id)), disk: vec![] });
    }

    /// Names the leader's learners; whom it feeds then, if it takes them.
    fn teach(&mut self, leader: u128, epoch: u64, learners: &[u128]) -> Result<Vec<u128>, Reply> {
        let request = RequestId(self.fresh());
        let learners = learners.iter().copied().map(ReplicaId).collect();
        let out = self.step(leader, Input::Learners { request, epoch: Epoch(epoch), learners });
        match self.replies.remove(&request.0) {
            Some(Reply::Learners(_)) => {}
            other => return Err(other.unwrap()),
        }
        let fed = out.into_iter().find_map(|output| match output {
            Output::Lead { followers, .. } => Some(followers.into_iter().map(|id| id.0).collect()),
            _ => None,
        });
        Ok(fed.unwrap())
    }

    /// Seals `among` and appoints `leader` with these voters, after those.
    fn change_voters(&mut self, leader: u128, epoch: u64, among: &[u128], voters: &[u128], old: Option<&[u128]>) {
        for id in among {
            self.seal(*id, epoch).unwrap();
        }
        let ids = |ids: &[u128]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
        let quorum = u32::try_from(voters.len() / 2 + 1).unwrap();
        let terms = Terms { epoch: Epoch(epoch), voters: ids(voters), quorum, old_voters: old.map(ids) };
        let request = self.ask(leader, |request| Input::Appoint { request, cluster: CLUSTER, terms });
        self.persist(leader);
        assert!(matches!(self.replies.remove(&request), Some(Reply::Appointed(_))));
    }

    fn progress(&self, leader: u128, of: u128) -> Option<(bool, bool)> {
        let RoleView::Leader { followers, .. } = self.replica(leader).role(Millis(self.now)) else { panic!() };
        let follower = followers.iter().find(|(id, _)| id.0 == of);
        follower.map(|(_, progress)| (progress.voter, progress.in_sync))
    }

    fn append(&mut self, id: u128, count: u32) -> u64 {
        self.ask(id, |request| Input::Append { request, producer: None, count, bytes: 1 })
    }

    /// The process dies and starts again from what its disk holds.
    fn restart(&mut self, id: u128) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.disk.is_empty(), "this test restarts only replicas whose disk is idle");
        let r = &node.replica;
        let recovered = Recovered {
            cluster: r.cluster(),
            promise: r.promise(),
            history: r.history().clone(),
            log: r.durable(),
            commit_end: r.commit_end(),
            ..blank(id)
        };
        *node = Node { replica: Replica::new(Limits::default(), recovered), disk: vec![] };
    }
}

fn ticket(work: &Output) -> Ticket {
    match work {
        Output::WritePromise { ticket, .. }
        | Output::Cut { ticket, .. }
        | Output::WriteEpochStart { ticket, .. }
        | Output::WriteSuspect(ticket, _)
        | Output::WriteAppend { ticket, .. }
        | Output::WriteFrames { ticket } => *ticket,
        other => panic!("{other:?} is no work for a disk"),
    }
}

fn appended(base: u64, count: u32, epoch: u64) -> Reply {
    Reply::Appended { base: Offset(base), count, epoch: Epoch(epoch), duplicate: false }
}

#[test]
fn an_append_is_answered_when_a_quorum_holds_it_durably_and_not_before() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    let request = world.append(1, 3);
    world.settle(1);
    assert_eq!(world.replies.get(&request), None, "only the leader has it on disk");
    world.stuck = vec![3];
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 3, 1)));
    assert_eq!(world.replica(1).commit_end(), Offset(3));
    assert_eq!(world.replica(2).commit_end(), Offset(3));
    assert_eq!(world.replica(3).commit_end(), Offset(0), "what is not durable here is not committed here");
}

#[test]
fn a_leader_may_commit_before_its_own_disk_is_done() {
    let mut world = World::led();
    world.stuck = vec![1];
    let request = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 1, 1)));
}

#[test]
fn a_leader_out_of_reach_of_its_followers_refuses_appends_by_name() {
    let mut world = World::led();
    world.now += 10_000;
    let request = world.append(1, 1);
    let refusal = Refusal::NoQuorum { in_reach: 1, voters: 3, quorum: 2 };
    assert_eq!(world.replies.get(&request), Some(&Reply::Refused(refusal)));
}

#[test]
fn a_new_leader_holds_appends_and_reads_while_its_followers_are_being_connected_to() {
    let mut world = World::led();
    world.appoint_the_second();
    let read = confirm_read(&mut world, 2);
    let early = world.append(2, 1);
    assert_eq!(world.replies.get(&early), Some(&Reply::Refused(Refusal::Connecting)), "it is held, and tried again");
    world.step(2, Input::Tick);
    assert_eq!(world.replies.get(&read), None, "nobody is late yet");
    world.connect(2);
    let request = world.append(2, 1);
    world.settle(2);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 1, 2)));
    assert_eq!(world.replies.remove(&read), Some(confirmed(0)));
}

#[test]
fn nobody_is_late_before_the_epoch_start_of_a_new_leader_is_durable() {
    let mut world = World::led();
    for id in 1..=3 {
        world.seal(id, 2).unwrap();
    }
    let late = Limits::default().sync.lag_ms_max + 1;
    world.stuck = vec![2];
    assert_eq!(world.appoint(2, 2), None, "its disk is slow");
    let mut waiting = vec![];
    for _ in 0..3 {
        world.now += late;
        waiting.push((world.append(2, 1), confirm_read(&mut world, 2)));
        world.step(2, Input::Tick);
    }
    world.stuck = vec![];
    world.now += late;
    world.persist(2);
    waiting.push((world.append(2, 1), confirm_read(&mut world, 2)));
    let held = Some(Reply::Refused(Refusal::Connecting));
    for (append, read) in &waiting {
        assert_eq!(
            (world.replies.get(append).cloned(), world.replies.get(read)),
            (held.clone(), None),
            "it feeds from now on"
        );
    }
    assert!(world.step(2, Input::Tick).iter().all(|output| !matches!(output, Output::StepDown)));
    world.connect(2);
    let request = world.append(2, 1);
    world.settle(2);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 1, 2)));
    for (_, read) in waiting {
        assert!(matches!(world.replies.get(&read), Some(Reply::ReadConfirmed { .. })));
    }
}

#[test]
fn a_follower_that_cuts_for_long_counts_until_it_has_had_its_time() {
    for (took, expected) in [(4900, None), (5100, Some(()))] {
        let mut world = World::led();
        world.unreachable = vec![3];
        world.seal(2, 2).unwrap();
        world.seal(1, 2).unwrap();
        assert!(matches!(world.appoint(1, 2), Some(Reply::Appointed(_))));
        world.connect(1);
        // Its disk is at what goes of its log with the first frames, and it answers meanwhile.
        world.stuck = vec![2];
        let first = world.append(1, 1);
        for _ in 0..took / 100 {
            world.now += 100;
            world.settle(1);
            world.step(1, Input::Tick);
        }
        let next = world.append(1, 1);
        assert_eq!(world.replies.get(&first), None);
        assert_eq!(world.replies.get(&next).map(drop), expected, "after {took} ms");
        world.stuck = vec![];
        world.settle(1);
        assert_eq!(world.replies.get(&first), Some(&appended(0, 1, 2)));
        // Once it has done that it is as any other.
        world.stuck = vec![2];
        world.append(1, 1);
        for _ in 0..21 {
            world.now += 100;
            world.settle(1);
        }
        let refused = world.append(1, 1);
        assert!(matches!(world.replies.get(&refused), Some(Reply::Refused(Refusal::NoQuorum { .. }))));
    }
}

#[test]
fn a_new_leader_that_reaches_nobody_refuses_appends_once_its_followers_are_late() {
    let mut world = World::led();
    world.appoint_the_second();
    world.now += Limits::default().sync.lag_ms_max + 1;
    let request = world.append(2, 1);
    let refusal = Refusal::NoQuorum { in_reach: 1, voters: 3, quorum: 2 };
    assert_eq!(world.replies.get(&request), Some(&Reply::Refused(refusal)));
}

#[test]
fn a_sealed_leader_answers_no_append_and_a_reappointed_one_answers_those_that_waited() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    let request = world.append(1, 1);
    world.feed(1);
    world.seal(1, 2).unwrap();
    world.stuck = vec![];
    world.settle(1);
    assert_eq!(world.replies.get(&request), None, "acknowledgements of epoch 1 come too late");
    let refused = world.append(1, 1);
    assert_eq!(world.replies.get(&refused), Some(&Reply::Refused(Refusal::NotLeader)));
    world.seal(2, 2).unwrap();
    assert!(matches!(world.appoint(1, 2), Some(Reply::Appointed(_))));
    world.connect(1);
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 1, 2)));
}

#[test]
fn a_follower_cuts_what_the_new_leader_does_not_have() {
    let mut world = World::led();
    world.unreachable = vec![2, 3];
    let lost = world.append(1, 5);
    world.persist(1);
    assert_eq!(world.elect(2, &[2, 3]), 2);
    let kept = world.append(2, 1);
    world.unreachable = vec![];
    world.connect(2);
    world.settle(2);
    assert_eq!(world.replies.get(&kept), Some(&appended(0, 1, 2)));
    assert_eq!(
        world.replies.get(&lost),
        Some(&Reply::Refused(Refusal::SteppedDown)),
        "its fate was unknown to the client"
    );
    for id in 1..=3 {
        assert_eq!(world.replica(id).durable(), Tail { epoch: Epoch(2), end: Offset(1) });
    }
}

#[test]
fn records_of_older_epochs_commit_only_with_the_start_of_the_new_one() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    world.append(1, 4);
    world.settle(1);
    world.stuck = vec![];
    for id in 1..=3 {
        world.persist(id); // all hold the records, nobody was told
    }
    let held = world.replica(2).durable();
    for id in 1..=3 {
        world.seal(id, 2).unwrap();
    }
    world.stuck = vec![2, 3];
    assert!(matches!(world.appoint(1, 2), Some(Reply::Appointed(_))));
    let session = Session(999);
    world.step(
        1,
        Input::Started {
            from: ReplicaId(2),
            session,
            log: held,
            durable: held,
            lineage: Lineage::default(),
            runs: Runs::default(),
        },
    );
    world.step(
        1,
        Input::Started {
            from: ReplicaId(3),
            session,
            log: held,
            durable: held,
            lineage: Lineage::default(),
            runs: Runs::default(),
        },
    );
    assert_eq!(world.replica(1).commit_end(), Offset(0), "both hold the records, none holds the epoch's start");
    let durable = Tail { epoch: Epoch(2), end: Offset(4) };
    world.step(1, Input::Acked { from: ReplicaId(2), session, durable, round: 0, run: Run::default() });
    assert_eq!(world.replica(1).commit_end(), Offset(4));
}

#[test]
fn leadership_does_not_survive_a_restart() {
    let mut world = World::led();
    world.restart(1);
    assert_eq!(world.appoint(1, 1), Some(Reply::Refused(Refusal::AlreadyStarted(Epoch(1)))));
    let request = world.append(1, 1);
    assert_eq!(world.replies.get(&request), Some(&Reply::Refused(Refusal::NotLeader)));
    assert_eq!(world.elect(2, &[1, 2, 3]), 1);
}

#[test]
fn an_epoch_is_promised_once() {
    let mut world = World::led();
    world.seal(2, 5).unwrap();
    for asked in [6 + EPOCHS_AHEAD_MAX, 1 << 40, u64::MAX] {
        let (asked, promised) = (Epoch(asked), Epoch(5));
        let far = Err(Reply::Refused(Refusal::TooFarAhead { asked, promised }));
        assert_eq!(world.seal(2, asked.0), far, "few could be promised after it");
    }
    let refused = |asked| Err(Reply::Refused(Refusal::Promised { asked: Epoch(asked), promised: Epoch(5) }));
    assert_eq!(world.seal(2, 5), refused(5));
    assert_eq!(world.seal(2, 4), refused(4));
    world.restart(2);
    assert_eq!(world.seal(2, 5), refused(5));
}

#[test]
fn what_a_leader_calls_committed_is_believed_once_its_epoch_has_begun_here() {
    let mut world = World::led();
    world.append(1, 3);
    let (before, session) = (world.replica(1).commit_end(), Session(99));
    let mut history = world.replica(1).history().starts().to_vec();
    let (epoch, leader, end) = (Epoch(2), ReplicaId(3), world.replica(1).log().end);
    history.push(zue_core::EpochStart { epoch, start: end, leader, ..history[0].clone() });
    let start = Start {
        cluster: CLUSTER,
        leader,
        epoch,
        history: History::new(history).unwrap(),
        log: Tail { epoch, end },
        commit_end: end,
        oldest: Offset(0),
        origin: None,
        runs: Runs::default(),
    };
    world.step(1, Input::Start { session, start });
    world.step(1, Input::Heartbeat { session, commit_end: end, log_end: end, round: 1 });
    world.persist(1);
    assert_eq!(world.replica(1).commit_end(), before, "nobody else has it");
}

#[test]
fn an_epoch_that_was_not_sealed_here_is_not_led() {
    let mut world = World::led();
    let refusal = Refusal::NotSealed { asked: Epoch(9), promised: Epoch(1) };
    assert_eq!(world.appoint(2, 9), Some(Reply::Refused(refusal)));
}

#[test]
fn a_sealed_follower_acknowledges_nothing_of_the_old_epoch() {
    let mut world = World::led();
    world.append(1, 1);
    world.feed(1);
    let cluster = Some(CLUSTER);
    world.ask(2, |request| Input::Seal { request, cluster, epoch: Epoch(2) });
    let out = world.persist(2);
    assert!(!out.iter().any(|output| matches!(output, Output::SendAck { .. })), "{out:?}");
    let sealed = out.iter().find_map(|output| match output {
        Output::Reply(_, Reply::Sealed(sealed)) => Some(sealed.durable),
        _ => None,
    });
    assert_eq!(sealed, Some(Tail { epoch: Epoch(1), end: Offset(1) }), "but it reports what it holds");
}

#[test]
fn a_second_leader_of_an_epoch_is_refused() {
    let mut world = World::led();
    let impostor = {
        let mut history = world.replica(1).history().starts().to_vec();
        history[0].leader = ReplicaId(3);
        let (epoch, log) = (Epoch(1), Tail { epoch: Epoch(1), end: Offset(0) });
        let history = History::new(history).unwrap();
        Start {
            cluster: CLUSTER,
            leader: ReplicaId(3),
            epoch,
            history,
            log,
            commit_end: Offset(0),
            oldest: Offset(0),
            origin: None,
            runs: Runs::default(),
        }
    };
    let session = Session(500);
    let out = world.step(2, Input::Start { session, start: impostor });
    let refusal = Refusal::OtherLeader { epoch: Epoch(1), leader: ReplicaId(1) };
    assert_eq!(out, [Output::Refuse { session, refusal }]);
}

#[test]
fn a_leader_whose_history_would_cut_what_is_committed_is_not_followed_and_that_is_all() {
    let mut world = World::led();
    world.append(1, 4);
    world.settle(1);
    world.settle(1);
    assert_eq!(world.replica(2).commit_end(), Offset(4));
    let mut starts = world.replica(1).history().starts().to_vec();
    let mut forged = starts[0].clone();
    (forged.epoch, forged.start, forged.leader) = (Epoch(2), Offset(1), ReplicaId(3));
    starts.push(forged);
    let (epoch, log) = (Epoch(2), Tail { epoch: Epoch(2), end: Offset(1) });
    let history = History::new(starts).unwrap();
    let start = Start {
        cluster: CLUSTER,
        leader: ReplicaId(3),
        epoch,
        history,
        log,
        commit_end: Offset(1),
        oldest: Offset(0),
        origin: None,
        runs: Runs::default(),
    };
    let session = Session(500);
    let out = world.step(2, Input::Start { session, start });
    let refusal = Refusal::Parted { parted: Offset(1), commit_end: Offset(4) };
    assert_eq!(out, [Output::Refuse { session, refusal }]);
    assert!(matches!(
        world.replica(2).role(Millis(0)),
        RoleView::Follower { leader: ReplicaId(1), connected: true, .. }
    ));
    world.append(1, 2);
    world.settle(1);
    assert_eq!(world.replica(2).log().end, Offset(6), "it goes on with the leader that it has");
    assert!(world.seal(2, 9).is_ok());
}

#[test]
fn frames_that_leave_a_gap_are_refused_and_repeated_ones_change_nothing() {
    let mut world = World::led();
    world.append(1, 2);
    world.settle(1);
    let (session, log) = world.streams[&2];
    let frames = |prev: u64, end: u64| {
        let tail = |end| Tail { epoch: Epoch(1), end: Offset(end) };
        let facts = FrameFacts { end: tail(end), epoch_starts: vec![], appends: vec![] };
        Input::Frames { session, prev: tail(prev), facts, commit_end: Offset(0), round: 0 }
    };
    let out = world.step(2, frames(3, 4));
    let prev = Tail { epoch: Epoch(1), end: Offset(3) };
    assert_eq!(out, [Output::Refuse { session, refusal: Refusal::Gap { prev, log } }]);
    assert_eq!(world.step(2, frames(2, 4)), [Output::Refuse { session, refusal: Refusal::OtherStream }]);
    assert_eq!(world.replica(2).log(), log);
}

#[test]
fn a_repeated_append_is_kept_once_and_answered_when_the_first_commits() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    let producer = Some((ProducerId { born: Offset(0), nonce: 5 }, 0));
    let first = world.ask(1, |request| Input::Append { request, producer, count: 2, bytes: 1 });
    let again = world.ask(1, |request| Input::Append { request, producer, count: 2, bytes: 1 });
    world.settle(1);
    assert_eq!((world.replies.get(&first), world.replies.get(&again)), (None, None));
    world.stuck = vec![];
    world.settle(1);
    assert_eq!(world.replies.get(&first), Some(&appended(0, 2, 1)));
    let duplicate = Reply::Appended { base: Offset(0), count: 2, epoch: Epoch(1), duplicate: true };
    assert_eq!(world.replies.get(&again), Some(&duplicate));
    assert_eq!(world.replica(1).log().end, Offset(2));
}

#[test]
fn a_hand_over_is_answered_when_the_target_holds_everything() {
    let mut world = World::led();
    world.stuck = vec![2];
    let request = world.append(1, 3);
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 3, 1)));
    let (epoch, to, deadline_ms) = (Epoch(1), ReplicaId(2), 1000);
    let hand_over = world.ask(1, |request| Input::HandOver { request, epoch, to, deadline_ms });
    world.settle(1);
    assert_eq!(world.replies.get(&hand_over), None);
    let held = world.append(1, 1);
    assert_eq!(world.replies.get(&held), Some(&Reply::Refused(Refusal::HandingOver)));
    world.stuck = vec![];
    world.settle(1);
    let log = Tail { epoch: Epoch(1), end: Offset(3) };
    assert_eq!(world.replies.get(&hand_over), Some(&Reply::HandedOver(log)));
    world.now += 1000;
    world.feed(1);
    world.step(1, Input::Tick);
    world.settle(1);
    let resumed = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replies.get(&resumed), Some(&appended(3, 1, 1)), "it goes on when nobody took over");
}

#[test]
fn a_follower_leaves_and_joins_the_isr_once_each() {
    let mut world = World::led();
    world.append(1, 1);
    world.settle(1);
    world.unreachable = vec![3];
    for _ in 0..5 {
        world.now += 1000;
        world.append(1, 2000);
        world.settle(1);
        world.step(1, Input::Tick);
    }
    let counts = world.replica(1).isr_counts();
    assert_eq!((counts.shrinks, counts.expands), (1, 0));
    world.unreachable = vec![];
    world.settle(1);
    let counts = world.replica(1).isr_counts();
    assert_eq!((counts.shrinks, counts.expands), (1, 1));
}

/// Lets time pass, and the replicas talk.
fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.now += 1000;
        world.settle(1);
        world.step(1, Input::Tick);
    }
}

#[test]
fn a_follower_whose_disk_hangs_leaves_the_isr_however_little_it_lacks() {
    let mut world = World::led();
    pass(&mut world, 10);
    world.stuck = vec![3];
    world.append(1, 1);
    pass(&mut world, 2);
    assert_eq!(world.progress(1, 3), Some((true, true)), "a disk may be slow");
    pass(&mut world, 1);
    assert_eq!(world.progress(1, 3), Some((true, false)));
    world.stuck = vec![];
    world.settle(1);
    assert_eq!(world.progress(1, 3), Some((true, true)));
}

#[test]
fn a_follower_that_lacks_little_and_gets_on_stays_in_the_isr() {
    let mut world = World::led();
    world.stuck = vec![3];
    for _ in 0..8 {
        world.append(1, 1);
        world.feed(1);
        world.append(1, 1);
        pass(&mut world, 1);
        let first = ticket(&world.nodes.get_mut(&3).unwrap().disk.remove(0));
        let out = world.step(3, Input::Persisted(first));
        world.carry_acks(1, 3, out);
        world.step(1, Input::Tick);
        assert_eq!(world.progress(1, 3), Some((true, true)));
    }
    assert!(!world.nodes[&3].disk.is_empty());
}

#[test]
fn appends_are_refused_while_the_disks_of_a_quorum_hang() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    let waits = world.append(1, 1);
    pass(&mut world, 3);
    let refused = world.append(1, 1);
    let refusal = Refusal::NoQuorum { in_reach: 1, voters: 3, quorum: 2 };
    assert_eq!(world.replies.get(&refused), Some(&Reply::Refused(refusal)));
    world.stuck = vec![3];
    world.settle(1);
    assert_eq!(world.replies.get(&waits), Some(&appended(0, 1, 1)));
    let taken = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replies.get(&taken), Some(&appended(1, 1, 1)));
}

#[test]
fn what_waits_is_told_when_the_quorum_is_lost_and_may_yet_be_committed() {
    let mut world = World::led();
    let committed = world.append(1, 2);
    world.settle(1);
    assert_eq!(world.replies.get(&committed), Some(&appended(0, 2, 1)));
    world.stuck = vec![2, 3];
    let waits = world.append(1, 1);
    let trim = world.ask(1, |request| Input::Trim { request, before: Offset(1) });
    // For as long as a follower may be silent they may hang, and as long again nobody is told.
    pass(&mut world, 3);
    assert_eq!((world.replies.get(&waits), world.replies.get(&trim)), (None, None));
    pass(&mut world, 1);
    let refusal = Reply::Refused(Refusal::LostQuorum { in_reach: 1, voters: 3, quorum: 2 });
    assert_eq!((world.replies.get(&waits), world.replies.get(&trim)), (Some(&refusal), Some(&refusal)));
    world.stuck = vec![];
    world.settle(1);
    assert_eq!(world.replica(1).commit_end(), Offset(3));
    let next = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replies.get(&next), Some(&appended(3, 1, 1)));
}

#[test]
fn a_failed_disk_ends_everything_that_would_acknowledge() {
    let mut world = World::led();
    let request = world.append(1, 1);
    world.step(1, Input::DiskFailed);
    assert_eq!(world.replies.get(&request), Some(&Reply::Refused(Refusal::SteppedDown)));
    let cluster = Some(CLUSTER);
    let seal = world.ask(1, |request| Input::Seal { request, cluster, epoch: Epoch(2) });
    assert_eq!(world.replies.get(&seal), Some(&Reply::Refused(Refusal::Failed)));
    assert_eq!(world.elect(2, &[2, 3]), 2);
}

#[test]
fn a_message_of_another_cluster_is_refused() {
    let mut world = World::led();
    let cluster = Some(ClusterId(8));
    let seal = world.ask(2, |request| Input::Seal { request, cluster, epoch: Epoch(2) });
    let refusal = Refusal::OtherCluster { ours: CLUSTER, theirs: cluster };
    assert_eq!(world.replies.get(&seal), Some(&Reply::Refused(refusal)));
}

#[test]
fn a_follower_answers_a_start_only_when_its_promise_and_its_cut_are_durable() {
    let mut world = World::led();
    let mut starts = world.replica(1).history().starts().to_vec();
    let mut next = starts[0].clone();
    (next.epoch, next.leader) = (Epoch(2), ReplicaId(3));
    starts.push(next);
    let (epoch, log) = (Epoch(2), Tail { epoch: Epoch(2), end: Offset(0) });
    let history = History::new(starts).unwrap();
    let start = Start {
        cluster: CLUSTER,
        leader: ReplicaId(3),
        epoch,
        history,
        log,
        commit_end: Offset(0),
        oldest: Offset(0),
        origin: None,
        runs: Runs::default(),
    };
    let session = Session(500);
    let out = world.step(2, Input::Start { session, start });
    assert!(matches!(out[..], [Output::WritePromise { epoch: Epoch(2), leader: Some(ReplicaId(3)), .. }]), "{out:?}");
    let out = world.persist(2);
    let log = world.replica(2).log();
    assert_eq!(out, [Output::SendStarted { session, log, durable: log }]);
}

#[test]
fn what_the_disk_has_not_done_yet_is_not_acknowledged() {
    let mut world = World::led();
    for _ in 0..2 {
        world.append(1, 1);
        world.feed(1);
    }
    let tickets: Vec<Ticket> = world.nodes[&2].disk.iter().map(ticket).collect();
    let session = world.streams[&2].0;
    let out = world.step(2, Input::Persisted(tickets[0]));
    let durable = Tail { epoch: Epoch(1), end: Offset(1) };
    assert_eq!(out, [Output::SendAck { session, durable, round: 0 }]);
    assert_eq!(world.replica(2).log().end, Offset(2));
}

#[test]
fn a_replica_whose_disk_is_full_votes_with_what_is_durable() {
    let mut world = World::led();
    world.append(1, 1);
    world.feed(1);
    let durable = world.replica(2).durable();
    assert!(durable < world.replica(2).log(), "a write waits");
    let request = world.ask(2, |request| Input::Seal { request, cluster: Some(CLUSTER), epoch: Epoch(7) });
    let promise = world.nodes[&2].disk.iter().map(ticket).max().unwrap();
    world.step(2, Input::Promised(promise));
    let Some(Reply::Sealed(sealed)) = world.replies.remove(&request) else { panic!("it is not sealed") };
    assert_eq!(sealed.durable, durable);
    // The write is made at last: it is not acknowledged any more.
    let out = world.persist(2);
    assert!(!out.iter().any(|output| matches!(output, Output::SendAck { .. } | Output::Reply(..))), "{out:?}");
}

#[test]
fn a_start_that_comes_late_does_not_cut_what_was_acknowledged_since() {
    let mut world = World::led();
    let of = world.replica(1);
    let start = Start {
        cluster: CLUSTER,
        leader: ReplicaId(1),
        epoch: Epoch(1),
        history: of.history().clone(),
        log: of.log(),
        commit_end: of.commit_end(),
        oldest: Offset(0),
        origin: None,
        runs: Runs::default(),
    };
    world.append(1, 10);
    world.settle(1);
    let durable = Tail { epoch: Epoch(1), end: Offset(10) };
    assert_eq!(world.replica(3).durable(), durable);
    let session = Session(500);
    let out = world.step(3, Input::Start { session, start });
    assert_eq!(out, [Output::SendStarted { session, log: durable, durable }]);
}

#[test]
fn a_leader_feeds_nobody_before_its_epoch_start_is_durable() {
    let mut world = World::new(3);
    for id in 1..=3 {
        world.seal(id, 1).unwrap();
    }
    let terms = world.terms(1);
    let mut out = vec![];
    let appoint = Input::Appoint { request: RequestId(900), cluster: CLUSTER, terms };
    world.nodes.get_mut(&1).unwrap().replica.step(Millis(0), appoint, &mut out);
    assert!(!out.iter().any(|output| matches!(output, Output::Lead { .. })), "{out:?}");
    let last = out.iter().map(ticket).max().unwrap();
    let out = world.step(1, Input::Persisted(last));
    assert!(out.iter().any(|output| matches!(output, Output::Lead { .. })), "{out:?}");
}

#[test]
fn a_cluster_that_was_named_without_an_epoch_start_binds_nobody() {
    let recovered = Recovered {
        cluster: Some(ClusterId(99)),
        promise: Promise { epoch: Epoch(1), leader: Some(ReplicaId(1)) },
        ..blank(1)
    };
    let mut world = World::new(3);
    world.nodes.get_mut(&1).unwrap().replica = Replica::new(Limits::default(), recovered);
    assert_eq!(world.elect(2, &[1, 2, 3]), 1);
    assert_eq!(world.replica(1).cluster(), Some(CLUSTER));
}

#[test]
fn a_replica_says_what_it_has_lost_until_it_holds_as_much_again() {
    let mut world = World::led();
    world.append(1, 4);
    world.settle(1);
    // Replica 3 has acknowledged 4 records and finds 1 of them.
    let (lost, found) = (world.replica(3).durable(), Tail { end: Offset(1), ..world.replica(3).durable() });
    let r = world.replica(3);
    let (cluster, promise, history) = (r.cluster(), r.promise(), r.history().clone());
    let recovered = Recovered { cluster, promise, history, log: found, suspect: Some(lost), ..blank(3) };
    world.nodes.get_mut(&3).unwrap().replica = Replica::new(Limits::default(), recovered.clone());
    assert_eq!(world.replica(3).suspect(), Some(lost));
    world.elect(2, &[1, 2, 3]);
    world.settle(1);
    assert_eq!(world.replica(3).suspect(), None, "{:?}", world.replica(3).durable());
    // What reaches as far when it starts has lost nothing.
    let whole = Recovered { log: lost, ..recovered };
    assert_eq!(Replica::new(Limits::default(), whole).suspect(), None);
}

#[test]
fn a_replica_that_has_started_since_it_sealed_an_epoch_does_not_lead_it() {
    let mut world = World::led();
    world.append(1, 4);
    world.settle(1);
    let held = world.seal(2, 2).unwrap().durable;
    assert_eq!(held.end, Offset(4), "so it may be chosen");
    // Its machine stops, and acknowledgements did not wait for its disk.
    let (r, log) = (world.replica(2), Tail { end: Offset(1), ..held });
    let (cluster, promise, history, suspect) = (r.cluster(), r.promise(), r.history().clone(), Some(held));
    let recovered = Recovered { cluster, promise, history, log, suspect, ..blank(2) };
    world.nodes.get_mut(&2).unwrap().replica = Replica::new(Limits::default(), recovered);
    assert_eq!(world.appoint(2, 2), Some(Reply::Refused(Refusal::SealedBeforeStart(Epoch(2)))));
    assert_eq!(world.elect(3, &[2, 3]), 3, "the next seal says what it holds");
}

#[test]
fn what_a_reboot_may_have_forgotten_is_bounded_by_the_log_of_the_leader_that_it_follows() {
    let mut world = World::led();
    world.append(1, 4);
    world.settle(1);
    // The machine of replica 3 has stopped, and acknowledgements did not wait for its disk.
    let (r, found) = (world.replica(3), Tail { end: Offset(1), ..world.replica(3).durable() });
    let forgotten = Tail { end: Offset(u64::MAX), ..found };
    let (cluster, promise, history) = (r.cluster(), r.promise(), r.history().clone());
    let recovered = Recovered { cluster, promise, history, log: found, suspect: Some(forgotten), ..blank(3) };
    world.nodes.get_mut(&3).unwrap().replica = Replica::new(Limits::default(), recovered.clone());
    world.connect(1);
    world.append(1, 3);
    world.feed(1);
    assert_eq!(world.replica(3).suspect(), Some(forgotten), "where the leader's log ends was not said yet");
    world.feed(1);
    let suspect = Tail { end: Offset(7), ..found };
    assert_eq!(world.replica(3).suspect(), Some(suspect));
    let is_written = |work: &Output| matches!(work, Output::WriteSuspect(_, tail) if *tail == suspect);
    assert!(world.nodes[&3].disk.iter().any(is_written));
    world.settle(1);
    assert_eq!(world.replica(3).suspect(), None);
    assert_eq!(world.elect(2, &[2, 3]), 2, "the first leader is not needed any more");
    // What it promised since is of a leader that it has not heard.
    let (promise, suspect) = (Promise { epoch: Epoch(3), leader: None }, Tail { epoch: Epoch(3), ..forgotten });
    let recovered = Recovered { promise, suspect: Some(suspect), ..recovered };
    world.nodes.get_mut(&3).unwrap().replica = Replica::new(Limits::default(), recovered);
    world.connect(2);
    world.settle(2);
    assert_eq!(world.replica(3).suspect(), Some(suspect));
}

#[test]
fn what_a_leader_said_before_it_heard_of_this_start_of_the_disk_bounds_nothing() {
    let mut world = World::led();
    let late = Start {
        cluster: CLUSTER,
        leader: ReplicaId(1),
        epoch: Epoch(1),
        history: world.replica(1).history().clone(),
        log: world.replica(1).log(),
        commit_end: Offset(0),
        oldest: Offset(0),
        origin: None,
        runs: world.replica(1).runs().clone(),
    };
    world.append(1, 4);
    world.settle(1);
    // It acknowledged all of that, starts again, and has lost some: then a stream comes that was opened before.
    let (r, held) = (world.replica(3), world.replica(3).durable());
    let (cluster, promise, history, log) =
        (r.cluster(), r.promise(), r.history().clone(), Tail { end: Offset(1), ..held });
    let lineage = Lineage { starts: 2, nonces: vec![7, 0] };
    let starts = KnownStarts { lineage, ..blank(3).starts };
    let recovered = Recovered { cluster, promise, history, log, suspect: Some(held), starts, ..blank(3) };
    world.nodes.get_mut(&3).unwrap().replica = Replica::new(Limits::default(), recovered);
    let session = Session(world.fresh());
    let log_end = late.log.end;
    world.step(3, Input::Start { session, start: late });
    world.step(3, Input::Heartbeat { session, commit_end: Offset(0), log_end, round: 1 });
    assert_eq!(world.replica(3).suspect(), Some(held));
}

#[test]
fn an_impossible_acknowledgement_changes_nothing() {
    let mut world = World::led();
    world.append(1, 4);
    world.settle(1);
    assert_eq!(world.elect(2, &[1, 2, 3]), 1);
    let before = world.replica(1).commit_end();
    for (epoch, end) in [(2, 0), (2, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        let durable = Tail { epoch: Epoch(epoch), end: Offset(end) };
        for from in [1, 2, 3, 99] {
            world.step(
                1,
                Input::Acked { from: ReplicaId(from), session: Session(1), durable, round: 0, run: Run::default() },
            );
            world.step(
                1,
                Input::Started {
                    from: ReplicaId(from),
                    session: Session(1),
                    log: durable,
                    durable,
                    lineage: Lineage::default(),
                    runs: Runs::default(),
                },
            );
        }
    }
    assert_eq!(world.replica(1).commit_end(), before);
}

#[test]
fn a_producer_may_not_run_further_ahead_than_is_remembered() {
    let mut world = World::led();
    world.stuck = vec![2, 3];
    let producer = ProducerId { born: Offset(0), nonce: 5 };
    let send = |world: &mut World, sequence| {
        world.ask(1, |request| Input::Append { request, producer: Some((producer, sequence)), count: 1, bytes: 1 })
    };
    for sequence in 0..64 {
        send(&mut world, sequence);
    }
    let refused = send(&mut world, 64);
    assert_eq!(world.replies.get(&refused), Some(&Reply::Refused(Refusal::ProducerOverloaded(64))));
    let again = send(&mut world, 0);
    world.stuck = vec![];
    world.settle(1);
    let duplicate = Reply::Appended { base: Offset(0), count: 1, epoch: Epoch(1), duplicate: true };
    assert_eq!(world.replies.get(&again), Some(&duplicate));
    for sequence in 64..128 {
        send(&mut world, sequence);
    }
    let long_ago = send(&mut world, 1);
    assert_eq!(world.replies.get(&long_ago), Some(&Reply::Refused(Refusal::Duplicate(1))), "it is committed");
}

// ---- members

#[test]
fn a_learner_is_fed_and_counts_for_nothing() {
    let mut world = World::led();
    world.append(1, 5);
    world.settle(1);
    world.join(4);
    assert_eq!(world.teach(1, 1, &[4]), Ok(vec![2, 3, 4]));
    world.step(1, Input::Tick);
    assert_eq!(world.progress(1, 4), Some((false, false)), "it has nothing yet");
    world.connect(1);
    world.settle(1);
    assert_eq!(world.replica(4).commit_end(), Offset(5));
    assert_eq!(world.progress(1, 4), Some((false, true)));
    world.stuck = vec![2, 3];
    let request = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replica(4).durable().end, Offset(6));
    assert_eq!(world.replies.get(&request), None, "two replicas of four hold it, but one of three voters");
}

#[test]
fn whom_the_controller_does_not_name_any_more_is_fed_no_more_but_voters_always_are() {
    let mut world = World::led();
    world.join(4);
    world.join(5);
    assert_eq!(world.teach(1, 1, &[4]), Ok(vec![2, 3, 4]));
    assert_eq!(world.teach(1, 1, &[5, 2, 1]), Ok(vec![2, 3, 5]));
    assert_eq!(world.progress(1, 2).map(|(voter, _)| voter), Some(true));
    assert_eq!(world.teach(1, 1, &[]), Ok(vec![2, 3]));
}

#[test]
fn learners_of_another_epoch_or_of_no_leader_are_refused() {
    let mut world = World::led();
    world.join(4);
    assert_eq!(world.teach(1, 2, &[4]), Err(Reply::Refused(Refusal::NotLeader)));
    assert_eq!(world.teach(2, 1, &[4]), Err(Reply::Refused(Refusal::NotLeader)));
    let many: Vec<u128> = (10..30).collect();
    assert!(matches!(world.teach(1, 1, &many), Err(Reply::Refused(Refusal::Impossible(_)))));
}

#[test]
fn a_change_of_voters_commits_nothing_before_a_majority_of_the_old_ones_has_it() {
    let mut world = World::new(2);
    world.elect(1, &[1, 2]);
    world.join(3);
    world.change_voters(1, 2, &[1, 2, 3], &[1, 2, 3], Some(&[1, 2]));
    world.connect(1);
    world.stuck = vec![2];
    let request = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replica(3).durable().end, Offset(1));
    assert_eq!(world.replies.get(&request), None, "two of three voters hold it, but one of the old two");
    world.stuck = vec![];
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(0, 1, 2)));
    // Settled: from here on the new voters alone decide.
    world.stuck = vec![2];
    let request = world.append(1, 1);
    world.settle(1);
    assert_eq!(world.replies.get(&request), Some(&appended(1, 1, 2)));
}

#[test]
fn a_voter_that_is_being_removed_is_fed_until_the_change_is_settled_in_a_later_epoch() {
    let mut world = World::led();
    world.change_voters(1, 2, &[1, 2, 3], &[1, 2], Some(&[1, 2, 3]));
    assert_eq!(world.teach(1, 2, &[]), Ok(vec![2, 3]));
    assert_eq!(world.progress(1, 3).map(|(voter, _)| voter), Some(false));
    world.connect(1);
    world.settle(1);
    world.change_voters(1, 3, &[1, 2, 3], &[1, 2], None);
    assert_eq!(world.teach(1, 3, &[]), Ok(vec![2]));
}

// ---- reads that are confirmed

fn confirm_read(world: &mut World, id: u128) -> u64 {
    world.ask(id, |request| Input::ConfirmRead { request })
}

fn confirmed(end: u64) -> Reply {
    Reply::ReadConfirmed { commit_end: Offset(end) }
}

#[test]
fn a_read_is_confirmed_by_a_majority_asked_after_it_came() {
    let mut world = World::led();
    world.append(1, 3);
    world.settle(1);
    // Whoever is asked before the read comes confirms nothing of it.
    let (session, _) = world.streams[&2];
    let durable = world.replica(2).durable();
    let before = world.replica(1).round();
    let read = confirm_read(&mut world, 1);
    world.step(1, Input::Acked { from: ReplicaId(2), session, durable, round: before, run: Run::default() });
    assert_eq!(world.replies.remove(&read), None);
    world.unreachable = vec![3];
    world.feed(1);
    assert_eq!(world.replies.remove(&read), Some(confirmed(3)));
}

#[test]
fn a_leader_alone_in_its_cluster_confirms_by_itself() {
    let mut world = World::new(1);
    world.elect(1, &[1]);
    let read = confirm_read(&mut world, 1);
    assert_eq!(world.replies.remove(&read), Some(confirmed(0)));
}

#[test]
fn a_deposed_leader_confirms_nothing_even_if_it_does_not_know() {
    let mut world = World::led();
    world.append(1, 3);
    world.settle(1);
    world.unreachable = vec![1];
    for id in [2, 3] {
        world.seal(id, 2).unwrap();
    }
    let read = confirm_read(&mut world, 1);
    world.unreachable.clear();
    world.settle(1);
    assert_eq!(world.replies.remove(&read), None);
    // It learns of its successor, and says so to who waits.
    world.seal(1, 3).unwrap();
    assert_eq!(world.replies.remove(&read), Some(Reply::Refused(Refusal::SteppedDown)));
}

#[test]
fn a_read_waits_until_the_epoch_has_committed_its_start() {
    let mut world = World::new(3);
    world.unreachable = vec![3];
    world.elect(1, &[1, 2, 3]);
    world.append(1, 4);
    world.feed(1);
    world.persist(1);
    // Four records are durable on 2, but it has not said so when the leader changes.
    world.persist(2);
    for id in [1, 2] {
        world.seal(id, 2).unwrap();
    }
    world.stuck = vec![2];
    assert!(matches!(world.appoint(1, 2), Some(Reply::Appointed(_))));
    world.connect(1);
    let read = confirm_read(&mut world, 1);
    world.settle(1);
    assert_eq!(world.replies.remove(&read), None, "nothing is committed in epoch 2, so nothing can be confirmed");
    world.stuck.clear();
    world.settle(1);
    world.settle(1);
    assert_eq!(world.replies.remove(&read), Some(confirmed(4)));
}

#[test]
fn an_answer_given_in_an_earlier_epoch_confirms_nothing() {
    let mut world = World::led();
    let (session, _) = world.streams[&2];
    let old = world.replica(2).durable();
    confirm_read(&mut world, 1);
    world.feed(1);
    world.elect(2, &[1, 2, 3]);
    let read = confirm_read(&mut world, 1);
    let round = world.replica(1).round();
    world.step(1, Input::Acked { from: ReplicaId(2), session, durable: old, round, run: Run::default() });
    assert_eq!(world.replies.remove(&read), None);
    world.feed(1);
    assert_eq!(world.replies.remove(&read), Some(confirmed(0)));
}

#[test]
fn reads_are_refused_by_who_does_not_lead_and_given_up_by_who_is_cut_off() {
    let mut world = World::led();
    let read = confirm_read(&mut world, 2);
    assert_eq!(world.replies.remove(&read), Some(Reply::Refused(Refusal::NotLeader)));
    let read = confirm_read(&mut world, 1);
    world.now += 10_000;
    world.step(1, Input::Tick);
    let no_quorum = Reply::Refused(Refusal::NoQuorum { in_reach: 1, voters: 3, quorum: 2 });
    assert_eq!(world.replies.remove(&read), Some(no_quorum.clone()));
    let read = confirm_read(&mut world, 1);
    assert_eq!(world.replies.remove(&read), Some(no_quorum));
}

#[test]
fn only_so_many_reads_wait() {
    let mut world = World::led();
    let max = Limits::default().reads_max;
    let reads: Vec<u64> = (0..=max).map(|_| confirm_read(&mut world, 1)).collect();
    let last = *reads.last().unwrap();
    assert_eq!(world.replies.remove(&last), Some(Reply::Refused(Refusal::TooManyReads(max))));
    world.feed(1);
    assert!(reads[..max].iter().all(|read| world.replies.remove(read) == Some(confirmed(0))));
}

// ---- producers that are not known

fn append_of(world: &mut World, id: u128, producer: ProducerId, sequence: u64) -> u64 {
    world.ask(id, |request| Input::Append { request, producer: Some((producer, sequence)), count: 1, bytes: 1 })
}

#[test]
fn a_producer_born_beyond_the_log_is_unknown_once_a_majority_says_that_this_replica_leads() {
    let mut world = World::led();
    let producer = ProducerId { born: Offset(9), nonce: 5 };
    let asked = append_of(&mut world, 1, producer, 0);
    assert_eq!(world.replies.get(&asked), None, "a deposed leader could not tell");
    world.feed(1);
    assert_eq!(world.replies.get(&asked), Some(&Reply::Refused(Refusal::UnknownProducer)));
    assert_eq!(world.replica(1).log().end, Offset(0));
    let mut alone = World::new(1);
    alone.elect(1, &[1]);
    let asked = append_of(&mut alone, 1, producer, 3);
    assert_eq!(alone.replies.get(&asked), Some(&Reply::Refused(Refusal::UnknownProducer)));
}

#[test]
fn a_deposed_leader_calls_no_producer_unknown_that_its_successor_knows() {
    let mut world = World::led();
    world.unreachable = vec![1];
    for id in [2, 3] {
        world.seal(id, 2).unwrap();
    }
    let asked = append_of(&mut world, 1, ProducerId { born: Offset(9), nonce: 5 }, 0);
    world.unreachable.clear();
    world.settle(1);
    assert_eq!(world.replies.get(&asked), None);
    world.seal(1, 3).unwrap();
    assert_eq!(world.replies.get(&asked), Some(&Reply::Refused(Refusal::NotLeader)));
    let mut world = World::led();
    let asked = append_of(&mut world, 1, ProducerId { born: Offset(9), nonce: 5 }, 0);
    world.now += 10_000;
    world.step(1, Input::Tick);
    assert_eq!(world.replies.get(&asked), Some(&Reply::Refused(Refusal::NotLeader)), "nobody answers it");
}

#[test]
fn only_so_many_producers_are_asked_about_and_reads_have_room_beside_them() {
    let mut world = World::led();
    let max = u64::try_from(Limits::default().reads_max).unwrap();
    let asked: Vec<u64> =
        (0..=max).map(|nonce| append_of(&mut world, 1, ProducerId { born: Offset(9), nonce }, 0)).collect();
    assert_eq!(world.replies.get(asked.last().unwrap()), Some(&Reply::Refused(Refusal::NotLeader)));
    let read = confirm_read(&mut world, 1);
    world.feed(1);
    assert_eq!(world.replies.get(&read), Some(&confirmed(0)));
    assert_eq!(world.replies.get(&asked[0]), Some(&Reply::Refused(Refusal::UnknownProducer)));
}

#[test]
fn a_producer_is_called_unknown_only_once_what_it_was_forgotten_for_is_committed() {
    let limits = zue_core::ProducerLimits { producers_max: 2, appends_max: 3, all_appends_max: 6 };
    let mut world = World::new(3);
    for (id, node) in &mut world.nodes {
        let recovered = Recovered { producers: Producers::new(limits), ..blank(*id) };
        node.replica = Replica::new(Limits::default(), recovered);
    }
    world.elect(1, &[1, 2, 3]);
    let id = |nonce| ProducerId { born: Offset(u64::from(nonce > 1)), nonce };
    let first = append_of(&mut world, 1, id(1), 0);
    world.settle(1);
    assert_eq!(world.replies.get(&first), Some(&appended(0, 1, 1)));
    world.stuck = vec![2, 3];
    // The first goes for records that may yet be cut.
    for nonce in [2, 3, 4] {
        append_of(&mut world, 1, id(nonce), 0);
    }
    let again = append_of(&mut world, 1, id(2), 0);
    assert_eq!(world.replies.get(&again), Some(&Reply::Refused(Refusal::PerhapsForgotten)));
    world.stuck = vec![];
    world.settle(1);
    let again = append_of(&mut world, 1, id(2), 0);
    assert_eq!(world.replies.get(&again), Some(&Reply::Refused(Refusal::UnknownProducer)));
}

// ---- a full disk

/// A leader whose disk has no room, and the request of an append that the others may commit.
fn full_leader(stuck: &[u128]) -> World {
    let mut world = World::led();
    world.stuck = stuck.to_vec();
    world.step(1, Input::DiskFull(true));
    world.append(1, 3);
    world.settle(1);
    world
}

fn leads(world: &World, id: u128) -> bool {
    matches!(world.replica(id).role(Millis(world.now)), zue_core::RoleView::Leader { .. })
}

#[test]
fn a_full_leader_makes_way_for_one_that_commits_without_it() {
    let mut world = full_leader(&[1]);
    assert_eq!(world.replica(1).commit_end(), Offset(3));
    world.now += 1999;
    world.settle(1);
    world.step(1, Input::Tick);
    assert!(leads(&world, 1), "it may find room yet");
    world.now += 1;
    assert!(world.step(1, Input::Tick).contains(&Output::StepDown));
    assert!(!leads(&world, 1));
    assert_eq!(world.elect(2, &[2, 3]), 2);
}

#[test]
fn a_full_leader_stays_while_nobody_commits_without_it_and_when_it_has_room_again() {
    let mut world = full_leader(&[1, 3]);
    world.now += 10_000;
    world.step(1, Input::Tick);
    assert!(leads(&world, 1), "one other is no quorum");
    let mut world = full_leader(&[1]);
    world.step(1, Input::DiskFull(false));
    world.now += 5_000;
    world.step(1, Input::Tick);
    assert!(leads(&world, 1));
}

// ---- a disk that hangs

#[test]
fn a_leader_whose_disk_hangs_makes_way_for_one_that_commits_without_it() {
    let mut world = World::led();
    pass(&mut world, 30);
    world.stuck = vec![1];
    world.append(1, 3);
    pass(&mut world, 2);
    assert_eq!(world.replica(1).commit_end(), Offset(3));
    assert!(leads(&world, 1), "a disk may be slow");
    pass(&mut world, 1);
    assert!(!leads(&world, 1));
    assert_eq!(world.elect(2, &[2, 3]), 2);
}

/// A leader whose disk does the first part of its work each second; how long it leads, at most so many seconds.
fn slow_leader(records: u32, others: &[u128]) -> usize {
    let mut world = World::led();
    world.stuck = [1].into_iter().chain([2, 3].into_iter().filter(|id| !others.contains(id))).collect();
    for seconds in 0..10 {
        world.append(1, records);
        world.append(1, records);
        world.settle(1);
        world.now += 1000;
        world.settle(1);
        let first = ticket(&world.nodes.get_mut(&1).unwrap().disk.remove(0));
        world.step(1, Input::Persisted(first));
        world.step(1, Input::Tick);
        if !leads(&world, 1) {
            return seconds;
        }
    }
    10
}

#[test]
fn a_leader_whose_disk_is_slow_goes_on_while_it_would_be_in_sync() {
    assert_eq!(slow_leader(3, &[2, 3]), 10);
}

#[test]
fn a_leader_whose_disk_falls_behind_makes_way_unless_nobody_could_take_over() {
    assert!((2..5).contains(&slow_leader(1500, &[2, 3])));
    assert_eq!(slow_leader(1500, &[2]), 10, "one other is no quorum");
}

#[test]
fn a_leader_whose_disk_hangs_stays_while_the_others_are_no_better_off() {
    let mut world = World::led();
    world.stuck = vec![1, 2, 3];
    world.append(1, 3);
    pass(&mut world, 60);
    assert!(leads(&world, 1));
}

#[test]
fn a_follower_that_lacks_many_bytes_is_not_in_sync_however_few_records_they_are() {
    let mut world = World::led();
    world.settle(1);
    let limits = Limits::default().sync;
    let (epoch, first) = (world.replica(1).log().epoch, world.replica(1).log().end);
    let bytes = limits.lag_bytes_max / 8;
    for _ in 0..20 {
        world.ask(1, |request| Input::Append { request, producer: None, count: 1, bytes });
    }
    let session = world.streams[&3].0;
    let acks = |world: &mut World, records: u64| {
        world.now += limits.lag_ms_max / 2 + 1;
        let durable = Tail { epoch, end: first.plus(records) };
        world.step(1, Input::Acked { from: ReplicaId(3), session, durable, round: 0, run: Run::default() });
        world.progress(1, 3).unwrap().1
    };
    assert!(acks(&mut world, 1), "it had all a moment ago");
    assert!(!acks(&mut world, 2), "it lacks 18 records, and more bytes than may be under way");
    assert!(!acks(&mut world, 11));
    assert!(acks(&mut world, 12));
}

#[test]
fn a_learner_is_in_sync_only_once_it_holds_the_start_of_the_epoch() {
    let mut world = World::led();
    world.settle(1);
    world.teach(1, world.replica(1).log().epoch.0, &[4]).unwrap();
    let (log, session) = (world.replica(1).log(), Session(77));
    let (lineage, runs) = (Lineage::default(), Runs::default());
    let behind = Tail { epoch: Epoch(log.epoch.0 - 1), ..log };
    world.step(1, Input::Started { from: ReplicaId(4), session, log: behind, durable: behind, lineage, runs });
    assert_eq!(world.progress(1, 4), Some((false, false)), "it ends as far, and lacks the start");
    world.step(1, Input::Acked { from: ReplicaId(4), session, durable: log, round: 0, run: Run::default() });
    assert_eq!(world.progress(1, 4), Some((false, true)));
}

fn shown(world: &World, leader: u128) -> (Vec<u128>, Vec<u128>) {
    let RoleView::Leader { electorate, isr, .. } = world.replica(leader).role(Millis(world.now)) else { panic!() };
    let numbers = |ids: Vec<ReplicaId>| ids.into_iter().map(|id| id.0).collect();
    (numbers(electorate), numbers(isr))
}

#[test]
fn while_the_voters_change_those_before_are_shown_until_an_epoch_without_them_is_committed() {
    let mut world = World::new(2);
    world.elect(1, &[1, 2]);
    world.settle(1);
    world.join(3);
    let (before, after) = ((vec![1, 2], vec![1, 2]), (vec![1, 2, 3], vec![1, 2, 3]));
    world.change_voters(1, 2, &[1, 2, 3], &[1, 2, 3], Some(&[1, 2]));
    world.connect(1);
    world.settle(1);
    assert_eq!(shown(&world, 1), before, "its start is committed, and an election may still ask those before");
    world.change_voters(1, 3, &[1, 2, 3], &[1, 2, 3], None);
    assert_eq!(shown(&world, 1), before, "nobody else has heard of the end of the change");
    world.connect(1);
    world.settle(1);
    assert_eq!(shown(&world, 1), after);
}

// ---- a damaged record that nobody else has

#[test]
fn a_damaged_leader_that_commits_no_more_makes_way_for_one_that_is_whole() {
    let held_up = |damaged| {
        let mut world = World::led();
        pass(&mut world, 30);
        // The others are sent nothing that lies behind what cannot be read.
        world.stuck = vec![2, 3];
        world.append(1, 3);
        world.step(1, Input::Damaged(damaged));
        pass(&mut world, 1);
        assert!(leads(&world, 1), "it may be repaired yet");
        pass(&mut world, 1);
        world
    };
    let mut world = held_up(true);
    assert!(!leads(&world, 1));
    world.stuck = vec![];
    assert_eq!(world.elect(2, &[1, 2, 3]), 2);
    assert_eq!(world.replica(1).log(), world.replica(2).log());
    assert!(leads(&held_up(false), 1), "the others are only slow");
}
