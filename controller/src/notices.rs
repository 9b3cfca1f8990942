//! Oddities of the replicas of a cluster side by side, though each is well: in words for people, the same wherever it is shown.

use std::fmt;

/// Something a person should look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Two names under which one replica answers.
    SameReplica {
        /// The two names by which they were asked for, or that they gave.
        names: [String; 2],
        /// The replica's id.
        replica: String,
        /// Two processes answer, by the names they give: one of their disks is a copy of the other's.
        is_copied: bool,
    },
    /// A replica of another cluster.
    OtherCluster {
        /// Its name.
        name: String,
        /// Its cluster.
        found: String,
        /// The cluster that it should be of.
        expected: String,
        /// Whose cluster that is.
        whose: String,
    },
    /// A replica that was restored from a backup beside a cluster.
    Restored {
        /// Its name.
        name: String,
        /// The cluster.
        cluster: String,
    },
    /// A replica that acknowledges otherwise than its leader.
    OtherDurability {
        /// Its name.
        name: String,
        /// Its durability.
        durability: String,
        /// The leader.
        leader: String,
        /// The leader's.
        leaders: String,
    },
}

impl Notice {
    /// Its name, for logs and Kubernetes Events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SameReplica { .. } => "SameReplica",
            Self::OtherCluster { .. } => "OtherCluster",
            Self::Restored { .. } => "RestoredBesideCluster",
            Self::OtherDurability { .. } => "OtherDurability",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameReplica { names: [one, other], replica, is_copied: true } => write!(
                f,
                "{one} and {other} run on the disk of one replica, {replica}: one is a copy of the other. Stop the copy and delete its \
                 volume; it comes back as a new replica"
            ),
            Self::SameReplica { names: [one, other], replica, is_copied: false } => {
                write!(f, "{one} and {other} are one replica, {replica}: two addresses lead to one place")
            }
            Self::OtherCluster { name, found, expected, whose } => write!(
                f,
                "{name} belongs to cluster {found}, and {whose} to cluster {expected}: the addresses, the recorded state or the volume \
                 are of another cluster. It takes part in nothing here, and nothing of it is deleted"
            ),
            Self::Restored { name, cluster } => write!(
                f,
                "{name} holds a log that was restored from a backup, and cluster {cluster} is there already: it takes part in nothing \
                 here. Restore under another name for a cluster of its own, or empty its disk for it to join this one"
            ),
            Self::OtherDurability { name, durability, leader, leaders } => write!(
                f,
                "{name} runs with durability {durability}, and {leader}, the leader, with {leaders}. Each acknowledges by its own \
                 setting, so a record is only as safe as the weakest that committed it: give all the same durability"
            ),
        }
    }
}

/// The report of one replica about itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The name under which it is known here.
    pub known_as: &'a str,
    /// The name that it gives.
    pub name: &'a str,
    /// Its id; empty if it does not say.
    pub replica: &'a [u8],
    /// Its cluster; empty before the first epoch.
    pub cluster: &'a [u8],
    /// The durability of its acknowledgements; empty if it does not say.
    pub durability: &'a str,
    /// True if it holds a log, and belongs to no cluster.
    pub restored: bool,
}

/// The oddities of each of these, in their order; of two that do not go together, at the later one. `leader` is the place of the one
/// that leads; `expected` is the cluster that is recorded somewhere, and where.
pub fn notices(
    all: &[Option<Facts<'_>>],
    leader: Option<usize>,
    expected: Option<(&[u8], &str)>,
) -> Vec<Option<Notice>> {
    let leading = leader.and_then(|leader| all.get(leader)).and_then(Option::as_ref);
    let in_cluster = || all.iter().flatten().filter(|facts| !facts.cluster.is_empty());
    let first = leading.or_else(|| in_cluster().next()).map(|facts| (facts.cluster, facts.known_as));
    let expected = expected.or(first.filter(|(cluster, _)| !cluster.is_empty()));
    let odd = |(at, facts): (usize, &Option<Facts<'_>>)| {
        let facts = facts.as_ref()?;
        let name = || facts.known_as.to_owned();
        let before = all.iter().take(at).flatten();
        if let Some(same) = before.clone().find(|other| !other.replica.is_empty() && other.replica == facts.replica) {
            let (names, replica) = ([same.known_as.to_owned(), name()], hex(facts.replica));
            return Some(Notice::SameReplica { names, replica, is_copied: same.name != facts.name });
        }
        if let Some((cluster, whose)) = expected.filter(|(cluster, _)| ![*cluster, b""].contains(&facts.cluster)) {
            let (found, expected, whose) = (hex(facts.cluster), hex(cluster), whose.to_owned());
            return Some(Notice::OtherCluster { name: name(), found, expected, whose });
        }
        if let Some((cluster, _)) = expected.filter(|_| facts.restored) {
            return Some(Notice::Restored { name: name(), cluster: hex(cluster) });
        }
        let leading = leading.filter(|leading| !leading.durability.is_empty() && !facts.durability.is_empty())?;
        let differs = leading.durability != facts.durability;
        let (leader, leaders) = (leading.known_as.to_owned(), leading.durability.to_owned());
        let durability = facts.durability.to_owned();
        differs.then(|| Notice::OtherDurability { name: name(), durability, leader, leaders })
    };
    all.iter().enumerate().map(odd).collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "stands beside one that does not answer")]
    fn facts<'a>(name: &'a str, replica: &'a [u8], cluster: &'a [u8], durability: &'a str) -> Option<Facts<'a>> {
        Some(Facts { known_as: name, name, replica, cluster, durability, restored: false })
    }

    fn said(all: &[Option<Facts<'_>>], leader: Option<usize>, expected: Option<(&[u8], &str)>) -> Vec<String> {
        notices(all, leader, expected).into_iter().flatten().map(|notice| notice.to_string()).collect()
    }

    #[test]
    fn replicas_that_go_together_are_not_odd() {
        let all = [facts("a", b"1", b"c", "sync"), None, facts("b", b"2", b"c", "sync"), facts("new", b"3", b"", "")];
        assert_eq!(said(&all, Some(0), Some((b"c", "the record"))), Vec::<String>::new());
        assert_eq!(said(&all[1..], None, None), Vec::<String>::new());
    }

    #[test]
    fn two_nodes_with_the_disk_of_one_replica_are_told_by_both_names() {
        let said = said(&[facts("a", b"\x0a", b"c", "sync"), facts("b", b"\x0a", b"c", "sync")], Some(0), None);
        assert!(said[0].starts_with("a and b run on the disk of one replica, 0a: one is a copy"), "{said:?}");
        let one = Facts { known_as: "b", ..facts("a", b"1", b"c", "sync").unwrap() };
        let notice = notices(&[facts("a", b"1", b"c", "sync"), Some(one)], None, None).remove(1).unwrap();
        assert!(
            notice.to_string().contains("a and b are one replica, 31: two addresses lead to one place"),
            "{notice}"
        );
    }

    #[test]
    fn a_replica_of_another_cluster_is_told_with_the_record_or_with_the_other_replica() {
        let all = [facts("a", b"1", b"c", "sync"), facts("b", b"2", b"d", "sync")];
        let recorded = said(&all, None, Some((b"e", "the recorded state")));
        assert_eq!(recorded.len(), 2);
        assert!(
            recorded[0].starts_with("a belongs to cluster 63, and the recorded state to cluster 65"),
            "{recorded:?}"
        );
        let other = said(&all, Some(1), None);
        assert!(
            matches!(&other[..], [one] if one.starts_with("a belongs to cluster 63, and b to cluster 64")),
            "{other:?}"
        );
    }

    #[test]
    fn a_restored_replica_is_odd_beside_a_cluster_and_nowhere_else() {
        let restored = Some(Facts { restored: true, ..facts("b", b"2", b"", "").unwrap() });
        let said_of = |other| said(&[other, restored], None, None);
        assert_eq!(said_of(facts("a", b"1", b"", "")), Vec::<String>::new());
        let beside = said_of(facts("a", b"1", b"c", ""));
        assert!(
            matches!(&beside[..], [one] if one.contains("b holds a log that was restored") && one.contains("cluster 63 is")),
            "{beside:?}"
        );
    }

    #[test]
    fn another_durability_than_the_leaders_is_told_with_both() {
        let all = [facts("a", b"1", b"c", "os"), facts("b", b"2", b"c", "sync"), facts("c", b"3", b"c", "sync")];
        let said = said(&all, Some(1), None);
        assert!(
            matches!(&said[..], [one] if one.starts_with("a runs with durability os, and b, the leader, with sync")),
            "{said:?}"
        );
    }
}
