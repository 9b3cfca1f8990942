//! The plan for every shape of a cluster.

use alloc::vec;

use super::*;
use crate::quorum::majority;
use crate::types::EPOCHS_AHEAD_MAX;

const AUTOMATIC: Wish = Wish {
    replicas: 3,
    policy: Policy::Automatic,
    ordinal: 0,
    switch_to: None,
    detection_ms: 1000,
    quorum: None,
    standby_after_ms: None,
};
const STATIC: Wish = Wish { policy: Policy::Static, ..AUTOMATIC };
const CLUSTER: ClusterId = ClusterId(9);

#[expect(clippy::unnecessary_wraps, reason = "a node as the plan sees it")]
fn blank(replica: u128) -> Option<ReplicaStatus> {
    Some(ReplicaStatus {
        replica: ReplicaId(replica),
        cluster: None,
        promised: Epoch(0),
        bound: None,
        last: None,
        durable: Tail::default(),
        suspect: None,
        damaged: false,
        leaving: false,
        role: IDLE,
    })
}

fn member(replica: u128, epoch: u64, role: ReplicaRole) -> Option<ReplicaStatus> {
    let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
    let start =
        EpochStart { epoch: Epoch(epoch), start: Offset(0), leader: ReplicaId(1), voters, quorum: 2, old_voters: None };
    let durable = Tail { epoch: Epoch(epoch), end: Offset(0) };
    Some(ReplicaStatus {
        cluster: Some(CLUSTER),
        promised: Epoch(epoch),
        last: Some(start),
        durable,
        role,
        ..blank(replica)?
    })
}

fn leading(followers: &[(u128, bool)]) -> ReplicaRole {
    leading_at(followers.iter().map(|(id, in_sync)| (ReplicaId(*id), *in_sync, Offset(5))).collect())
}

fn leading_at(followers: Vec<(ReplicaId, bool, Offset)>) -> ReplicaRole {
    ReplicaRole::Leader {
        log_end: Offset(5),
        settled: true,
        followers,
        far: vec![],
        handing_over: false,
        switch_to: None,
    }
}

const IDLE: ReplicaRole = ReplicaRole::Idle { waiting_ms: 10 };
const FORSAKEN: ReplicaRole = ReplicaRole::Idle { waiting_ms: 1000 };
const HEARS: ReplicaRole = ReplicaRole::Follower { silence_ms: 90, connected: true };
const ENDED: ReplicaRole = ReplicaRole::Follower { silence_ms: 90, connected: false };
const SILENT: ReplicaRole = ReplicaRole::Follower { silence_ms: 1000, connected: true };

fn recorded(epoch: u64) -> Recorded {
    Recorded { epoch: Epoch(epoch), leader: None, cluster: Some(CLUSTER) }
}

#[test]
fn a_new_cluster_begins_when_all_replicas_answer_and_are_blank() {
    let elect = Step::Elect {
        epoch: Epoch(1),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::Bootstrap,
    };
    assert_eq!(plan(&STATIC, &Recorded::default(), &[blank(1), blank(2), blank(3)]), elect);
    let waiting = Step::Blocked(Blocked::WaitingForReplicas { reachable: 2, replicas: 3 });
    assert_eq!(plan(&STATIC, &Recorded::default(), &[blank(1), None, blank(3)]), waiting);
}

#[test]
fn a_recorded_cluster_whose_replicas_are_all_blank_is_not_begun_again() {
    let step = plan(&STATIC, &recorded(4), &[blank(1), blank(2), blank(3)]);
    assert_eq!(step, Step::Blocked(Blocked::DataGone(CLUSTER)));
}

#[test]
fn a_recorded_cluster_that_nobody_answers_for_is_no_new_one() {
    let blocked = Blocked::NoMajority { answered: 0, voters: 3, needed: 2 };
    assert_eq!(plan(&STATIC, &recorded(4), &[None, None, None]), Step::Blocked(blocked));
}

#[test]
fn replicas_of_two_clusters_are_left_alone_until_one_is_recorded() {
    let mut foreign = member(3, 9, HEARS);
    foreign.as_mut().unwrap().cluster = Some(ClusterId(8));
    let nodes = [member(1, 4, leading(&[(2, true)])), member(2, 4, HEARS), foreign];
    let blocked = Blocked::ForeignReplica { ordinal: 2, found: ClusterId(8), expected: CLUSTER };
    assert_eq!(plan(&STATIC, &Recorded::default(), &nodes), Step::Blocked(blocked));
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
}

#[test]
fn replicas_that_are_all_of_another_cluster_than_the_recorded_one_are_told_as_such() {
    let nodes = [None, member(2, 4, HEARS), member(3, 4, HEARS)];
    let other = Recorded { cluster: Some(ClusterId(8)), ..recorded(4) };
    let blocked = Blocked::ForeignReplica { ordinal: 1, found: CLUSTER, expected: ClusterId(8) };
    assert_eq!(plan(&AUTOMATIC, &other, &nodes), Step::Blocked(blocked));
}

#[test]
fn a_follower_that_lacks_many_bytes_is_handed_over_to_once_it_lacks_few() {
    let led = |far: &[u128]| {
        let mut led = member(1, 4, leading(&[(2, true), (3, true)]));
        let Some(ReplicaStatus { role: ReplicaRole::Leader { far: lacks, switch_to, .. }, .. }) = &mut led else {
            panic!()
        };
        (*lacks, *switch_to) = (far.iter().copied().map(ReplicaId).collect(), Some(ReplicaId(2)));
        [led, member(2, 4, HEARS), member(3, 4, HEARS)]
    };
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &led(&[2])), Step::Nothing);
    let step = plan(&AUTOMATIC, &recorded(4), &led(&[3]));
    assert!(matches!(step, Step::HandOver { to: ReplicaId(2), .. }), "{step:?}");
}

#[test]
fn a_follower_that_does_not_hold_the_start_of_the_epoch_yet_is_not_handed_over_to() {
    // The leader takes it for in sync, right after the election, and counts no bytes of what was before.
    let nodes = |holds: u64| {
        let mut nodes = three([Some(all_in_sync()), Some(HEARS), Some(HEARS)]);
        let seen = nodes[1].as_mut().unwrap();
        (seen.durable.epoch, seen.last.as_mut().unwrap().epoch) = (Epoch(holds), Epoch(holds));
        nodes
    };
    let switch = Wish { switch_to: Some(1), ..AUTOMATIC };
    assert_eq!(plan(&switch, &recorded(4), &nodes(3)), Step::Nothing);
    assert_eq!(plan(&switch, &recorded(4), &nodes(4)), hands_over_to(2));
    // Nor does a leader that is leaving pick it.
    let leaving = |holds| {
        let mut nodes = nodes(holds);
        nodes[0].as_mut().unwrap().leaving = true;
        plan(&AUTOMATIC, &recorded(4), &nodes)
    };
    assert_eq!((leaving(3), leaving(4)), (hands_over_to(3), hands_over_to(2)));
}

#[test]
fn a_cluster_with_its_named_leader_is_left_alone() {
    let nodes = [member(1, 4, leading(&[(2, true), (3, true)])), member(2, 4, HEARS), member(3, 4, HEARS)];
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
}

#[test]
fn a_restarted_leader_is_appointed_at_a_higher_epoch_than_any_seen() {
    let nodes = [member(1, 4, IDLE), member(2, 4, HEARS), None];
    let elect = |epoch| Step::Elect {
        epoch: Epoch(epoch),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::NoLeader,
    };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect(5));
    assert_eq!(plan(&STATIC, &recorded(8), &nodes), elect(9));
}

#[test]
fn a_named_leader_that_is_down_is_waited_for() {
    let nodes = [None, member(2, 4, SILENT), member(3, 4, SILENT)];
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Blocked(Blocked::StaticLeaderDown { ordinal: 0 }));
}

#[test]
fn an_interim_leader_that_was_sealed_by_an_attempt_that_died_is_replaced_without_the_named_one() {
    let mut nodes = [None, member(2, 4, IDLE), member(3, 4, SILENT)];
    for seen in nodes.iter_mut().flatten() {
        seen.promised = Epoch(5);
        seen.last.as_mut().unwrap().leader = ReplicaId(2);
    }
    let elect = Step::Elect { epoch: Epoch(6), prefer: None, without: None, change: None, reason: Reason::NoLeader };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
}

#[test]
fn a_leader_that_only_the_controller_has_lost_is_left_alone() {
    let nodes = [None, member(2, 4, HEARS), member(3, 4, HEARS)];
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing);
}

#[test]
fn a_minority_is_not_asked_to_elect() {
    let nodes = [member(1, 4, IDLE), None, None];
    let blocked = Blocked::NoMajority { answered: 1, voters: 3, needed: 2 };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Blocked(blocked));
}

#[test]
fn an_interim_leader_hands_over_once_the_named_one_is_in_sync() {
    let nodes = |in_sync| [member(1, 4, HEARS), member(2, 4, leading(&[(1, in_sync), (3, true)])), member(3, 4, HEARS)];
    assert_eq!(plan(&STATIC, &recorded(4), &nodes(false)), Step::Nothing);
    let step = Step::HandOver { epoch: Epoch(4), from: ReplicaId(2), to: ReplicaId(1), next: Epoch(5) };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes(true)), step);
    let mut damaged = nodes(true);
    damaged[0].as_mut().unwrap().damaged = true;
    assert_eq!(plan(&STATIC, &recorded(4), &damaged), Step::Nothing, "it would not be elected");
}

#[test]
fn a_damaged_leader_that_commits_nothing_makes_way_for_one_that_is_whole_if_nothing_can_be_lost() {
    let nodes = |settled, other_damaged, other_answers: bool| {
        let mut role = leading(&[]);
        let ReplicaRole::Leader { settled: is_settled, .. } = &mut role else { unreachable!() };
        *is_settled = settled;
        let mut nodes = [member(1, 4, role), member(2, 4, HEARS), member(3, 4, HEARS)];
        let leader = nodes[0].as_mut().unwrap();
        (leader.damaged, leader.durable.end) = (true, Offset(5));
        nodes[1].as_mut().unwrap().damaged = other_damaged;
        nodes[2].as_mut().unwrap().damaged = other_damaged;
        if !other_answers {
            nodes[2] = None;
        }
        nodes
    };
    let elect = Step::Elect {
        epoch: Epoch(5),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::LeaderLost,
    };
    for wish in [AUTOMATIC, STATIC] {
        assert_eq!(plan(&wish, &recorded(4), &nodes(false, false, true)), elect);
        assert_eq!(plan(&wish, &recorded(4), &nodes(true, false, true)), Step::Nothing, "it is repaired meanwhile");
        assert_eq!(plan(&wish, &recorded(4), &nodes(false, true, true)), Step::Nothing, "nobody else is whole");
        let silent = plan(&wish, &recorded(4), &nodes(false, false, false));
        assert_eq!(silent, Step::Nothing, "one that does not answer may hold it");
    }
}

#[test]
fn a_voter_that_promised_a_higher_epoch_is_taken_back_by_a_new_one() {
    let mut deaf = member(3, 4, IDLE);
    deaf.as_mut().unwrap().promised = Epoch(6);
    let nodes = [member(1, 4, leading(&[(2, true)])), member(2, 4, HEARS), deaf];
    let elect = Step::Elect {
        epoch: Epoch(7),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::HigherPromise,
    };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
}

#[test]
fn a_named_replica_with_an_empty_disk_lets_the_candidate_lead() {
    let nodes = [blank(7), member(2, 4, SILENT), member(3, 4, SILENT)];
    let elect = Step::Elect {
        epoch: Epoch(5),
        prefer: Some(ReplicaId(7)),
        without: None,
        change: None,
        reason: Reason::LeaderLost,
    };
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect);
}

// ---- Automatic

type Node = Option<ReplicaStatus>;

/// Nodes of a cluster of three in epoch 4, led by replica 1.
fn three(roles: [Option<ReplicaRole>; 3]) -> [Node; 3] {
    let mut replica = 0;
    roles.map(|role| {
        replica += 1;
        role.and_then(|role| member(replica, 4, role))
    })
}

fn five(roles: [Option<ReplicaRole>; 5]) -> [Node; 5] {
    let mut replica = 0;
    roles.map(|role| {
        replica += 1;
        let mut node = role.and_then(|role| member(replica, 4, role))?;
        let last = node.last.as_mut()?;
        (last.voters, last.quorum) = ((1..=5).map(ReplicaId).collect(), 3);
        Some(node)
    })
}

fn elect(prefer: Option<u128>, without: Option<u128>, reason: Reason) -> Step {
    Step::Elect {
        epoch: Epoch(5),
        prefer: prefer.map(ReplicaId),
        without: without.map(ReplicaId),
        change: None,
        reason,
    }
}

fn no_majority(answered: usize, voters: usize) -> Step {
    Step::Blocked(Blocked::NoMajority { answered, voters, needed: majority(voters) })
}

fn all_in_sync() -> ReplicaRole {
    leading(&[(2, true), (3, true)])
}

#[test]
fn a_leader_is_replaced_once_the_controller_and_a_majority_of_the_voters_have_lost_it() {
    let lost = || elect(None, None, Reason::LeaderLost);
    let gone = || elect(Some(1), None, Reason::NoLeader);
    for (roles, step) in [
        ([None, Some(SILENT), Some(SILENT)], lost()),
        ([None, Some(ENDED), Some(ENDED)], lost()),
        ([None, Some(ENDED), Some(IDLE)], lost()),
        ([None, Some(HEARS), Some(SILENT)], Step::Nothing),
        ([None, Some(HEARS), Some(HEARS)], Step::Nothing),
        ([None, Some(HEARS), None], no_majority(1, 3)),
        ([None, Some(SILENT), None], no_majority(1, 3)),
        ([None, Some(SILENT), Some(ReplicaRole::Failed)], no_majority(1, 3)),
        // Its own word, whatever the others have not noticed yet.
        ([Some(IDLE), Some(HEARS), Some(HEARS)], gone()),
        ([Some(IDLE), Some(HEARS), None], gone()),
        ([Some(ReplicaRole::Failed), Some(HEARS), Some(HEARS)], gone()),
        ([Some(ReplicaRole::Failed), Some(HEARS), None], no_majority(1, 3)),
        ([Some(IDLE), None, None], no_majority(1, 3)),
    ] {
        assert_eq!(plan(&AUTOMATIC, &recorded(4), &three(roles.clone())), step, "{roles:?}");
    }
}

#[test]
fn a_majority_is_of_all_voters_not_of_those_that_answer() {
    let lost = || elect(None, None, Reason::LeaderLost);
    for (roles, step) in [
        ([None, Some(SILENT), Some(SILENT), Some(SILENT), None], lost()),
        ([None, Some(SILENT), Some(SILENT), Some(HEARS), None], Step::Nothing),
        ([None, Some(SILENT), Some(SILENT), None, None], no_majority(2, 5)),
    ] {
        assert_eq!(plan(&AUTOMATIC, &recorded(4), &five(roles.clone())), step, "{roles:?}");
    }
}

#[test]
fn a_leader_that_answers_but_that_a_majority_has_lost_is_passed_over() {
    let lost = elect(Some(1), Some(1), Reason::LeaderLost);
    for (two, three_, step) in [
        (SILENT, SILENT, lost.clone()),
        (SILENT, FORSAKEN, lost),
        // It may be on its way to them.
        (SILENT, IDLE, Step::Nothing),
        (ENDED, ENDED, Step::Nothing),
        (SILENT, HEARS, Step::Nothing),
        // It could not be elected without it.
        (SILENT, ReplicaRole::Failed, Step::Nothing),
    ] {
        let nodes = three([Some(all_in_sync()), Some(two), Some(three_)]);
        assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), step, "{nodes:?}");
        assert_eq!(plan(&STATIC, &recorded(4), &nodes), Step::Nothing, "{nodes:?}");
    }
}

#[test]
fn an_interim_leader_that_a_majority_has_lost_is_passed_over_under_static_too() {
    let mut nodes = three([Some(SILENT), Some(leading(&[(1, false), (3, false)])), Some(SILENT)]);
    for seen in nodes.iter_mut().flatten() {
        seen.last.as_mut().unwrap().leader = ReplicaId(2);
    }
    assert_eq!(plan(&STATIC, &recorded(4), &nodes), elect(Some(1), Some(2), Reason::LeaderLost));
}

#[test]
fn a_newer_leader_out_of_sight_is_left_alone_while_it_is_heard() {
    let mut nodes = five([Some(IDLE), None, Some(HEARS), Some(HEARS), Some(HEARS)]);
    for seen in nodes.iter_mut().skip(2).flatten() {
        seen.promised = Epoch(5);
    }
    assert_eq!(plan(&AUTOMATIC, &recorded(5), &nodes), Step::Nothing);
}

#[test]
fn an_unsettled_change_of_voters_needs_the_old_majority_to_have_lost_the_leader_too() {
    let mut nodes = five([None, Some(SILENT), Some(SILENT), Some(HEARS), Some(HEARS)]);
    for seen in nodes.iter_mut().flatten() {
        let last = seen.last.as_mut().unwrap();
        last.voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        last.old_voters = Some(vec![ReplicaId(1), ReplicaId(4), ReplicaId(5)]);
    }
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), Step::Nothing);
    for seen in nodes.iter_mut().skip(3).flatten() {
        seen.role = ENDED;
    }
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), elect(None, None, Reason::LeaderLost));
}

#[test]
fn a_leader_other_than_the_preferred_one_goes_on() {
    let wish = Wish { ordinal: 2, ..AUTOMATIC };
    let nodes = three([Some(all_in_sync()), Some(HEARS), Some(HEARS)]);
    assert_eq!(plan(&wish, &recorded(4), &nodes), Step::Nothing);
    let mut deaf = nodes;
    deaf[1].as_mut().unwrap().promised = Epoch(6);
    let stays = Step::Elect {
        epoch: Epoch(7),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::HigherPromise,
    };
    assert_eq!(plan(&wish, &recorded(4), &deaf), stays);
}

fn hands_over_to(to: u128) -> Step {
    Step::HandOver { epoch: Epoch(4), from: ReplicaId(1), to: ReplicaId(to), next: Epoch(5) }
}

#[test]
fn whoever_is_asked_for_takes_over_once_it_is_in_sync() {
    let by_leader = |to, in_sync, handing_over| {
        let ReplicaRole::Leader { log_end, followers, .. } = leading(&[(2, true), (3, in_sync)]) else { panic!() };
        let switch_to = Some(ReplicaId(to));
        three([
            Some(ReplicaRole::Leader { log_end, settled: true, followers, far: vec![], handing_over, switch_to }),
            Some(HEARS),
            Some(HEARS),
        ])
    };
    let asked = |wish: &Wish, nodes: &[Node]| plan(wish, &recorded(4), nodes);
    assert_eq!(asked(&AUTOMATIC, &by_leader(3, true, false)), hands_over_to(3));
    assert_eq!(asked(&AUTOMATIC, &by_leader(3, false, false)), Step::Nothing);
    assert_eq!(asked(&AUTOMATIC, &by_leader(3, true, true)), Step::Nothing);
    assert_eq!(asked(&AUTOMATIC, &by_leader(1, true, false)), Step::Nothing);
    // Static names its leader.
    assert_eq!(asked(&STATIC, &by_leader(3, true, false)), Step::Nothing);
    let nodes = three([Some(leading(&[(2, true), (3, true)])), Some(HEARS), Some(HEARS)]);
    let to = |ordinal| Wish { switch_to: Some(ordinal), ..AUTOMATIC };
    assert_eq!(asked(&to(2), &nodes), hands_over_to(3));
    assert_eq!(asked(&to(0), &nodes), Step::Nothing);
    assert_eq!(asked(&to(7), &nodes), Step::Nothing);
}

#[test]
fn a_leader_that_is_leaving_hands_over_to_whoever_holds_most() {
    let leaving = |followers: &[(u128, bool, u64)], also: Option<usize>| {
        let role = leading_at(followers.iter().map(|(id, ok, end)| (ReplicaId(*id), *ok, Offset(*end))).collect());
        let mut nodes = three([Some(role), Some(HEARS), Some(HEARS)]);
        for ordinal in core::iter::once(0).chain(also) {
            nodes[ordinal].as_mut().unwrap().leaving = true;
        }
        plan(&AUTOMATIC, &recorded(4), &nodes)
    };
    assert_eq!(leaving(&[(2, true, 4), (3, true, 5)], None), hands_over_to(3));
    assert_eq!(leaving(&[(2, true, 5), (3, true, 5)], None), hands_over_to(2));
    assert_eq!(leaving(&[(2, true, 5), (3, false, 5)], Some(1)), Step::Nothing);
}

#[test]
fn a_leader_that_is_leaving_hands_over_even_if_it_is_the_one_that_is_asked_for() {
    let mut nodes = three([Some(leading(&[(2, true), (3, true)])), Some(HEARS), Some(HEARS)]);
    let wish = Wish { switch_to: Some(0), ..AUTOMATIC };
    assert_eq!(plan(&wish, &recorded(4), &nodes), Step::Nothing);
    nodes[0].as_mut().unwrap().leaving = true;
    assert_eq!(plan(&wish, &recorded(4), &nodes), hands_over_to(2));
}

#[test]
fn a_leader_that_is_well_is_not_sealed_for_an_election_that_could_choose_nobody() {
    let suspects = |mut node: Node| {
        node.as_mut().unwrap().suspect = Some(Tail { epoch: Epoch(4), end: Offset(u64::MAX) });
        node
    };
    let switch = Wish { switch_to: Some(1), ..AUTOMATIC };
    let nodes = |third, deaf| {
        let [one, mut two, three_] = three([Some(leading(&[(2, true), (3, true)])), Some(HEARS), third]);
        two.as_mut().unwrap().promised = Epoch(if deaf { 6 } else { 4 });
        [one, suspects(two), three_]
    };
    assert_eq!(plan(&switch, &recorded(4), &nodes(None, false)), Step::Nothing, "the third may hold what is lost");
    assert_eq!(plan(&switch, &recorded(4), &nodes(Some(HEARS), false)), hands_over_to(2));
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes(None, true)), Step::Nothing);
    assert!(matches!(plan(&AUTOMATIC, &recorded(4), &nodes(Some(HEARS), true)), Step::Elect { .. }));
    // A lost disk is to be replaced.
    let lost = |two| [three([Some(leading(&[(2, true), (4, true)])), None, None])[0].clone(), two, member(4, 4, HEARS)];
    let two = member(2, 4, HEARS);
    assert!(matches!(plan(&AUTOMATIC, &recorded(4), &lost(two.clone())), Step::Elect { .. }));
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &lost(suspects(two))), Step::Nothing);
}

#[test]
fn a_leader_that_misses_its_quorum_makes_way_for_a_voter_that_may_have_one() {
    let lost = elect(Some(2), None, Reason::QuorumLost);
    let two_of_five = |third| [Some(leading(&[(2, true), (3, false)])), Some(HEARS), Some(third), None, None];
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &five(two_of_five(SILENT))), lost);
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &five(two_of_five(FORSAKEN))), lost);
    assert_eq!(plan(&STATIC, &recorded(4), &five(two_of_five(SILENT))), Step::Nothing);
    // It hears the leader, and is late: so it would be with another.
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &five(two_of_five(HEARS))), Step::Nothing);
    // Without the leader's log nobody is elected, and a damaged one is not.
    let mut nodes = five(two_of_five(SILENT));
    nodes[1].as_mut().unwrap().damaged = true;
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), Step::Nothing);
    let mut nodes = five(two_of_five(SILENT));
    nodes[0].as_mut().unwrap().durable = Tail { epoch: Epoch(4), end: Offset(6) };
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), Step::Nothing);
    // Two are no quorum for anybody; three that all have to commit are as five.
    let alone = five([Some(leading(&[(2, true)])), Some(HEARS), None, None, None]);
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &alone), Step::Nothing);
    let all = Wish { quorum: Some(3), ..AUTOMATIC };
    let mut nodes = three([Some(leading(&[(2, true), (3, false)])), Some(HEARS), Some(SILENT)]);
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), Step::Nothing);
    for seen in nodes.iter_mut().flatten() {
        seen.last.as_mut().unwrap().quorum = 3;
    }
    assert_eq!(plan(&all, &recorded(4), &nodes), lost);
}

#[test]
fn a_new_leader_that_reaches_nobody_yet_is_not_sealed_in_vain() {
    // Its followers have promised its epoch, or the one after, and hold nothing: they can elect nobody without it.
    let forsaken =
        |id, promised| blank(id).map(|seen| ReplicaStatus { promised: Epoch(promised), role: FORSAKEN, ..seen });
    let begun = member(1, 1, leading(&[(2, false), (3, false)]));
    assert_eq!(plan(&AUTOMATIC, &recorded(1), &[begun.clone(), forsaken(2, 1), forsaken(3, 1)]), Step::Nothing);
    // One that holds its start makes a majority with another: they may go on without it.
    let (second, third) = (member(2, 1, FORSAKEN), member(3, 1, FORSAKEN));
    let step = plan(&AUTOMATIC, &recorded(1), &[begun, second, third]);
    assert!(matches!(step, Step::Elect { reason: Reason::LeaderLost, without: Some(ReplicaId(1)), .. }), "{step:?}");
}

#[test]
fn a_voter_that_is_bound_to_another_leader_of_the_epoch_is_not_left_behind() {
    let leader = member(1, 4, leading(&[(2, true), (3, false)]));
    let bound_to = |id| member(3, 4, IDLE).map(|seen| ReplicaStatus { bound: Some(ReplicaId(id)), ..seen });
    assert_eq!(plan(&AUTOMATIC, &recorded(4), &[leader.clone(), member(2, 4, HEARS), bound_to(1)]), Step::Nothing);
    let step = plan(&AUTOMATIC, &recorded(4), &[leader, member(2, 4, HEARS), bound_to(77)]);
    assert!(matches!(step, Step::Elect { epoch: Epoch(5), reason: Reason::HigherPromise, .. }), "{step:?}");
}

#[test]
fn a_voter_that_has_promised_an_epoch_far_ahead_is_caught_up_with_and_so_is_the_record() {
    let far = EPOCHS_AHEAD_MAX + 4;
    let leader = member(1, 4, leading(&[(2, true), (3, false)]));
    let deaf = member(3, 4, IDLE).map(|seen| ReplicaStatus { promised: Epoch(far), ..seen });
    let nodes = [leader, member(2, 4, HEARS), deaf];
    for (written, epoch) in [(4, far), (1 << 40, far), (far, far - 1)] {
        let step = plan(&AUTOMATIC, &recorded(written), &nodes);
        let Step::Elect { epoch: found, reason: Reason::FarPromise, .. } = step else { panic!("{step:?}") };
        assert_eq!(found, Epoch(epoch), "{written} is written down");
    }
}

#[test]
fn one_that_has_failed_is_not_taken_back_whatever_it_has_promised() {
    for promised in [6, EPOCHS_AHEAD_MAX + 4, 1 << 40] {
        let failed = member(3, 4, ReplicaRole::Failed).map(|seen| ReplicaStatus { promised: Epoch(promised), ..seen });
        let nodes = [member(1, 4, leading(&[(2, true), (3, false)])), member(2, 4, HEARS), failed];
        assert_eq!(plan(&AUTOMATIC, &recorded(4), &nodes), Step::Nothing, "{promised}");
    }
}

#[test]
fn a_promise_that_the_next_epoch_does_not_reach_keeps_nothing_else_waiting() {
    let deaf = |promised| member(3, 4, SILENT).map(|seen| ReplicaStatus { promised: Epoch(promised), ..seen });
    let far = deaf(1 << 40);
    let led = || member(1, 4, leading(&[(2, true), (3, false)]));
    let reason = |step: &Step| if let Step::Elect { reason, .. } = step { Some(*reason) } else { None };
    let alone = plan(&AUTOMATIC, &recorded(4), &[led(), member(2, 4, HEARS), far.clone()]);
    assert_eq!(reason(&alone), Some(Reason::FarPromise), "{alone:?}");
    let switch = Wish { switch_to: Some(1), ..AUTOMATIC };
    let step = plan(&switch, &recorded(4), &[led(), member(2, 4, HEARS), far.clone()]);
    assert!(matches!(step, Step::HandOver { to: ReplicaId(2), .. }), "{step:?}");
    // Where no quorum is in sight without it, no leader is to be spared.
    for second in [None, member(2, 4, ReplicaRole::Failed)] {
        let step = plan(&AUTOMATIC, &recorded(4), &[member(1, 4, leading(&[])), second.clone(), far.clone()]);
        assert_eq!(reason(&step), Some(Reason::HigherPromise), "{second:?}: {step:?}");
    }
    // Nor one that the next epoch does reach.
    let nodes = [led(), deaf(6).map(|seen| ReplicaStatus { replica: ReplicaId(2), ..seen }), far];
    assert_eq!(reason(&plan(&AUTOMATIC, &recorded(4), &nodes)), Some(Reason::HigherPromise));
}

#[test]
fn a_hand_over_does_not_keep_back_the_voter_without_which_it_would_never_be_over() {
    let of_all = |seen: Option<ReplicaStatus>| {
        let seen = seen.unwrap();
        Some(ReplicaStatus { last: seen.last.map(|start| EpochStart { quorum: 3, ..start }), ..seen })
    };
    let deaf = member(3, 4, IDLE).map(|seen| ReplicaStatus { promised: Epoch(EPOCHS_AHEAD_MAX + 4), ..seen });
    let nodes = [member(1, 4, leading(&[(2, true), (3, false)])), member(2, 4, HEARS), deaf].map(of_all);
    for wish in [Wish { switch_to: Some(1), ..AUTOMATIC }, Wish { ordinal: 1, ..STATIC }] {
        let wish = Wish { quorum: Some(3), ..wish };
        let step = plan(&wish, &recorded(4), &nodes);
        assert!(matches!(step, Step::Elect { reason: Reason::HigherPromise, .. }), "{step:?}");
    }
}
