//! Finding out whether appends are in the log when no server remembers their producer: the log itself tells, since records carry
//! producer and sequence.

use tokio::time::{Instant, timeout};

use crate::client::Failures;
use crate::{AppendId, Appended, Client, ReadOptions};

/// The search: appends of one producer in their order, none before this offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AppendSearch {
    pub(crate) producer: [u8; 16],
    pub(crate) from: u64,
    /// Of each the first sequence and how many records it has.
    pub(crate) appends: Vec<(u64, u32)>,
    /// Records with keys are compacted away: one that is not found may have been there.
    pub(crate) have_keys: bool,
}

/// Why it is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unfound {
    #[error("the log could not be read to find out: {0}")]
    Unread(String),
    #[error("the log was not read to its end before the deadline to find out")]
    Late,
    #[error("records were compacted away since, and these may have been among them")]
    Compacted,
    #[error("the log has them in another order than they were sent in")]
    Disordered,
}

/// The place of an append, as far as the log was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct AppendPosition {
    base_offset: u64,
    epoch: u64,
}

impl AppendSearch {
    /// The records that a producer may have appended of which nothing else is known. None of it lies before the end of the log that the
    /// producer was opened at, which its first 8 bytes tell.
    pub(crate) fn since_opened(producer: [u8; 16], appends: Vec<(u64, u32)>, have_keys: bool) -> Self {
        let from = u64::from_be_bytes(producer.first_chunk().copied().unwrap_or_default());
        Self { producer, from, appends, have_keys }
    }

    /// None of it lies before that offset either.
    pub(crate) fn not_before(self, offset: u64) -> Self {
        Self { from: self.from.max(offset), ..self }
    }

    fn answer(&self, places: &[Option<AppendPosition>], whole: bool) -> Result<Vec<Appended>, Unfound> {
        let found: Vec<AppendPosition> = places.iter().copied().map_while(|place| place).collect();
        let rest = places.get(found.len()..).unwrap_or_default();
        if rest.iter().any(Option::is_some) {
            return Err(Unfound::Disordered);
        }
        if !rest.is_empty() && self.have_keys && !whole {
            return Err(Unfound::Compacted);
        }
        let appended =
            |((sequence, count), AppendPosition { base_offset, epoch }): (&(u64, u32), AppendPosition)| Appended {
                base_offset,
                count: *count,
                epoch,
                duplicate: true,
                id: AppendId { producer: self.producer, sequence: *sequence },
            };
        Ok(self.appends.iter().zip(found).map(appended).collect())
    }
}

impl Client {
    /// Finds which of the appends are in the log: the first of them, as producers leave no gaps. All is read that was committed anywhere
    /// when this was called, within the deadline of what was begun then.
    pub(crate) async fn find(&self, wanted: &AppendSearch, begun: Instant) -> Result<Vec<Appended>, Unfound> {
        let left = self.config().deadline.saturating_sub(begun.elapsed()).max(self.time_left(begun));
        timeout(left, self.search(wanted, begun)).await.unwrap_or(Err(Unfound::Late))
    }

    async fn search(&self, wanted: &AppendSearch, begun: Instant) -> Result<Vec<Appended>, Unfound> {
        let unread = |error: crate::Error| Unfound::Unread(error.to_string());
        let end = self.end_of(begun, &mut Failures::default()).await.map_err(unread)?;
        let mut places = vec![None; wanted.appends.len()];
        let (mut next, mut records) = (wanted.from, 0_u64);
        // In a log that ends before it, none of this is.
        if next < end {
            let mut reader = self.read(ReadOptions { from: next, linearizable: true, ..ReadOptions::default() });
            while next < end {
                let Some(batch) = reader.next().await.transpose().map_err(unread)? else {
                    // What is left of it is gaps, or it would have gone on.
                    break;
                };
                for record in batch.records.iter().filter(|record| record.offset < end) {
                    records += 1;
                    if *record.producer_id != wanted.producer {
                        continue;
                    }
                    let first = wanted.appends.iter().position(|(sequence, _)| *sequence == record.sequence);
                    if let Some(place) = first.and_then(|at| places.get_mut(at)) {
                        *place = Some(AppendPosition { base_offset: record.offset, epoch: record.epoch });
                    }
                }
                next = batch.next;
            }
        }
        wanted.answer(&places, records >= end.saturating_sub(wanted.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_the_first_of_them_and_what_may_be_compacted_is_not_called_absent() {
        let place = |base_offset| Some(AppendPosition { base_offset, epoch: 3 });
        let wanted =
            |have_keys| AppendSearch { have_keys, ..AppendSearch::since_opened([0; 16], vec![(4, 2), (6, 1)], false) };
        let bases = |appended: Vec<Appended>| appended.iter().map(|one| (one.base_offset, one.count)).collect();
        let answer = |places: [Option<AppendPosition>; 2], have_keys, whole| -> Result<Vec<(u64, u32)>, Unfound> {
            wanted(have_keys).answer(&places, whole).map(bases)
        };
        assert_eq!(answer([place(10), place(13)], true, false), Ok(vec![(10, 2), (13, 1)]));
        assert_eq!(answer([place(10), None], false, false), Ok(vec![(10, 2)]));
        assert_eq!(answer([None, None], true, true), Ok(vec![]));
        assert_eq!(answer([place(10), None], true, false), Err(Unfound::Compacted));
        assert_eq!(answer([None, place(13)], false, true), Err(Unfound::Disordered));
    }

    #[test]
    fn nothing_of_a_producer_lies_before_where_it_was_opened() {
        let mut producer = [7; 16];
        producer[..8].copy_from_slice(&900_u64.to_be_bytes());
        assert_eq!(AppendSearch::since_opened(producer, vec![], false).from, 900);
    }
}
