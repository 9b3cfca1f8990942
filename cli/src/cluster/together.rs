//! Oddities of the replicas of a status side by side.

use zue_client::ReplicaStatus;
use zue_controller::notices::{Facts, Notice, notices};

/// The oddities of each of them, in their order. `leader` is the name of the one that leads.
pub(crate) fn look(replicas: &[ReplicaStatus], leader: Option<&str>) -> Vec<Option<Notice>> {
    let all = replicas.iter().map(|replica| {
        let answer = replica.answer.as_ref().ok()?;
        Some(Facts {
            known_as: &answer.name,
            name: &answer.name,
            replica: &answer.replica_id,
            // Its first epoch may not have begun yet.
            cluster: if answer.epoch > 0 { &answer.cluster_id } else { &[] },
            durability: &answer.durability,
            restored: answer.cluster_id.is_empty() && answer.log_end > 0,
        })
    });
    let all: Vec<_> = all.collect();
    let leads = |facts: &Option<Facts<'_>>| facts.is_some_and(|facts| Some(facts.name) == leader);
    notices(&all, all.iter().position(leads), None)
}

#[cfg(test)]
mod tests {
    use zue_client::DescribeResponse;

    use super::*;

    #[test]
    fn replicas_that_do_not_go_together_are_told_beside_the_later_one() {
        let replica = |name: &str, id: u8, durability: &str| {
            let answer = DescribeResponse {
                name: name.to_owned(),
                replica_id: vec![id].into(),
                cluster_id: vec![9].into(),
                epoch: 4,
                durability: durability.to_owned(),
                ..Default::default()
            };
            ReplicaStatus { name: Some(name.to_owned()), address: String::new(), answer: Ok(answer) }
        };
        let replicas = [replica("a", 1, "sync"), replica("b", 1, "sync"), replica("c", 3, "os")];
        let said: Vec<_> = look(&replicas, Some("a")).into_iter().map(|odd| odd.map(|odd| odd.name())).collect();
        assert_eq!(said, [None, Some("SameReplica"), Some("OtherDurability")]);
    }
}
