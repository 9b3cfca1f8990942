//! The table of producers as bytes, as segments carry it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Producer, ProducerId, ProducerLimits, Producers};
use crate::types::Offset;

/// Bytes that are no table of producers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the producers' table is malformed at byte {0}")]
pub struct BadTable(pub usize);

/// The form of a table in bytes; what another program writes is not read.
const VERSION: u32 = 1;

impl Producers {
    /// The table as bytes, all little-endian: `u32` version, `u32` producers, `u64` horizon; then for each producer, in the order
    /// of ids, `u128` id, `u64` next sequence, `u64` offset of its last record, `u32` appends, and each append as `u64` sequence,
    /// `u32` count, `u64` base. Equal tables give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        out.extend(VERSION.to_le_bytes());
        out.extend(count(self.known.len()));
        out.extend(self.horizon.0.to_le_bytes());
        for (id, producer) in &self.known {
            out.extend(id.to_u128().to_le_bytes());
            out.extend(producer.next_sequence.to_le_bytes());
            out.extend(producer.last.0.to_le_bytes());
            out.extend(count(producer.appends.len()));
            for (sequence, count, base) in &producer.appends {
                out.extend(sequence.to_le_bytes());
                out.extend(count.to_le_bytes());
                out.extend(base.0.to_le_bytes());
            }
        }
        let length = HEADER_BYTES + self.known.len() * PRODUCER_BYTES + self.appends * APPEND_BYTES;
        debug_assert_eq!(out.len(), length, "the remembered appends are counted wrongly");
        out
    }

    /// The table from its bytes, made to fit the limits: what is too much is forgotten, oldest first.
    ///
    /// # Errors
    /// When the bytes are not a table.
    pub fn decode(bytes: &[u8], limits: ProducerLimits) -> Result<Self, BadTable> {
        let mut rest = bytes;
        let table = Self::parse(&mut rest, limits).filter(|_| rest.is_empty());
        table.ok_or(BadTable(bytes.len() - rest.len()))
    }

    fn parse(rest: &mut &[u8], limits: ProducerLimits) -> Option<Self> {
        if u32::from_le_bytes(array(rest)?) != VERSION {
            return None;
        }
        let count = u32::from_le_bytes(array(rest)?);
        let horizon = Offset(u64::from_le_bytes(array(rest)?));
        let entries = *rest;
        let kept = TablePart::of(rest, count, horizon, limits)?;
        let mut table = Self { horizon: kept.horizon, ..Self::new(limits) };
        let mut rest = entries;
        for _ in 0..count {
            let Entry { id, next_sequence, last, appends } = Entry::next(&mut rest)?;
            let Some(appends_max) = kept.appends.get(&last) else { continue };
            let surplus = appends.len().saturating_sub(*appends_max);
            let appends = appends.iter().skip(surplus).map(append).collect();
            table.put(id, Producer { next_sequence, last, appends });
        }
        Some(table)
    }
}

/// The number of bytes in front of the producers.
const HEADER_BYTES: usize = 4 + 4 + 8;
/// The number of bytes of a producer, without its appends.
const PRODUCER_BYTES: usize = 16 + 8 + 8 + 4;
/// The number of bytes of an append.
const APPEND_BYTES: usize = 8 + 4 + 8;

/// A producer as it stands in the bytes; nothing is copied.
struct Entry<'a> {
    id: ProducerId,
    next_sequence: u64,
    last: Offset,
    appends: &'a [[u8; APPEND_BYTES]],
}

impl<'a> Entry<'a> {
    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let id = ProducerId::from_u128(u128::from_le_bytes(array(rest)?));
        let (next_sequence, last) = (u64::from_le_bytes(array(rest)?), Offset(u64::from_le_bytes(array(rest)?)));
        let count = usize::try_from(u32::from_le_bytes(array(rest)?)).ok()?;
        let (appends, left) = rest.split_at_checked(count.checked_mul(APPEND_BYTES)?)?;
        *rest = left;
        let (appends, _) = appends.as_chunks();
        Some(Self { id, next_sequence, last, appends })
    }
}

fn append(bytes: &[u8; APPEND_BYTES]) -> (u64, u32, Offset) {
    let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, base @ ..] = *bytes;
    let sequence = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    (sequence, u32::from_le_bytes([c0, c1, c2, c3]), Offset(u64::from_le_bytes(base)))
}

/// The part of a table that the limits leave, found out before any of it is made: a table of other limits may be far larger than one may be
/// here.
struct TablePart {
    /// The number of its last appends that each producer keeps, by the offset of its last record.
    appends: BTreeMap<Offset, usize>,
    horizon: Offset,
}

impl TablePart {
    /// Never has more than one producer too many.
    fn of(rest: &mut &[u8], count: u32, mut horizon: Offset, limits: ProducerLimits) -> Option<Self> {
        let mut kept = BTreeMap::new();
        let mut previous = None;
        for _ in 0..count {
            let Entry { id, last, appends, .. } = Entry::next(rest)?;
            let in_order = previous.replace(id).is_none_or(|previous| previous < id);
            let is_new = kept.insert(last, appends.len().min(limits.appends_max)).is_none();
            if !in_order || appends.is_empty() || !is_new {
                return None;
            }
            if kept.len() > limits.producers_max
                && let Some((last, _)) = kept.pop_first()
            {
                horizon = horizon.max(last.plus(1));
            }
            debug_assert!(kept.len() <= limits.producers_max);
        }
        // Then those that appended longest ago keep no more than their share.
        let mut total: usize = kept.values().sum();
        for appends in kept.values_mut() {
            if total <= limits.all_appends_max {
                break;
            }
            let share = limits.share().min(*appends);
            total -= *appends - share;
            *appends = share;
        }
        debug_assert_eq!(kept.values().sum::<usize>(), total, "appends are taken off that are kept");
        debug_assert!(total <= limits.all_appends_max || kept.values().all(|appends| *appends <= limits.share()));
        Some(Self { appends: kept, horizon })
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producers::{Appended, Verdict};
    use crate::types::refusal::Refusal;

    const LIMITS: ProducerLimits = ProducerLimits { producers_max: 2, appends_max: 3, all_appends_max: 6 };

    fn id(born: u64, nonce: u64) -> ProducerId {
        ProducerId { born: Offset(born), nonce }
    }

    fn table(appends: &[(ProducerId, u64, u32, u64)]) -> Producers {
        let mut producers = Producers::new(LIMITS);
        for (producer, sequence, count, base) in appends {
            producers.record(Appended { producer: *producer, sequence: *sequence, count: *count, base: Offset(*base) });
        }
        producers
    }

    #[test]
    fn a_table_survives_its_form_in_bytes_and_nothing_else_passes_for_one() {
        let producers = table(&[(id(0, 1), 0, 1, 0), (id(0, 2), 0, 2, 1), (id(0, 3), 0, 1, 3), (id(0, 3), 1, 1, 4)]);
        let bytes = producers.encode();
        assert_eq!(Producers::decode(&bytes, LIMITS), Ok(producers));
        for end in 0..bytes.len() {
            assert!(Producers::decode(&bytes[..end], LIMITS).is_err(), "{end} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Producers::decode(&longer, LIMITS), Err(BadTable(bytes.len())));
    }

    #[test]
    fn a_table_made_under_greater_limits_is_cut_down_to_what_may_be_remembered() {
        let bytes = table(&[(id(0, 1), 0, 1, 0), (id(0, 2), 0, 2, 1), (id(0, 2), 2, 1, 3)]).encode();
        let limits = ProducerLimits { producers_max: 1, appends_max: 1, all_appends_max: 1 };
        let producers = Producers::decode(&bytes, limits).unwrap();
        assert_eq!(producers.check(id(0, 1), 0, 1), Verdict::Refuse(Refusal::UnknownProducer));
        assert_eq!(producers.check(id(0, 2), 0, 2), Verdict::Before(Offset(3)));
        assert_eq!(producers.check(id(0, 2), 2, 1), Verdict::Duplicate(Offset(3)));
        assert_eq!(producers.encode(), Producers::decode(&producers.encode(), limits).unwrap().encode());
    }

    /// What a table is cut down to when all of it is there first.
    fn cut_down(bytes: &[u8], limits: ProducerLimits) -> Producers {
        let all = ProducerLimits { producers_max: 1000, appends_max: 1000, all_appends_max: 1_000_000 };
        let mut table = Producers::decode(bytes, all).unwrap();
        table.limits = limits;
        for id in table.known.keys().copied().collect::<Vec<_>>() {
            let mut producer = table.take(id).unwrap();
            let surplus = producer.appends.len().saturating_sub(limits.appends_max);
            producer.appends.drain(..surplus);
            table.put(id, producer);
        }
        table.forget_surplus();
        table
    }

    #[test]
    fn a_large_table_is_cut_down_before_it_is_made_and_to_the_same() {
        let made_with = ProducerLimits { producers_max: 100, appends_max: 20, all_appends_max: 2000 };
        let (mut large, mut seed, mut next) = (Producers::new(made_with), 1_u64, [0_u64; 60]);
        for base in 0..1000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let nonce = (seed >> 33) % 60 * ((seed >> 50) % 2);
            let sequence = &mut next[usize::try_from(nonce).unwrap()];
            large.record(Appended { producer: id(0, nonce), sequence: *sequence, count: 1, base: Offset(base) });
            *sequence += 1;
        }
        let bytes = large.encode();
        for producers_max in [0, 1, 7, 30, 59, 100] {
            for (appends_max, all_appends_max) in [(20, 2000), (20, 100), (20, 31), (3, 2000), (3, 50), (1, 1), (20, 0)]
            {
                let limits = ProducerLimits { producers_max, appends_max, all_appends_max };
                assert_eq!(Producers::decode(&bytes, limits), Ok(cut_down(&bytes, limits)), "{limits:?}");
                let mut entries = &bytes[16..];
                let kept =
                    TablePart::of(&mut entries, u32::from_le_bytes(bytes[4..8].try_into().unwrap()), Offset(0), limits);
                assert!(entries.is_empty() && kept.unwrap().appends.len() <= producers_max);
            }
        }
    }
}
