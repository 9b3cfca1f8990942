//! The parts of a node's status that a controller acts on. Knows no service.

use crate::v1::{BackupStatus, StatusResponse};

/// The longest time between two reports of a node that is watched, milliseconds.
pub const HEARTBEAT_MS: u64 = 500;

/// Returns whether `now` says something that a controller may act on and `before` did not. What only moves on is no news: how far logs have
/// come, and for how long a leader is silent, as long as that is less than `detection_ms` in both.
pub fn is_news(before: &StatusResponse, now: &StatusResponse, detection_ms: u64) -> bool {
    essence(before, detection_ms) != essence(now, detection_ms)
}

/// Returns whether the node holds a log, and belongs to no cluster: what a backup was restored to. A new cluster may begin with it.
pub fn is_restored(status: &StatusResponse) -> bool {
    let has_log = status.durable.is_some_and(|durable| (durable.epoch, durable.end) != (0, 0));
    status.cluster_id.is_empty() && (has_log || status.last_epoch_start.is_some())
}

fn essence(status: &StatusResponse, detection_ms: u64) -> StatusResponse {
    let mut status = status.clone();
    (status.log, status.log_start, status.commit_end) = (None, 0, 0);
    (status.isr_shrinks, status.isr_expands) = (0, 0);
    (status.clock_ahead_ms, status.log_time_ahead_ms) = (None, 0);
    if let Some(durable) = &mut status.durable {
        durable.end = 0;
    }
    if let Some(backup) = &mut status.backup {
        *backup = BackupStatus { problem: std::mem::take(&mut backup.problem), ..BackupStatus::default() };
    }
    let has_lost = status.leader_silence_ms.is_some_and(|ms| ms >= detection_ms);
    status.leader_silence_ms = Some(has_lost.into());
    for follower in &mut status.followers {
        (follower.durable, follower.lag_records, follower.lag_ms, follower.lag_bytes) = (None, 0, 0, None);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{BackupMade, FollowerStatus, Role, Tail};

    #[test]
    fn what_only_moves_on_is_no_news() {
        let mut before = StatusResponse { leader_silence_ms: Some(10), promised: 4, ..StatusResponse::default() };
        before.set_role(Role::Leader);
        before.followers.push(FollowerStatus { in_sync: true, ..FollowerStatus::default() });
        before.durable = Some(Tail { epoch: 4, end: 7 });
        let mut now = before.clone();
        (now.commit_end, now.leader_silence_ms, now.durable) = (9, Some(999), Some(Tail { epoch: 4, end: 9 }));
        now.followers[0].lag_records = 3;
        assert!(!is_news(&before, &now, 1000));
        assert!(is_news(&before, &StatusResponse { leader_silence_ms: Some(1000), ..now.clone() }, 1000));
        assert!(is_news(&before, &StatusResponse { promised: 5, ..now.clone() }, 1000));
        assert!(is_news(&before, &StatusResponse { durable: Some(Tail { epoch: 5, end: 7 }), ..now.clone() }, 1000));
        now.followers[0].in_sync = false;
        assert!(is_news(&before, &now, 1000));
    }

    #[test]
    fn that_backups_fail_is_news_and_a_further_one_is_none() {
        let made = |end| BackupStatus {
            newest: Some(BackupMade { end, ..BackupMade::default() }),
            age_ms: end,
            ..BackupStatus::default()
        };
        let of = |backup| StatusResponse { backup: Some(backup), ..StatusResponse::default() };
        assert!(!is_news(&of(made(7)), &of(made(9)), 1000));
        let failing = BackupStatus { problem: "the store is away".to_owned(), ..made(9) };
        assert!(is_news(&of(made(9)), &of(failing), 1000));
    }
}
