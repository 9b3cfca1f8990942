//! A backup that is asked for by a ZueBackup: which pod is to make it, and what is said of it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use zue_proto::v1::asked_backup::Outcome;
use zue_proto::v1::{AskedBackup, BackupMade, Role, StatusResponse};

use crate::crd::on_demand::{Phase, ZueBackupStatus};

/// The length to which messages are cut, and that of names.
const MESSAGE_CHARS_MAX: usize = 400;
const NAME_CHARS_MAX: usize = 100;

/// The status of every node by ordinal, or why there is none.
pub type Answers = [Result<StatusResponse, String>];

/// The ordinal of the node that is to make it, or why there is none: the one that it was asked of before, if it still can, else a follower,
/// else the leader.
pub fn choose(nodes: &Answers, before: Option<usize>) -> Result<usize, String> {
    let can = |ordinal: usize| nodes.get(ordinal).and_then(|node| node.as_ref().ok()).and_then(rank);
    if let Some(before) = before.filter(|before| can(*before).is_some()) {
        return Ok(before);
    }
    let best = (0..nodes.len()).filter_map(|ordinal| Some((can(ordinal)?, ordinal))).min();
    best.map(|(_, ordinal)| ordinal).ok_or_else(|| {
        let silent = nodes.iter().find_map(|node| node.as_ref().err());
        let why = silent.map(|why| format!(": {why}")).unwrap_or_default();
        format!("no replica that makes backups leads or follows{why}")
    })
}

/// The rank of a node for making one, the least the best; none of one that can't.
fn rank(status: &StatusResponse) -> Option<u8> {
    let makes_backups = status.backup.is_some() && !status.cluster_id.is_empty();
    match status.role() {
        Role::Follower if makes_backups && status.leader_connected => Some(0),
        Role::Leader if makes_backups => Some(1),
        _ => None,
    }
}

/// The status of a backup that waits for something.
pub fn waits(before: &ZueBackupStatus, why: &str) -> ZueBackupStatus {
    let phase = if before.phase == Phase::Running { Phase::Running } else { Phase::Pending };
    ZueBackupStatus {
        phase,
        message: Some(cut(why, MESSAGE_CHARS_MAX)),
        pod: before.pod.clone(),
        ..ZueBackupStatus::default()
    }
}

/// The status of one that can't be made.
pub fn failed(pod: Option<String>, why: &str) -> ZueBackupStatus {
    ZueBackupStatus {
        phase: Phase::Failed,
        pod,
        message: Some(cut(why, MESSAGE_CHARS_MAX)),
        ..ZueBackupStatus::default()
    }
}

/// The status of one by the word of the pod that makes it.
pub fn told(pod: String, asked: AskedBackup) -> ZueBackupStatus {
    match asked.outcome {
        None | Some(Outcome::Running(_)) => {
            ZueBackupStatus { phase: Phase::Running, pod: Some(pod), ..ZueBackupStatus::default() }
        }
        Some(Outcome::Failed(why)) => failed(Some(pod), &why),
        Some(Outcome::Made(BackupMade { id, end, made_ms })) => ZueBackupStatus {
            phase: Phase::Done,
            pod: Some(pod),
            backup: Some(cut(&id, NAME_CHARS_MAX)),
            end: Some(end),
            time: i64::try_from(made_ms / 1000).ok().and_then(|s| Timestamp::from_second(s).ok()).map(Time),
            message: None,
        },
    }
}

/// The merge patch that writes a status: what is absent is taken away.
pub fn patch(status: &ZueBackupStatus) -> Value {
    let all = ["phase", "pod", "backup", "end", "time", "message"];
    let mut fields: Map<String, Value> = all.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
    if let Ok(Value::Object(present)) = serde_json::to_value(status) {
        fields.extend(present);
    }
    serde_json::json!({ "status": fields })
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use zue_proto::v1::{BackupRunning, BackupStatus};

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "it is an answer, as they come")]
    fn node(role: Role) -> Result<StatusResponse, String> {
        Ok(StatusResponse {
            role: role.into(),
            cluster_id: zue_proto::id_bytes(9),
            leader_connected: role == Role::Follower,
            backup: Some(BackupStatus::default()),
            ..StatusResponse::default()
        })
    }

    fn silent() -> Result<StatusResponse, String> {
        Err("no answer".to_owned())
    }

    #[test]
    fn a_follower_makes_it_and_the_leader_only_where_no_follower_can() {
        let lost = node(Role::Follower).map(|status| StatusResponse { leader_connected: false, ..status });
        let none = node(Role::Follower).map(|status| StatusResponse { backup: None, ..status });
        for (nodes, expected) in [
            (vec![node(Role::Leader), node(Role::Follower), node(Role::Follower)], Ok(1)),
            (vec![node(Role::Leader), silent(), node(Role::Follower)], Ok(2)),
            (vec![node(Role::Leader), lost, none], Ok(0)),
            (vec![node(Role::Idle), node(Role::Failed)], Err("no replica that makes backups leads or follows")),
            (vec![node(Role::Idle), silent()], Err("no replica that makes backups leads or follows: no answer")),
        ] {
            assert_eq!(choose(&nodes, None), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn who_was_asked_before_goes_on_as_long_as_it_can() {
        let all = [node(Role::Leader), node(Role::Follower), node(Role::Follower)];
        assert_eq!(choose(&all, Some(2)), Ok(2));
        assert_eq!(choose(&all, Some(0)), Ok(0), "it leads by now, and may have begun");
        assert_eq!(choose(&[node(Role::Leader), node(Role::Follower), silent()], Some(2)), Ok(1));
        assert_eq!(choose(&all, Some(7)), Ok(1));
    }

    #[test]
    fn how_far_it_has_come_is_told_and_what_held_it_up_is_taken_away() {
        let told = |outcome| told("orders-1".to_owned(), AskedBackup { outcome: Some(outcome) });
        let running = told(Outcome::Running(BackupRunning {}));
        assert_eq!((running.phase, running.pod.as_deref()), (Phase::Running, Some("orders-1")));
        assert_eq!(waits(&running, "it is silent").phase, Phase::Running);
        assert_eq!(waits(&ZueBackupStatus::default(), "nobody leads").phase, Phase::Pending);
        let failed = told(Outcome::Failed("x".repeat(9000)));
        assert_eq!((failed.phase, failed.message.map(|why| why.len())), (Phase::Failed, Some(400)));
        let made = told(Outcome::Made(BackupMade { id: "b".to_owned(), end: 7, made_ms: 1_795_860_000_500 }));
        assert!(made.phase.is_over() && made.end == Some(7));
        let patch = patch(&made);
        assert_eq!(patch["status"]["message"], Value::Null);
        assert_eq!(
            (&patch["status"]["phase"], &patch["status"]["time"]),
            (&"Done".into(), &"2026-11-28T10:00:00Z".into())
        );
    }
}
