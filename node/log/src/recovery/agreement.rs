//! True if what the meta file says and what the segments hold can be of the same moment. They are not in a directory that was copied
//! while its node ran. Looks at facts only.

use zue_core::{EpochStart, Offset, Promise, Tail};

use crate::error::open::Disagreement;
use crate::meta::Meta;

/// Their contradiction, if there is any: `last` is the newest epoch start, `reached` the greatest tail of which the segments
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
