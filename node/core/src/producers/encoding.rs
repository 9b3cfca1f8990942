//! The table of producers as bytes, as segments carry it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Producer, ProducerId, ProducerLimits, Producers};
use crate::types::Offset;

/// Bytes that are no table of producers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("byte {0} of the producers' table is not as it is written")]
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
        let producers = u32::from_le_bytes(array(rest)?);
        let mut table = Self { horizon: Offset(u64::from_le_bytes(array(rest)?)), ..Self::new(limits) };
        let mut previous = None;
        for _ in 0..producers {
            let id = ProducerId::from_u128(u128::from_le_bytes(array(rest)?));
            let (next_sequence, last) = (u64::from_le_bytes(array(rest)?), Offset(u64::from_le_bytes(array(rest)?)));
            let mut appends = VecDeque::new();
            for _ in 0..u32::from_le_bytes(array(rest)?) {
                let sequence = u64::from_le_bytes(array(rest)?);
                appends.push_back((
                    sequence,
                    u32::from_le_bytes(array(rest)?),
                    Offset(u64::from_le_bytes(array(rest)?)),
                ));
            }
            let surplus = appends.len().saturating_sub(limits.appends_max);
            appends.drain(..surplus);
            let in_order = previous.replace(id).is_none_or(|previous| previous < id);
            if !in_order || appends.is_empty() || table.by_age.contains_key(&last) {
                return None;
            }
            table.put(id, Producer { next_sequence, last, appends });
        }
        table.forget_surplus();
        Some(table)
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
    use crate::refusal::Refusal;

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
}
