//! Every refusal, as a client or a controller is told of it: a reason, an outcome and facts.

use tonic::Status;
use zue_core::{Offset, Refusal};
use zue_log::ReadError;
use zue_proto::status_of;
use zue_proto::v1::{Error, LeaderHint, Outcome, Reason};

use crate::driver::state::{ReplicaView, Role};

/// An error with a reason and a message.
pub(crate) fn error(reason: Reason, message: impl Into<String>) -> Error {
    let message = zue_proto::cut(message.into());
    Error { reason: reason.into(), outcome: Outcome::NotAppended.into(), message, ..Error::default() }
}

/// An invalid request.
pub(crate) fn invalid(message: impl ToString) -> Error {
    error(Reason::Invalid, message.to_string())
}

/// An error that leaves open whether the append is in the log.
pub(crate) fn unknown(reason: Reason, message: impl Into<String>) -> Error {
    Error { outcome: Outcome::Unknown.into(), ..error(reason, message) }
}

/// The node is stopping.
pub(crate) fn shutting_down() -> Error {
    error(Reason::ShuttingDown, "this replica is shutting down")
}

/// As a gRPC status, without an outcome: for calls that append nothing.
pub(crate) fn status(error: Error) -> Status {
    status_of(Error { outcome: Outcome::Unspecified.into(), ..error })
}

/// The meaning of a replica's refusal. `view` says where to go instead.
pub(crate) fn refused(refusal: &Refusal, view: &ReplicaView) -> Error {
    let message = refusal.to_string();
    match refusal {
        Refusal::Promised { .. }
        | Refusal::OtherLeader { .. }
        | Refusal::AlreadyStarted(_)
        | Refusal::NotSealed { .. }
        | Refusal::SealedBeforeStart(_)
        | Refusal::OtherStream => error(Reason::StaleEpoch, message),
        Refusal::OtherCluster { .. } | Refusal::NotBlank => error(Reason::WrongTarget, message),
        Refusal::Parted { .. }
        | Refusal::OtherVoters { .. }
        | Refusal::Impossible(_)
        | Refusal::TooFarAhead { .. }
        | Refusal::Gap { .. } => error(Reason::Invalid, message),
        // Some of it is in the log.
        Refusal::Overlap { .. } => unknown(Reason::Invalid, message),
        Refusal::Failed => storage_failed(view),
        Refusal::OffsetsUsedUp { .. } => error(Reason::TooLarge, message),
        Refusal::Restored => error(Reason::StorageFailed, message),
        Refusal::NotLeader => not_leader(view),
        Refusal::NoQuorum { .. } | Refusal::Connecting => error(Reason::NoQuorum, message),
        Refusal::LostQuorum { .. } => unknown(Reason::NoQuorum, message),
        Refusal::HandingOver | Refusal::Overloaded(_) | Refusal::ProducerOverloaded(_) | Refusal::TooManyReads(_) => {
            error(Reason::Overloaded, message)
        }
        Refusal::NeedsOrigin { .. } => error(Reason::NeedsOrigin, message),
        Refusal::TrimOutOfRange { log_start, commit_end, .. } => {
            Error { log_start: log_start.0, commit_end: commit_end.0, ..error(Reason::OffsetOutOfRange, message) }
        }
        Refusal::SteppedDown => Error { leader: elsewhere(view).cloned(), ..unknown(Reason::SteppedDown, message) },
        Refusal::HandOverTimedOut(_) => error(Reason::TimedOut, message),
        Refusal::SequenceGap { expected, .. } => {
            Error { expected_sequence: *expected, ..error(Reason::SequenceGap, message) }
        }
        // An earlier try may be in the log.
        Refusal::UnknownProducer => unknown(Reason::UnknownProducer, message),
        Refusal::PerhapsForgotten => unknown(Reason::Overloaded, message),
        // It is in the log: neither outcome fits.
        Refusal::Duplicate(_) => Error { outcome: Outcome::Unspecified.into(), ..error(Reason::Duplicate, message) },
    }
}

/// This replica does not lead; who does, if that is known here.
pub(crate) fn not_leader(view: &ReplicaView) -> Error {
    let leader = elsewhere(view);
    let message = match leader {
        Some(leader) => format!("this replica does not lead; {} does, at {}", leader.name, leader.address),
        None => "this replica does not lead, and knows of no leader".to_owned(),
    };
    Error { leader: leader.cloned(), ..error(Reason::NotLeader, message) }
}

/// The leader, if it is another. What a leader knows of itself may be out of date, or worth nothing: then the caller would come back.
fn elsewhere(view: &ReplicaView) -> Option<&LeaderHint> {
    view.leader.as_ref().filter(|_| view.role != Role::Leader)
}

/// A read where what comes does not come: others have what is current.
pub(crate) fn read_elsewhere(why: &str, view: &ReplicaView) -> Error {
    let known: Vec<String> =
        view.members.iter().map(|member| format!("{} at {}", member.name, member.client_address)).collect();
    let instead = if known.is_empty() { "ask its members".to_owned() } else { format!("ask {}", known.join(", ")) };
    Error { leader: view.leader.clone(), ..error(Reason::NotLeader, format!("{why}; {instead}")) }
}

/// This replica's storage failed; the view says how.
pub(crate) fn storage_failed(view: &ReplicaView) -> Error {
    let problem = view.problem.as_deref().unwrap_or("its cause is in the log of the process");
    error(Reason::StorageFailed, format!("the storage of this replica failed: {problem}"))
}

/// An offset that is not there.
pub(crate) fn out_of_range(from: u64, log_start: Offset, commit_end: Offset) -> Error {
    let message =
        format!("offset {from} is not within {log_start} and {commit_end}, where this replica's log can be read");
    Error { log_start: log_start.0, commit_end: commit_end.0, ..error(Reason::OffsetOutOfRange, message) }
}

/// A read that gives no records.
pub(crate) fn read_failed(failure: &ReadError, commit_end: Offset) -> Error {
    match failure {
        ReadError::OutOfRange { from, log_start, .. } => out_of_range(from.0, *log_start, commit_end),
        ReadError::NoSuchPrefix { .. } => error(Reason::Invalid, failure.to_string()),
        ReadError::Damaged(damage) => error(Reason::Corrupt, damage.to_string()),
        ReadError::Disk(disk) => error(Reason::StorageFailed, zue_engine::room::full(disk)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_sent_elsewhere_is_never_sent_back_to_the_same_node() {
        let leader = Some(LeaderHint { name: "zue-0".to_owned(), address: "zue-0:9440".to_owned() });
        for (role, told) in [(Role::Leader, None), (Role::Follower, leader.clone())] {
            let view = ReplicaView { role, leader: leader.clone(), ..ReplicaView::default() };
            for refusal in [Refusal::NotLeader, Refusal::SteppedDown] {
                let error = refused(&refusal, &view);
                assert_eq!(error.leader, told, "{role:?}: {refusal}");
                assert_eq!(error.message.contains("zue-0"), told.is_some() && refusal == Refusal::NotLeader);
            }
        }
    }

    #[test]
    fn what_may_be_in_the_log_is_not_called_absent() {
        let overlap = Refusal::Overlap { first: 1, last: 2 };
        for refusal in [Refusal::UnknownProducer, Refusal::PerhapsForgotten, overlap, Refusal::SteppedDown] {
            assert_eq!(refused(&refusal, &ReplicaView::default()).outcome(), Outcome::Unknown, "{refusal}");
        }
        assert_eq!(refused(&Refusal::Duplicate(3), &ReplicaView::default()).outcome(), Outcome::Unspecified);
    }
}
