//! Whether what the meta file says and what the segments hold can be of the same moment. They are not in a directory that was copied
//! while its node ran. Looks at facts only.

use zue_core::{Epoch, EpochStart, Offset, ReplicaId, Tail};

use crate::meta::{Meta, Promise};

/// What the meta file and the segments contradict each other in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Disagreement {
    /// An epoch is accepted after it was promised, never before.
    #[error("its segments are of epoch {found}, and its meta file promises no more than epoch {promised}")]
    AbovePromise {
        /// The greatest epoch of which the segments tell.
        found: Epoch,
        /// The epoch that is promised.
        promised: Epoch,
    },
    /// An epoch has one leader.
    #[error("its segments have epoch {epoch} led by {found}, and its meta file promises it to {promised}")]
    OtherLeader {
        /// The epoch.
        epoch: Epoch,
        /// Its leader by the segments.
        found: ReplicaId,
        /// Its leader by the meta file.
        promised: ReplicaId,
    },
    /// What is trimmed was in the log before.
    #[error("its meta file has the log start at {log_start}, and its segments end at {end}")]
    StartBehindEnd {
        /// The log's start by the meta file.
        log_start: Offset,
        /// The log's end by the segments.
        end: Offset,
    },
}

/// What they contradict each other in, if anything: `last` is the newest epoch start, `reached` the greatest tail of which the segments
/// tell, `end` where the log ends.
pub(crate) fn disagreement(meta: &Meta, last: Option<&EpochStart>, reached: Tail, end: Offset) -> Option<Disagreement> {
    let Promise { epoch: promised, leader } = meta.promise;
    if reached.epoch > promised {
        return Some(Disagreement::AbovePromise { found: reached.epoch, promised });
    }
    if let Some((last, bound)) = last.filter(|last| last.epoch == promised).zip(leader)
        && last.leader != bound
    {
        return Some(Disagreement::OtherLeader { epoch: promised, found: last.leader, promised: bound });
    }
    let log_start = meta.log_start;
    (log_start > end).then_some(Disagreement::StartBehindEnd { log_start, end })
}
