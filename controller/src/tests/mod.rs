//! A controller against replicas that only keep promises: interrupted anywhere, a fresh one goes on to the same end.

mod world;

use std::time::Duration;

use zue_core::Epoch;
use zue_core::control::machine::StorePatience;
use zue_core::control::{Blocked, Policy, Reason};

use super::*;
use world::{At, Fault, Hang, World};

const STATIC: Wish = Wish {
    replicas: 3,
    policy: Policy::Static,
    ordinal: 0,
    switch_to: None,
    detection_ms: 1000,
    quorum: None,
    standby_after_ms: None,
};
const AUTOMATIC: Wish = Wish { policy: Policy::Automatic, ..STATIC };

fn patience() -> Patience {
    let soon = Backoff { min_ms: 1, max_ms: 20 };
    Patience {
        call_ms: 2000,
        appoint: Backoff { min_ms: 500, max_ms: 2000 },
        election_retry: soon,
        members_retry: soon,
        handover_retry: soon,
        store: StorePatience { retry: soon, ..Patience::default().store },
        ..Patience::default()
    }
}

fn controller(world: &World) -> Controller<World> {
    Controller::new(world.clone(), "a test", patience())
}

/// The controller, about to look at what the nodes say from now on.
fn fresh(controller: &mut Controller<World>) -> &mut Controller<World> {
    controller.has_called = true;
    controller
}

const AN_HOUR: Backoff = Backoff { min_ms: 3_600_000, max_ms: 3_600_000 };

/// Turns until nothing is left to do and ordinal 0 leads.
async fn converge(controller: &mut Controller<World>, world: &World) {
    for _ in 0..200 {
        let turn = fresh(controller).turn(&world.addresses(), &STATIC).await;
        if turn.step == Step::Nothing && world.leader() == Some(0) && turn.recorded.cluster.is_some() {
            world.check();
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no end in sight: {world:?}");
}

type Scenario = fn(&World);
const SCENARIOS: [(&str, Scenario); 3] = [
    ("a new cluster", |_| {}),
    ("a restarted leader", |world| {
        world.lead(0, 4);
        world.restart(0);
    }),
    ("an interim leader", |world| world.lead(2, 4)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_ends_with_the_named_leader() {
    for (name, prepare) in SCENARIOS {
        let world = World::start(3).await;
        prepare(&world);
        converge(&mut controller(&world), &world).await;
        assert_eq!(world.appointments().len(), 1, "{name}: one appointment is enough");
    }
}

/// Kills the controller, or lets the call fail, at each call that changes something, before and after the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_dies_anywhere_is_followed_by_one_that_goes_on() {
    for (name, prepare) in SCENARIOS {
        for fault in [Fault::Error, Fault::Death] {
            for applied in [false, true] {
                let mut call = 0;
                loop {
                    let world = World::start(3).await;
                    prepare(&world);
                    world.fail(At { call, fault, applied });
                    let mut first = controller(&world);
                    tokio::select! {
                        () = converge(&mut first, &world) => {}
                        () = world.died() => {}
                    }
                    drop(first);
                    converge(&mut controller(&world), &world).await;
                    if !world.has_failed() {
                        break;
                    }
                    call += 1;
                }
                assert!(call >= 5, "{name}: only {call} calls were there to fail");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_never_appoint_twice_for_an_epoch() {
    for _ in 0..20 {
        let world = World::start(3).await;
        let (mut one, mut other) = (controller(&world), controller(&world));
        tokio::join!(converge(&mut one, &world), converge(&mut other, &world));
        world.restart(0);
        tokio::join!(converge(&mut one, &world), converge(&mut other, &world));
        world.check();
    }
}

#[tokio::test]
async fn a_conflict_in_the_store_ends_the_attempt_before_anyone_is_appointed() {
    let world = World::start(3).await;
    // Call 0 reserves the epoch.
    world.fail(At { call: 0, fault: Fault::Conflict, applied: false });
    let turn = controller(&world).turn(&world.addresses(), &STATIC).await;
    let why = "another controller wrote meanwhile".to_owned();
    assert_eq!(turn.events, [Event::ElectionFailed { epoch: Epoch(1), why }]);
    assert_eq!(world.appointments(), []);
}

#[tokio::test]
async fn a_store_out_of_reach_once_the_epoch_is_reserved_leaves_nobody_without_a_leader() {
    let world = World::start(3).await;
    world.lead(0, 4);
    let mut controller = controller(&world);
    while world.recorded_leader() != Some(0) {
        fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await;
    }
    world.restart(0);
    world.limit_swaps(Some(1));
    let mut nodes = world.addresses();
    nodes[0].peer_address = "127.0.0.1:1".to_owned();
    let turn = fresh(&mut controller).turn(&nodes, &AUTOMATIC).await;
    assert!(matches!(turn.events[..], [Event::LeaderElected { .. }]), "{turn:?}");
    assert_eq!((world.leader(), world.recorded_leader()), (Some(1), Some(0)));
    // Who leads is written down as soon as that is possible, behind; told once.
    let mut told = Vec::new();
    while told.is_empty() {
        let turn = fresh(&mut controller).turn(&nodes, &AUTOMATIC).await;
        assert_eq!(turn.step, Step::Nothing);
        told = turn.events;
    }
    assert_eq!(told, [out_of_reach()]);
    for _ in 0..20 {
        assert_eq!(fresh(&mut controller).turn(&nodes, &AUTOMATIC).await.events, []);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.limit_swaps(None);
    while world.recorded_leader() != Some(1) {
        fresh(&mut controller).turn(&nodes, &AUTOMATIC).await;
    }
    world.check();
}

fn out_of_reach() -> Event {
    Event::StoreFailed { why: world::OutOfReach.to_string() }
}

#[tokio::test]
async fn a_block_is_told_once() {
    let world = World::start(3).await;
    let mut nodes = world.addresses();
    nodes[2].peer_address = "127.0.0.1:1".to_owned();
    let mut controller = controller(&world);
    let blocked = Blocked::WaitingForReplicas { reachable: 2, replicas: 3 };
    let turn = fresh(&mut controller).turn(&nodes, &STATIC).await;
    assert_eq!(turn.events, [Event::Blocked(blocked.clone())]);
    assert!(turn.nodes[2].as_ref().unwrap_err().contains("refused"), "{:?}", turn.nodes[2]);
    let turn = fresh(&mut controller).turn(&nodes, &STATIC).await;
    assert_eq!((turn.events, turn.step), (Vec::new(), Step::Blocked(blocked)));
}

#[tokio::test]
async fn a_cluster_is_written_down_only_once_a_replica_has_it() {
    let world = World::start(3).await;
    let mut controller = controller(&world);
    let turn = fresh(&mut controller).turn(&world.addresses(), &STATIC).await;
    assert!(matches!(turn.events[..], [Event::Bootstrapped { .. }, Event::LeaderElected { .. }]), "{:?}", turn.events);
    assert_eq!(turn.recorded.cluster, None);
    while fresh(&mut controller).turn(&world.addresses(), &STATIC).await.recorded.cluster.is_none() {}
}

#[tokio::test]
async fn a_node_is_found_by_its_name_where_another_or_nobody_answers_at_its_last_address() {
    let world = World::start(3).await;
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (another, of_a_stranger) =
        (world.addresses()[2].peer_address.clone(), stranger.local_addr().unwrap().to_string());
    // It takes connections, and closes them.
    tokio::spawn(async move { while stranger.accept().await.is_ok() {} });
    for last in [another, of_a_stranger] {
        let mut nodes = world.addresses();
        nodes[1].last_address = last.parse().ok();
        // A name that has to be looked up: the address is there sooner.
        nodes[1].peer_address = nodes[1].peer_address.replace("127.0.0.1", "localhost");
        nodes[1].replica = Some(ReplicaId(101));
        let mut controller = controller(&world);
        let begun = tokio::time::Instant::now();
        let expected = zue_proto::id_bytes(101);
        let is_found = |turn: &Turn| turn.nodes[1].as_ref().map(|status| &status.replica_id) == Ok(&expected);
        while !is_found(&controller.turn(&nodes, &STATIC).await) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is not found beside {last}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // And what worked is handed over.
        let found = controller.peers.located(&nodes)[1].last_address.map(|at| at.to_string());
        assert_eq!(found, Some(world.addresses()[1].peer_address.clone()));
    }
}

#[tokio::test]
async fn a_hand_over_is_told_with_both_names() {
    let world = World::start(3).await;
    world.lead(2, 4);
    let turn = controller(&world).turn(&world.addresses(), &STATIC).await;
    let Some(Event::HandedOver { from, to, epoch: Epoch(5), .. }) = turn.events.last() else { panic!("{turn:?}") };
    assert_eq!((from.as_str(), to.as_str()), ("zue-2", "zue-0"));
}

#[tokio::test]
async fn a_replica_that_hangs_in_a_seal_holds_up_nobody() {
    let world = World::start(3).await;
    world.lead(0, 4);
    world.restart(0);
    world.hang(1, Some(Hang::Seal));
    let begun = tokio::time::Instant::now();
    let turn = controller(&world).turn(&world.addresses(), &STATIC).await;
    assert!(matches!(turn.events[..], [Event::LeaderElected { .. }]), "{:?}", turn.events);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lost_leader_is_replaced_and_one_that_only_the_controller_has_lost_is_not() {
    let world = World::start(3).await;
    world.lead(0, 4);
    let mut nodes = world.addresses();
    nodes[0].peer_address = "127.0.0.1:1".to_owned();
    let mut controller = controller(&world);
    let turn = fresh(&mut controller).turn(&nodes, &AUTOMATIC).await;
    assert_eq!((turn.step, turn.events), (Step::Nothing, Vec::new()));
    world.restart(0);
    let turn = fresh(&mut controller).turn(&nodes, &AUTOMATIC).await;
    let elected = Event::LeaderElected { epoch: Epoch(5), leader: "zue-1".to_owned(), reason: Reason::LeaderLost };
    assert_eq!(turn.events, [elected]);
    // The others were told where it was, though it does not answer.
    assert_eq!(fresh(&mut controller).turn(&nodes, &AUTOMATIC).await.step, Step::Nothing);
}

#[tokio::test]
async fn leaders_that_all_miss_their_quorum_do_not_take_turns() {
    let (world, wish) = (World::start(3).await, Wish { quorum: Some(3), ..AUTOMATIC });
    let mut controller = Controller::new(world.clone(), "a test", Patience { handover_retry: AN_HOUR, ..patience() });
    while world.leader().is_none() {
        fresh(&mut controller).turn(&world.addresses(), &wish).await;
    }
    world.cut_off(2);
    for _ in 0..20 {
        let turn = fresh(&mut controller).turn(&world.addresses(), &wish).await;
        assert!(matches!(turn.step, Step::Elect { reason: Reason::QuorumLost, .. } | Step::Nothing), "{turn:?}");
    }
    let leaders: Vec<usize> = world.appointments().iter().map(|(_, leader)| *leader).collect();
    assert_eq!(leaders, [0, 1]);
}

#[tokio::test]
async fn a_leader_that_is_well_is_not_deposed_turn_after_turn_for_a_promise_far_ahead() {
    let step = zue_core::EPOCHS_AHEAD_MAX;
    for (promised, elections) in [(step, 1), (2 * step, 2), (1 << 40, 1)] {
        let world = World::start(3).await;
        world.lead(0, 4);
        world.promise(2, promised);
        let mut controller =
            Controller::new(world.clone(), "a test", Patience { members_retry: AN_HOUR, ..patience() });
        for _ in 0..20 {
            fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await;
        }
        let leaders: Vec<usize> = world.appointments().iter().map(|(_, leader)| *leader).collect();
        // The last step is taken at once: it is not in vain.
        assert_eq!(leaders, vec![0; elections], "{promised}");
    }
}

#[tokio::test]
async fn a_new_leader_that_reaches_no_follower_yet_is_left_alone() {
    // Their names do not resolve yet, say, but the controller knows better addresses.
    let world = World::start(3).await;
    world.cut_off(1);
    world.cut_off(2);
    let mut controller = controller(&world);
    let mut events = Vec::new();
    for _ in 0..20 {
        events.extend(fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await.events);
    }
    assert_eq!(world.appointments(), [(1, 0)]);
    assert!(!events.iter().any(Event::is_warning), "{events:?}");
}

#[tokio::test]
async fn a_candidate_whose_disk_hangs_gives_way_to_another() {
    let world = World::start(3).await;
    world.lead(0, 4);
    world.restart(0);
    world.hang(0, Some(Hang::Appoint));
    let mut controller = controller(&world);
    let begun = tokio::time::Instant::now();
    let turn = fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await;
    assert!(matches!(&turn.events[..], [Event::ElectionFailed { why, .. }] if why.contains("zue-0")), "{turn:?}");
    while world.leader().is_none() {
        fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.leader(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    world.check();
}

#[tokio::test]
async fn a_node_that_hangs_slows_no_turn_much_and_is_seen_again_once_it_answers() {
    let world = World::start(3).await;
    world.lead(0, 4);
    let mut controller = Controller::new(world.clone(), "a test", Patience { call_ms: 5000, ..patience() });
    world.hang(2, Some(Hang::Status));
    let begun = tokio::time::Instant::now();
    assert!(controller.turn(&world.addresses(), &AUTOMATIC).await.nodes[2].is_err());
    assert!(fresh(&mut controller).turn(&world.addresses(), &AUTOMATIC).await.nodes[2].is_err());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    world.hang(2, None);
    while controller.turn(&world.addresses(), &AUTOMATIC).await.nodes[2].is_err() {
        controller.rest().await;
    }
}

#[tokio::test]
async fn what_a_node_says_is_seen_without_asking_and_so_is_that_it_says_no_more() {
    for is_old in [false, true] {
        let world = World::start(3).await;
        world.cannot_be_watched(is_old);
        world.lead(0, 4);
        let mut controller = controller(&world);
        assert_eq!(controller.turn(&world.addresses(), &AUTOMATIC).await.step, Step::Nothing);
        world.promise(2, 4 + (1 << 30));
        let promised = |turn: &Turn| turn.nodes[2].as_ref().map_or(0, |status| status.promised);
        let mut turn = controller.turn(&world.addresses(), &AUTOMATIC).await;
        while promised(&turn) == 4 {
            controller.rest().await;
            turn = controller.turn(&world.addresses(), &AUTOMATIC).await;
        }
        world.hang(1, Some(Hang::Status));
        while turn.nodes[1].is_ok() {
            controller.rest().await;
            turn = controller.turn(&world.addresses(), &AUTOMATIC).await;
        }
    }
}

#[tokio::test]
async fn what_was_said_before_a_call_counts_no_more_after_it() {
    let world = World::start(3).await;
    world.lead(0, 4);
    world.restart(0);
    let mut controller = controller(&world);
    // No rest between the turns: what is at hand is from before the election.
    for _ in 0..20 {
        controller.turn(&world.addresses(), &AUTOMATIC).await;
    }
    assert_eq!(world.appointments().len(), 1, "{:?}", world.appointments());
}
