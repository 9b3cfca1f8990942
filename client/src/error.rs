//! The errors between a client and a log, as facts.

use std::fmt;
use std::time::Duration;

use tonic::Status;
use zue_proto::v1::{self, Outcome, Reason};

use crate::AppendId;
use zue_proto::net::{self, BadAddress};

/// Why a request failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// An address is not of the form host:port.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// A token would be there for everybody to read.
    #[error("a token is sent over TLS only: name the authority of the servers' certificates (zue --ca FILE)")]
    TokenWithoutTls,
    /// No address was given.
    #[error("no server address was given")]
    NoServers,
    /// A server said no.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// A server did not answer.
    #[error("{server} does not answer: {why}")]
    Unreachable {
        /// Its name or address.
        server: String,
        /// The error of the connection.
        why: String,
        /// True if the request may have reached it all the same.
        is_sent: bool,
    },
    /// The server that answers is not believed, or does not believe the certificate that it was shown.
    #[error("{server}: {why}")]
    Distrusted {
        /// Its name or address.
        server: String,
        /// The server that is not believed, why not, and what to do about it.
        why: String,
    },
    /// Nobody is known to lead.
    #[error(transparent)]
    NoLeader(Box<NoLeader>),
    /// No replica of this name is known.
    #[error("no replica is named {name:?}; known are: {}", list(.known))]
    UnknownReplica {
        /// The name asked for.
        name: String,
        /// The names of the cluster's replicas.
        known: Vec<String>,
    },
    /// A replica that was to lead does not yet.
    #[error(
        "{leader} still leads: {to} is not in sync, or the policy names another leader, or no controller is running"
    )]
    NotSwitched {
        /// The intended leader.
        to: String,
        /// The leader.
        leader: String,
    },
    /// A backup that was asked for could not be made.
    #[error("{server} could not make the backup: {why}")]
    NotBackedUp {
        /// The replica that was asked.
        server: String,
        /// In its words.
        why: String,
    },
    /// Records are missing, or come again.
    #[error("{server} sent record {found} instead of {expected}: its records cannot be trusted")]
    Gap {
        /// The sender.
        server: String,
        /// The offset that was due.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// An answer that breaks the protocol.
    #[error("malformed response from {server}: {what}")]
    Malformed {
        /// The server that answered.
        server: String,
        /// The fault in it.
        what: &'static str,
    },
    /// The deadline passed; the last try failed as told.
    #[error("given up after {:.1} s: {last}", .after.as_secs_f64())]
    TimedOut {
        /// For how long it was tried.
        after: Duration,
        /// The failure of the last try.
        last: Box<Error>,
    },
}

/// A server's no.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{server}: {message}")]
pub struct Refused {
    /// The server that said it.
    pub server: String,
    /// Why.
    pub reason: Reason,
    /// The known outcome of an append.
    pub outcome: Outcome,
    /// In words.
    pub message: String,
    /// The first offset that can be read, for `OFFSET_OUT_OF_RANGE`.
    pub log_start: u64,
    /// The end of what can be read, for `OFFSET_OUT_OF_RANGE`.
    pub commit_end: u64,
    /// The sequence that is next, for `SEQUENCE_GAP`.
    pub expected_sequence: u64,
}

/// Why no leader was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NoLeader {
    /// The leader as far as the others know, and the address it gives to clients: it could not be reached there.
    pub named: Option<(String, String)>,
    /// True if one that answers hears it all the same.
    pub is_followed: bool,
    /// The number of voters, as far as those know that answer.
    pub voters: usize,
    /// Those of them that did not answer.
    pub missing: Vec<String>,
    /// No address is one where clients are served: to try again cannot help.
    pub is_misplaced: bool,
    /// The server that answered.
    pub answered: Vec<String>,
    /// The addresses that did not, and the reasons.
    pub unreachable: Vec<(String, String)>,
}

impl std::error::Error for NoLeader {}

impl NoLeader {
    /// Returns whether too few voters answer to elect a leader.
    fn misses_majority(&self) -> bool {
        self.voters > 0 && self.voters.saturating_sub(self.missing.len()) * 2 <= self.voters
    }
}

impl fmt::Display for NoLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, address)) = self.named.as_ref().filter(|_| self.is_followed) {
            let why = self.unreachable.iter().find(|(unreachable, _)| unreachable == address);
            let why = why.map_or("no answer", |(_, why)| why);
            return write!(
                f,
                "{name} leads, and {address}, the address it gives to clients, cannot be reached from here: {why}; if it never \
                 can, set `advertise` of the replicas to addresses that can"
            );
        }
        match (self.answered.as_slice(), &self.named) {
            ([], _) if self.is_misplaced => f.write_str("no address is one where clients are served")?,
            ([], _) => f.write_str("no server answers")?,
            _ if self.misses_majority() => {
                let (missing, voters) = (self.missing.join(", "), self.voters);
                write!(
                    f,
                    "{} of {voters} voters do not answer ({missing}): the others cannot elect a leader",
                    self.missing.len()
                )?;
            }
            (answered, Some((name, _))) => {
                write!(f, "{name} led last, and is lost to {}; no other leads yet", answered.join(", "))?;
            }
            (answered, None) => write!(f, "no leader is known to {}", answered.join(", "))?,
        }
        let mut separator = "; ";
        for (address, why) in &self.unreachable {
            write!(f, "{separator}{address}: {why}")?;
            separator = ", ";
        }
        Ok(())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Error {
    pub(crate) fn of_status(server: &str, status: &Status) -> Self {
        match zue_proto::error_of(status) {
            Some(error) => Self::refused(server, error),
            None if net::is_of_identity(status) => {
                Self::Distrusted { server: server.to_owned(), why: net::why(status) }
            }
            None => Self::Unreachable {
                server: server.to_owned(),
                why: net::why(status),
                is_sent: !net::is_unconnected(status),
            },
        }
    }

    pub(crate) fn refused(server: &str, error: v1::Error) -> Self {
        let (reason, outcome) = (error.reason(), error.outcome());
        let v1::Error { message, log_start, commit_end, expected_sequence, .. } = error;
        let server = server.to_owned();
        Self::Refused(Box::new(Refused { server, reason, outcome, message, log_start, commit_end, expected_sequence }))
    }

    /// Returns whether it is about who asks, or who answers: only something else that is shown or believed helps.
    pub(crate) fn is_of_identity(&self) -> bool {
        match self {
            Self::Distrusted { .. } => true,
            Self::Refused(refused) => matches!(refused.reason, Reason::Unauthenticated | Reason::PermissionDenied),
            _ => false,
        }
    }

    pub(crate) fn no_answer(server: &str, within: Duration) -> Self {
        Self::unreachable(server, &format!("nothing within {:.1} s", within.as_secs_f64()))
    }

    pub(crate) fn replaced(server: &str) -> Self {
        Self::unreachable(server, "another leads by now")
    }

    pub(crate) fn unreachable(server: &str, why: &str) -> Self {
        Self::Unreachable { server: server.to_owned(), why: why.to_owned(), is_sent: true }
    }

    /// In place of the refusal of a producer that has nothing in the log: another is opened.
    pub(crate) fn producer_forgotten(server: &str) -> Self {
        Self::Unreachable {
            server: server.to_owned(),
            why: "it has forgotten this producer".to_owned(),
            is_sent: false,
        }
    }

    /// Returns whether it tells that the log does not know the producer: it was forgotten, or this log was begun anew since all before
    /// `acknowledged` was.
    pub(crate) fn forgets(&self, acknowledged: Option<u64>) -> bool {
        match self {
            Self::Refused(refused) => match refused.reason {
                Reason::UnknownProducer => true,
                Reason::SequenceGap => acknowledged.is_some_and(|sequence| refused.expected_sequence < sequence),
                _ => false,
            },
            _ => false,
        }
    }

    /// The producer is not known, and neither is what became of its append.
    pub(crate) fn unfound(self, why: impl fmt::Display) -> Self {
        match self {
            Self::Refused(refused) => {
                let message = format!("{}; {why}", refused.message);
                Self::Refused(Box::new(Refused { message, ..*refused }))
            }
            other => other,
        }
    }

    /// The reason that a server gave, with the last try if the deadline passed.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refused) => Some(refused.reason),
            Self::TimedOut { last, .. } => last.reason(),
            _ => None,
        }
    }

    /// The server that answered, or did not.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Refused(refused) => Some(&refused.server),
            Self::Unreachable { server, .. }
            | Self::Distrusted { server, .. }
            | Self::NotBackedUp { server, .. }
            | Self::Gap { server, .. }
            | Self::Malformed { server, .. } => Some(server),
            Self::NotSwitched { leader, .. } => Some(leader),
            Self::TimedOut { last, .. } => last.server(),
            Self::BadAddress(_)
            | Self::NoServers
            | Self::TokenWithoutTls
            | Self::NoLeader(_)
            | Self::UnknownReplica { .. } => None,
        }
    }

    /// Returns whether trying again, perhaps with another server, may succeed.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused(refused) => is_retriable(refused.reason),
            Self::Unreachable { .. } | Self::NotSwitched { .. } | Self::TimedOut { .. } => true,
            Self::NoLeader(no_leader) => !no_leader.is_misplaced,
            Self::BadAddress(_)
            | Self::NoServers
            | Self::TokenWithoutTls
            | Self::Distrusted { .. }
            | Self::UnknownReplica { .. }
            | Self::NotBackedUp { .. }
            | Self::Gap { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// Returns whether the append of this try is surely not in the log.
    pub(crate) fn is_not_appended(&self) -> bool {
        match self {
            Self::Refused(refused) => refused.outcome == Outcome::NotAppended,
            Self::Unreachable { is_sent, .. } => !is_sent,
            Self::NoLeader(_)
            | Self::BadAddress(_)
            | Self::NoServers
            | Self::TokenWithoutTls
            | Self::Distrusted { .. }
            | Self::UnknownReplica { .. }
            | Self::NotBackedUp { .. } => true,
            Self::Gap { .. } | Self::Malformed { .. } | Self::NotSwitched { .. } | Self::TimedOut { .. } => false,
        }
    }
}

fn is_retriable(reason: Reason) -> bool {
    match reason {
        Reason::Unspecified
        | Reason::NotLeader
        | Reason::NoQuorum
        | Reason::SteppedDown
        | Reason::Overloaded
        | Reason::TimedOut
        | Reason::StorageFailed
        | Reason::ShuttingDown
        | Reason::StaleEpoch
        | Reason::DiskFull
        | Reason::TooManyFiles
        | Reason::StorageRefused => true,
        Reason::TooLarge
        | Reason::Invalid
        | Reason::OffsetOutOfRange
        | Reason::SequenceGap
        | Reason::UnknownProducer
        | Reason::Duplicate
        | Reason::Corrupt
        | Reason::WrongTarget
        | Reason::NeedsOrigin
        | Reason::Unauthenticated
        | Reason::PermissionDenied => false,
    }
}

/// A failed append.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{error}; {}", self.fate())]
pub struct AppendError {
    /// True if the records may be in the log all the same. They are not where this is false.
    pub is_unknown: bool,
    /// The append that failed, of many the first; none where no producer could be opened. Repeated under this name by
    /// [`Client::append_again`](crate::Client::append_again), what was appended is kept once.
    pub id: Option<AppendId>,
    /// Why it failed.
    pub error: Error,
}

impl AppendError {
    fn fate(&self) -> String {
        match self.id.filter(|_| self.is_unknown) {
            _ if self.error.reason() == Some(Reason::Duplicate) => "the records are in the log".to_owned(),
            Some(id) => format!("the records may have been appended; repeated as {id}, they are kept once"),
            None if self.is_unknown => "the records may have been appended".to_owned(),
            None => "the records were not appended".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_that_cannot_be_followed_names_the_replica_the_address_and_the_remedy() {
        let no_leader = NoLeader {
            named: Some(("zue-1".to_owned(), "zue-1.zue-nodes:9440".to_owned())),
            is_followed: true,
            answered: vec!["zue-0".to_owned()],
            unreachable: vec![("zue-1.zue-nodes:9440".to_owned(), "name not known".to_owned())],
            ..NoLeader::default()
        };
        let text = no_leader.to_string();
        for fact in ["zue-1 leads", "zue-1.zue-nodes:9440", "name not known", "`advertise`"] {
            assert!(text.contains(fact), "{fact}: {text}");
        }
    }

    #[test]
    fn too_few_voters_to_elect_a_leader_are_told_with_their_number_and_a_leader_that_none_hears_is_lost() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let no_leader = |missing: &[&str], answered: &[&str]| NoLeader {
            named: Some(("zue-0".to_owned(), "a:1".to_owned())),
            voters: 3,
            missing: names(missing),
            answered: names(answered),
            unreachable: vec![("a:1".to_owned(), "refused".to_owned())],
            ..NoLeader::default()
        };
        let text = no_leader(&["zue-0", "zue-2"], &["zue-1"]).to_string();
        assert_eq!(text, "2 of 3 voters do not answer (zue-0, zue-2): the others cannot elect a leader; a:1: refused");
        let text = no_leader(&["zue-0"], &["zue-1", "zue-2"]).to_string();
        assert_eq!(text, "zue-0 led last, and is lost to zue-1, zue-2; no other leads yet; a:1: refused");
    }

    #[test]
    fn what_was_given_up_names_its_last_reason_and_stays_retriable() {
        let error = v1::Error { reason: Reason::NoQuorum.into(), message: "1 of 3".to_owned(), ..Default::default() };
        let last = Box::new(Error::refused("zue-0", error));
        let error = Error::TimedOut { after: Duration::from_secs(2), last };
        assert_eq!(error.to_string(), "given up after 2.0 s: zue-0: 1 of 3");
        assert_eq!(
            (error.reason(), error.server(), error.is_retriable()),
            (Some(Reason::NoQuorum), Some("zue-0"), true)
        );
    }
}
