//! The replica whose turn it is to make a backup. Pure: from what a replica knows of the others, and from what is in the store.
//! If two replicas both take a turn, that does no harm: their objects have other names.

use std::time::Duration;

use zue_core::ReplicaId;

use crate::driver::state::{ReplicaView, Role};

/// After how many intervals without a backup the next one in the row makes them.
const TAKEN_OVER_AFTER: u32 = 3;

/// This replica's place in the row of those that make backups: followers first, in the order of the members, and the leader last. None
/// for one that has nothing to back up, or lacks what others have.
pub(super) fn place(me: ReplicaId, view: &ReplicaView) -> Option<u32> {
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    let followers = || view.members.iter().filter(|member| Some(member.name.as_str()) != leader);
    let place = match view.role {
        Role::Leader => followers().filter(|member| member.id != me).count(),
        Role::Follower if view.as_follower.connected == Some(true) && !view.as_follower.unfed => {
            followers().position(|member| member.id == me)?
        }
        _ => return None,
    };
    u32::try_from(place).ok()
}

/// The age of the newest sign of a backup at which one of that place makes the next: the first in the row makes one every interval,
/// each further one once all before it have missed theirs.
pub(super) fn due_after(place: u32, interval: Duration) -> Duration {
    if place == 0 { interval } else { interval.saturating_mul(TAKEN_OVER_AFTER.saturating_mul(place)) }
}

#[cfg(test)]
mod tests {
    use zue_proto::v1;

    use super::*;
    use crate::driver::member::Member;
    use crate::driver::state::FollowerView;

    fn view(role: Role, leader: u128) -> ReplicaView {
        let member = |id: u128| Member {
            id: ReplicaId(id),
            name: format!("zue-{id}"),
            peer_address: String::new(),
            client_address: String::new(),
            dial_address: None,
            voter: true,
        };
        let leader = Some(v1::LeaderHint { name: format!("zue-{leader}"), address: String::new() });
        let members = [1, 2, 3].map(member).into();
        let as_follower = FollowerView { connected: Some(true), unfed: false };
        ReplicaView { role, leader, members, as_follower, ..ReplicaView::default() }
    }

    #[test]
    fn the_first_follower_is_the_first_and_the_leader_the_last() {
        let places = |leader: u128| {
            [1, 2, 3].map(|id| {
                let role = if id == leader { Role::Leader } else { Role::Follower };
                place(ReplicaId(id), &view(role, leader))
            })
        };
        assert_eq!(places(1), [Some(2), Some(0), Some(1)]);
        assert_eq!(places(2), [Some(0), Some(2), Some(1)]);
        assert_eq!(places(3), [Some(0), Some(1), Some(2)]);
        let alone = ReplicaView { members: view(Role::Leader, 1).members[..1].into(), ..view(Role::Leader, 1) };
        assert_eq!(place(ReplicaId(1), &alone), Some(0));
    }

    #[test]
    fn one_that_is_not_fed_makes_none() {
        let fed = view(Role::Follower, 1);
        for cut_off in [
            ReplicaView { as_follower: FollowerView { connected: Some(false), unfed: false }, ..fed.clone() },
            ReplicaView { as_follower: FollowerView::default(), ..fed.clone() },
            ReplicaView { as_follower: FollowerView { connected: Some(true), unfed: true }, ..fed.clone() },
            ReplicaView { role: Role::Idle, ..fed.clone() },
            ReplicaView { role: Role::Failed, ..fed.clone() },
        ] {
            assert_eq!(place(ReplicaId(2), &cut_off), None, "{cut_off:?}");
        }
        assert_eq!(place(ReplicaId(9), &fed), None, "it is no member");
    }

    #[test]
    fn whoever_comes_later_in_the_row_waits_for_those_before() {
        let minute = Duration::from_mins(1);
        assert_eq!([0, 1, 2].map(|place| due_after(place, minute)), [minute, minute * 3, minute * 6]);
    }
}
