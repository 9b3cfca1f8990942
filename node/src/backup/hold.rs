//! The part of the log that is in no backup yet, where retention and trims are to leave it. A full disk goes before backups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use zue_core::Offset;
use zue_proto::v1::Reason;

use super::requests::BackupRequests;
use crate::driver::state::ReplicaView;

/// Knows up to where the log may be let go.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    requests: BackupRequests,
    view: watch::Receiver<ReplicaView>,
    /// True if it was told that the disk is full.
    told: Arc<AtomicBool>,
}

impl Hold {
    pub(super) fn new(requests: BackupRequests, view: watch::Receiver<ReplicaView>) -> Self {
        Self { requests, view, told: Arc::default() }
    }

    /// The end of what may go for backups; none where all may, for a full disk.
    pub(crate) fn upto(&self) -> Option<Offset> {
        let is_full = self.view.borrow().full.as_ref().is_some_and(|full| full.reason() == Reason::DiskFull);
        let was_told = self.told.swap(is_full, Ordering::Relaxed);
        let end = self.requests.end();
        if is_full && !was_told {
            tracing::warn!(backed_up = %end, "the disk is full: retention does not wait for backups");
        }
        (!is_full).then_some(end)
    }

    /// Refuses to let what lies before an offset go while it is in no backup.
    pub(crate) fn check(&self, before: Offset) -> Result<(), String> {
        let end = self.upto().filter(|end| *end < before);
        end.map_or(Ok(()), |end| {
            let known = if end == Offset(0) { "no backup is known".to_owned() } else { format!("the newest backup ends at {end}") };
            Err(format!(
                "what lies before {before} is not all in a backup, and backup.holdTrim keeps it until it is: {known}; `zue backup create` \
                 makes one at once"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zue_proto::v1::BackupMade;

    use super::*;
    use crate::storage::Stalled;

    #[test]
    fn what_is_in_a_backup_may_go_and_the_rest_only_for_a_full_disk() {
        let (view, seen) = watch::channel(ReplicaView::default());
        let requests = BackupRequests::new(Duration::from_mins(1));
        let hold = Hold::new(requests.clone(), seen);
        assert_eq!(hold.upto(), Some(Offset(0)));
        assert!(hold.check(Offset(1)).unwrap_err().contains("no backup is known"));
        requests.newest(Some(BackupMade { id: "b".to_owned(), end: 7, made_ms: 1 }));
        assert_eq!((hold.upto(), hold.check(Offset(7))), (Some(Offset(7)), Ok(())));
        assert!(hold.check(Offset(8)).unwrap_err().contains("the newest backup ends at 7"));
        view.send_modify(|view| view.full = Some(Stalled::full_disk()));
        assert_eq!((hold.upto(), hold.check(Offset(8))), (None, Ok(())));
        view.send_modify(|view| view.full = None);
        assert_eq!(hold.upto(), Some(Offset(7)));
    }
}
