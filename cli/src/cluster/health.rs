//! `zue health`: one line and one exit code for scripts and monitoring.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use zue_client::{Client, DescribeResponse, ReplicaStatus};

use crate::cluster::status::{Reach, leader};
use crate::terminal::output::{Out, Output};

/// The end of the command's help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes, as of a Nagios plugin:
  0 ok        one leads, and every voter is in sync
  1 warning   appends are committed, but a voter is not in sync, or a replica reports a problem
  2 critical  nobody leads, or too few voters are in reach: appends are not committed
  3 unknown   no server answers, or wrong use";

/// The health of a cluster, as a Nagios plugin has it. The exit code of each is its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// Of wrong use, too.
pub(crate) const UNKNOWN: u8 = 3;

impl Level {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => UNKNOWN,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        })
    }
}

/// The state of a cluster. Unknown parts are absent.
#[derive(Debug, Serialize)]
struct Health {
    level: Level,
    leader: Option<String>,
    epoch: Option<u64>,
    voters: Option<usize>,
    in_sync: Option<usize>,
    /// The number of voters that answer the leader and can write, itself included.
    in_reach: Option<u32>,
    /// The number of voters that an append must reach.
    quorum: Option<u32>,
    /// The problems that were found.
    problems: Vec<String>,
}

pub(crate) async fn run(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let health = judge(&client.status().await);
    let mut out = Out::new();
    match output {
        Output::Json => out.json(&health)?,
        Output::Table => out.line(health.line().as_bytes())?,
    }
    out.flush()?;
    Ok(ExitCode::from(health.level.code()))
}

fn judge(replicas: &[ReplicaStatus]) -> Health {
    let problems: Vec<String> = replicas.iter().filter_map(problem).collect();
    let nobody = Health {
        level: Level::Critical,
        leader: None,
        epoch: None,
        voters: None,
        in_sync: None,
        in_reach: None,
        quorum: None,
        problems: Vec::new(),
    };
    let first = |what: &str| [what.to_owned()].into_iter().chain(problems.clone()).collect();
    if replicas.iter().all(|replica| replica.answer.is_err()) {
        return Health { level: Level::Unknown, problems: first("no server answers"), ..nobody };
    }
    let Some(leader) = leader(replicas) else {
        return Health { problems: first("no replica that answers leads"), ..nobody };
    };
    of_led(leader, problems)
}

fn of_led(leader: &DescribeResponse, mut problems: Vec<String>) -> Health {
    let Reach { quorum, writing: in_reach, voters } = Reach::of(leader);
    let names = || leader.members.iter().filter(|member| member.voter).map(|member| &member.name);
    let late = || names().filter(|name| !leader.isr.contains(name));
    problems.splice(0..0, late().map(|name| format!("{name} is not in sync")));
    let level = match () {
        () if in_reach < quorum => Level::Critical,
        () if problems.is_empty() => Level::Ok,
        () => Level::Warning,
    };
    if level == Level::Critical {
        problems.insert(0, Reach::of(leader).to_string());
    }
    Health {
        level,
        leader: Some(leader.name.clone()),
        epoch: Some(leader.epoch),
        voters: Some(voters),
        in_sync: Some(voters - late().count()),
        in_reach: Some(in_reach),
        quorum: Some(quorum),
        problems,
    }
}

/// The problem that one replica, or its silence, tells of.
fn problem(replica: &ReplicaStatus) -> Option<String> {
    let name = replica.name.as_deref().unwrap_or(&replica.address);
    match &replica.answer {
        Ok(answer) if answer.problem.is_empty() => None,
        Ok(answer) => Some(format!("{name}: {}", answer.problem)),
        Err(why) => Some(format!("{name} does not answer: {why}")),
    }
}

impl Health {
    fn line(&self) -> String {
        let mut said = self.problems.clone();
        if let (Some(leader), Some(epoch)) = (&self.leader, self.epoch) {
            said.push(format!("{leader} leads epoch {epoch}"));
        }
        if let (Some(in_sync), Some(voters)) = (self.in_sync, self.voters) {
            said.push(format!("{in_sync} of {voters} voters are in sync"));
        }
        format!("{}: {}", self.level, said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use zue_proto::v1::{LeaderHint, MemberHint};

    use super::*;

    fn replica(name: &str, leads: bool, isr: &[&str], in_reach: u32) -> ReplicaStatus {
        let member = |name: &str| MemberHint { name: name.to_owned(), voter: name != "d", ..Default::default() };
        let answer = DescribeResponse {
            name: name.to_owned(),
            epoch: 3,
            leader: leads.then(|| LeaderHint { name: name.to_owned(), ..Default::default() }),
            members: ["a", "b", "c", "d"].map(member).to_vec(),
            isr: isr.iter().map(|name| (*name).to_owned()).collect(),
            quorum: 2,
            in_reach,
            ..Default::default()
        };
        ReplicaStatus { name: Some(name.to_owned()), address: String::new(), answer: Ok(answer) }
    }

    fn down(name: &str) -> ReplicaStatus {
        ReplicaStatus { answer: Err("refused".to_owned()), ..replica(name, false, &[], 0) }
    }

    fn check(replicas: &[ReplicaStatus], code: u8, line: &str) {
        let health = judge(replicas);
        assert_eq!((health.level.code(), health.line().as_str()), (code, line));
    }

    #[test]
    fn the_level_is_that_of_the_worst_and_the_line_says_why() {
        let follower = |name| replica(name, false, &[], 0);
        let led = |isr: &[&str], in_reach| replica("a", true, isr, in_reach);
        let well = "a leads epoch 3; 3 of 3 voters are in sync";
        check(&[led(&["a", "b", "c"], 3), follower("b"), follower("c")], 0, &format!("ok: {well}"));
        check(
            &[led(&["a", "b"], 2), follower("b"), down("c")],
            1,
            "warning: c is not in sync; c does not answer: refused; a leads epoch 3; 2 of 3 voters are in sync",
        );
        check(
            &[led(&["a"], 1), down("b"), down("c")],
            2,
            "critical: 1 of 3 voters are in reach, 2 are needed; b is not in sync; c is not in sync; b does not answer: refused; c \
             does not answer: refused; a leads epoch 3; 1 of 3 voters are in sync",
        );
        check(&[down("a"), follower("b")], 2, "critical: no replica that answers leads; a does not answer: refused");
        check(&[down("a")], 3, "unknown: no server answers; a does not answer: refused");
    }

    #[test]
    fn a_problem_that_a_replica_tells_is_a_warning() {
        let mut bad = replica("b", false, &[], 0);
        if let Ok(answer) = &mut bad.answer {
            answer.problem = "its disk is slow".to_owned();
        }
        let health = judge(&[replica("a", true, &["a", "b", "c"], 3), bad]);
        assert_eq!((health.level, health.problems), (Level::Warning, vec!["b: its disk is slow".to_owned()]));
    }

    #[test]
    fn a_leader_of_an_earlier_version_does_not_say_whom_it_reaches_and_its_isr_counts() {
        let mut old = replica("a", true, &["a", "b"], 0);
        if let Ok(answer) = &mut old.answer {
            answer.quorum = 0;
        }
        assert_eq!(judge(&[old]).level, Level::Warning);
    }
}
