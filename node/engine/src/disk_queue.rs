//! The work of the disk, its order, and what may go ahead of what waits for room.

use std::collections::VecDeque;
use std::collections::vec_deque::IterMut;

use zue_core::{ClusterId, Epoch, Offset, Origin, ReplicaId, Runs, Tail, Ticket};
use zue_log::{Batch, Disk, Log, LogError};

/// A piece of work. `B` is a batch of frames, with whatever goes with it.
#[derive(Clone, Debug)]
pub enum Work<B = Batch> {
    /// Promises to follow no lower epoch.
    Promise {
        /// The epoch.
        epoch: Epoch,
        /// The only leader that it may follow in that epoch; none if it is bound to nobody.
        leader: Option<ReplicaId>,
        /// The cluster that it belongs to from then on.
        cluster: Option<ClusterId>,
    },
    /// Keeps the starts of replicas that are known.
    Runs(Runs),
    /// Keeps that this disk was restored from a copy.
    Restored,
    /// Bounds what may be missing of what was acknowledged.
    Suspect(Tail),
    /// Cuts what lies behind.
    Cut(Tail),
    /// Lets the log begin there.
    Trim(Offset),
    /// Begins anew from an origin.
    Reset(Box<Origin>),
    /// Appends frames.
    Write(B),
    /// Was done ahead of its place.
    Done,
}

impl<B: AsRef<Batch>> Work<B> {
    /// Tells whether it changes which records are the log.
    fn changes_the_log(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Reset(_))
    }

    /// The bytes of frames that it writes.
    pub fn bytes(&self) -> usize {
        if let Self::Write(batch) = self { batch.as_ref().bytes().len() } else { 0 }
    }
}

/// Does the first piece of work on an open log. An append takes the appends behind it along that fit into the same write. Returns how
/// many pieces are done. A cut, a promise or a new beginning is durable then; an append only after a sync.
///
/// # Errors
/// The log's answer to the first. After [`LogError::NoRoom`] nothing has changed.
pub fn apply_first<'a, B: AsRef<Batch> + 'a, D: Disk>(
    works: impl Iterator<Item = &'a Work<B>> + Clone,
    log: &mut Log<D>,
) -> Result<usize, LogError> {
    let Some(first) = works.clone().next() else { return Ok(0) };
    match first {
        Work::Promise { epoch, leader, cluster } => log.set_promise(*epoch, *leader, *cluster)?,
        Work::Runs(runs) => log.set_runs(runs)?,
        Work::Restored => log.set_restored()?,
        Work::Suspect(suspect) => log.bound_suspect(*suspect)?,
        Work::Cut(to) => log.cut(*to)?,
        // The files go some time later, or when their room is needed.
        Work::Trim(before) => {
            log.note_commit(*before);
            log.begin_at(*before).map(drop)?;
        }
        Work::Reset(origin) => log.reset(origin)?,
        Work::Write(_) => {
            let appends =
                works.map_while(|work| if let Work::Write(batch) = work { Some(batch.as_ref()) } else { None });
            return log.append_first(appends);
        }
        Work::Done => {}
    }
    Ok(1)
}

/// The most bytes that are written without a hand-over to the disk's thread.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Returns whether all of the works are records that an open log takes by a short copy into memory: a hand-over to another thread takes
/// longer than that.
pub fn is_short_copy<'a, B: AsRef<Batch> + 'a, D: Disk>(
    works: impl Iterator<Item = &'a Work<B>>,
    log: &Log<D>,
) -> bool {
    let records = |work: &Work<B>| match work {
        Work::Write(batch) if batch.as_ref().epoch_starts().is_empty() => Some(work.bytes()),
        _ => None,
    };
    let bytes = works.map(records).try_fold(0_usize, |sum, bytes| Some(sum.saturating_add(bytes?)));
    bytes.is_some_and(|bytes| bytes <= COPIED_BYTES_MAX && log.only_copies(bytes))
}

/// Work and its place in the order. `S` is a share of what is bounded, given back with it.
#[derive(Debug)]
pub struct Task<B = Batch, S = ()> {
    /// Its place.
    pub ticket: Ticket,
    /// The work.
    pub work: Work<B>,
    /// A share that it holds until it is durable.
    pub share: S,
}

/// The chance that a piece of work could be done ahead of its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    /// It is done.
    Done,
    /// Not now: there is no room for it either, or it is too early.
    NotNow,
}

/// The work that waits, in its order.
#[derive(Debug)]
pub struct Queue<B = Batch, S = ()> {
    tasks: VecDeque<Task<B, S>>,
}

impl<B, S> Default for Queue<B, S> {
    fn default() -> Self {
        Self { tasks: VecDeque::new() }
    }
}

impl<B, S> Extend<Task<B, S>> for Queue<B, S> {
    fn extend<T: IntoIterator<Item = Task<B, S>>>(&mut self, tasks: T) {
        self.tasks.extend(tasks);
    }
}

impl<B: AsRef<Batch>, S> Queue<B, S> {
    /// All work that waits, the next first.
    pub fn works(&self) -> impl Iterator<Item = &Work<B>> + Clone {
        self.tasks.iter().map(|task| &task.work)
    }

    /// Takes what is to be done next, once it is done.
    pub fn pop(&mut self) -> Option<Task<B, S>> {
        self.tasks.pop_front()
    }

    /// Puts what waits elsewhere behind.
    pub fn append(&mut self, mut behind: Self) {
        self.tasks.append(&mut behind.tasks);
    }

    /// Drops all of it.
    pub fn clear(&mut self) {
        self.tasks.clear();
    }

    /// The number of pieces that wait.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Tells whether none waits.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// While there is no room for what comes first: does what may go ahead of it, and gives the tickets of promises that are durable by
    /// that. A promise needs no room in the log and waits for nobody, so that a full replica can vote; a trim makes room, and goes ahead
    /// of appends, but not of what changes which records are the log. Promises keep their order.
    ///
    /// # Errors
    /// The error of `write`.
    pub fn go_ahead<E>(&mut self, mut write: impl FnMut(&Work<B>) -> Result<Ahead, E>) -> Result<Vec<Ticket>, E> {
        let mut promised = Vec::new();
        let mut ahead =
            |tasks: IterMut<'_, Task<B, S>>, is_wanted: fn(&Work<B>) -> bool, stops: fn(&Work<B>) -> bool| {
                for task in tasks.take_while(|task| !stops(&task.work)).filter(|task| is_wanted(&task.work)) {
                    match write(&task.work)? {
                        Ahead::NotNow => break,
                        Ahead::Done => {
                            if let Work::Promise { .. } = std::mem::replace(&mut task.work, Work::Done) {
                                promised.push(task.ticket);
                            }
                        }
                    }
                }
                Ok(())
            };
        ahead(self.tasks.iter_mut(), |work| matches!(work, Work::Promise { .. }), |_| false)?;
        ahead(self.tasks.iter_mut(), |work| matches!(work, Work::Trim(_)), Work::changes_the_log)?;
        Ok(promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(ticket: u64, work: Work) -> Task {
        Task { ticket: Ticket(ticket), work, share: () }
    }

    fn promise(epoch: u64) -> Work {
        Work::Promise { epoch: Epoch(epoch), leader: None, cluster: None }
    }

    fn write() -> Work {
        let (leader, voters) = (ReplicaId(1), vec![ReplicaId(1)]);
        let (epoch, start) = (Epoch(1), Offset(0));
        let start = zue_core::EpochStart { epoch, start, leader, voters, quorum: 1, old_voters: None };
        Work::Write(Batch::epoch_start(Epoch(0), start).unwrap())
    }

    /// The work that goes ahead, by ticket, if all of it can be done but what is named.
    fn goes_ahead(works: impl IntoIterator<Item = Work>, refused: fn(&Work) -> bool) -> (Vec<u64>, Vec<u64>) {
        let mut queue = Queue::default();
        queue.extend((1..).zip(works).map(|(ticket, work)| task(ticket, work)));
        let write = |work: &Work| Ok::<_, ()>(if refused(work) { Ahead::NotNow } else { Ahead::Done });
        let promised = queue.go_ahead(write).unwrap().into_iter().map(|ticket| ticket.0).collect();
        let mut done = Vec::new();
        while let Some(task) = queue.pop() {
            done.extend(matches!(task.work, Work::Done).then_some(task.ticket.0));
        }
        (promised, done)
    }

    #[test]
    fn promises_and_trims_go_ahead_of_appends_and_a_trim_not_of_what_changes_the_log() {
        let works = [write(), promise(1), Work::Trim(Offset(1)), Work::Runs(Runs::default()), promise(2)];
        assert_eq!(goes_ahead(works, |_| false), (vec![2, 5], vec![2, 3, 5]));
        let works = [write(), Work::Trim(Offset(1)), Work::Cut(Tail::default()), Work::Trim(Offset(2)), promise(1)];
        assert_eq!(goes_ahead(works, |_| false), (vec![5], vec![2, 5]));
        let works = [Work::Cut(Tail::default()), Work::Trim(Offset(1))];
        assert_eq!(goes_ahead(works, |_| false), (vec![], vec![]));
    }

    #[test]
    fn what_cannot_go_ahead_holds_back_those_of_its_kind_behind_it() {
        let works = [write(), promise(1), promise(2), Work::Trim(Offset(1))];
        let refused = |work: &Work| matches!(work, Work::Promise { epoch: Epoch(1), .. });
        assert_eq!(goes_ahead(works, refused), (vec![], vec![4]));
    }
}
