//! The memory that a message will take, counted while its bytes come and before any of it is decoded: an empty record is two bytes on
//! the wire and a hundred in memory. Knows no limits; keeps nothing of the message.

use crate::convert::Malformed;

/// A part of a message that there may be many of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// A record of an append.
    Record,
    /// A header of a record.
    Header,
    /// Any other part.
    Part,
}

/// A field of a message that is counted, and what is counted within.
#[derive(Debug)]
pub struct Field {
    number: u64,
    counted: Counted,
    within: Fields,
}

/// The fields of a message that are counted.
#[derive(Debug)]
pub enum Fields {
    /// Each of them, whatever it is; and what is within these.
    All(&'static [Field]),
    /// These, and not the others.
    These(&'static [Field]),
}

const fn part(number: u64, within: Fields) -> Field {
    Field { number, counted: Counted::Part, within }
}

const NOTHING: Fields = Fields::These(&[]);

/// Of an `AppendRequest`: its records, and their headers.
const APPEND: Fields = Fields::These(&[Field {
    number: 4,
    counted: Counted::Record,
    within: Fields::These(&[Field { number: 3, counted: Counted::Header, within: NOTHING }]),
}]);

/// Of an `EpochStart`: its voters, new and old.
const EPOCH_START: Fields = Fields::These(&[part(4, NOTHING), part(6, NOTHING)]);

/// Of a `Standby`: its members.
const STANDBY: Fields = Fields::These(&[part(5, NOTHING)]);

/// Of a `LeaderMessage`: all that repeats in a `Start`, in `Runs` or in a `Standby`.
const LEADER: Fields = Fields::These(&[
    part(
        1,
        Fields::These(&[
            part(6, EPOCH_START),
            part(9, NOTHING),
            part(11, Fields::These(&[part(2, EPOCH_START)])),
            part(12, NOTHING),
        ]),
    ),
    part(4, Fields::All(&[])),
    part(5, STANDBY),
]);

/// Of a `LearnersRequest`: its fields, and the members of its `Standby`.
const LEARNERS: Fields = Fields::All(&[part(7, STANDBY)]);

/// Of any other message: its fields.
const OTHER: Fields = Fields::All(&[]);

/// The fields that are counted in the messages that come in of a call.
pub fn of(path: &str) -> &'static Fields {
    match path {
        "/zue.v1.Log/Append" | "/zue.v1.Log/AppendStream" => &APPEND,
        "/zue.v1.Replication/Follow" => &LEADER,
        "/zue.v1.Control/Learners" => &LEARNERS,
        _ => &OTHER,
    }
}

/// The counted number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Records of an append.
    pub records: u64,
    /// Headers of all of them.
    pub headers: u64,
    /// The most headers that one of them has.
    pub record_headers: u64,
    /// Anything else.
    pub parts: u64,
}

/// A message, or one within it, that has begun.
#[derive(Debug)]
struct Open {
    left: u64,
    fields: &'static Fields,
    headers: u64,
}

/// The place of the next byte in a message.
#[derive(Debug)]
enum Step {
    Tag(Varint),
    Number,
    Length(Varint, Option<&'static Field>),
    Skip(u64),
}

/// A number of up to ten bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// The number, once this byte is its last.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, Malformed> {
        if self.shift > 63 {
            return Err(Malformed::Wire("a number has more than ten bytes"));
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

/// Counts along one message.
#[derive(Debug)]
pub struct Counter {
    open: Vec<Open>,
    step: Step,
    tally: Tally,
}

impl Counter {
    /// For a message of that length.
    pub fn new(bytes: u64, fields: &'static Fields) -> Self {
        let open = vec![Open { left: bytes, fields, headers: 0 }];
        Self { open, step: Step::Tag(Varint::default()), tally: Tally::default() }
    }

    /// The counts so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes the next bytes of the message.
    ///
    /// # Errors
    /// When they are not those of a message.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((byte, rest)) = bytes.split_first() {
            if let Step::Skip(left) = &mut self.step {
                let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= u64::try_from(skipped).unwrap_or(u64::MAX);
                bytes = bytes.get(skipped..).unwrap_or_default();
                if *left == 0 {
                    self.next_field();
                }
            } else {
                bytes = rest;
                self.take(1)?;
                self.byte(*byte)?;
            }
        }
        Ok(())
    }

    /// Of the message that is open, so many bytes go.
    fn take(&mut self, bytes: u64) -> Result<(), Malformed> {
        let beyond = Malformed::Wire("a part goes beyond the whole");
        let open = self.open.last_mut().ok_or_else(|| beyond.clone())?;
        open.left = open.left.checked_sub(bytes).ok_or(beyond)?;
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), Malformed> {
        match &mut self.step {
            Step::Tag(varint) => {
                if let Some(tag) = varint.push(byte)? {
                    self.tag(tag)?;
                }
            }
            Step::Number => {
                if byte & 0x80 == 0 {
                    self.next_field();
                }
            }
            Step::Length(varint, field) => {
                let field = *field;
                if let Some(length) = varint.push(byte)? {
                    self.take(length)?;
                    match field {
                        Some(field) if length > 0 && !matches!(field.within, Fields::These([])) => {
                            self.open.push(Open { left: length, fields: &field.within, headers: 0 });
                            self.step = Step::Tag(Varint::default());
                        }
                        _ => self.skip(length),
                    }
                }
            }
            Step::Skip(_) => {}
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) {
        self.step = Step::Skip(bytes);
        if bytes == 0 {
            self.next_field();
        }
    }

    fn tag(&mut self, tag: u64) -> Result<(), Malformed> {
        let found = self.open.last().map_or(&NOTHING, |open| open.fields);
        let (Fields::All(fields) | Fields::These(fields)) = found;
        let field = fields.iter().find(|field| field.number == tag >> 3);
        let is_any_counted = matches!(found, Fields::All(_));
        if is_any_counted {
            self.tally.parts += 1;
        }
        match tag & 7 {
            0 => self.step = Step::Number,
            2 => {
                if let Some(field) = field.filter(|_| !is_any_counted) {
                    self.count(field.counted);
                }
                self.step = Step::Length(Varint::default(), field);
            }
            fixed @ (1 | 5) => {
                let bytes = if fixed == 1 { 8 } else { 4 };
                self.take(bytes)?;
                self.step = Step::Skip(bytes);
            }
            _ => return Err(Malformed::Wire("a field is of a kind that no message has")),
        }
        Ok(())
    }

    fn count(&mut self, counted: Counted) {
        match counted {
            Counted::Record => self.tally.records += 1,
            Counted::Part => self.tally.parts += 1,
            Counted::Header => {
                self.tally.headers += 1;
                if let Some(open) = self.open.last_mut() {
                    open.headers += 1;
                    self.tally.record_headers = self.tally.record_headers.max(open.headers);
                }
            }
        }
    }

    /// A field ended; perhaps what it is in as well.
    fn next_field(&mut self) {
        self.step = Step::Tag(Varint::default());
        while self.open.len() > 1 && self.open.last().is_some_and(|open| open.left == 0) {
            self.open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use prost_types::field_descriptor_proto::{Label, Type};

    use super::*;
    use crate::v1;

    fn tally(fields: &'static Fields, message: &[u8], pieces: usize) -> Result<Tally, Malformed> {
        let mut counter = Counter::new(u64::try_from(message.len()).unwrap(), fields);
        for piece in message.chunks(pieces) {
            counter.push(piece)?;
        }
        Ok(counter.tally())
    }

    fn record(headers: usize) -> v1::NewRecord {
        let header = v1::Header { name: "n".to_owned(), value: vec![4; 300].into() };
        v1::NewRecord { key: Some(b"key".to_vec().into()), value: vec![34; 200].into(), headers: vec![header; headers] }
    }

    #[test]
    fn what_repeats_is_counted_however_the_message_is_cut() {
        let append = v1::AppendRequest {
            log: "log".to_owned(),
            producer_id: vec![0x22; 16].into(),
            sequence: u64::MAX,
            records: vec![v1::NewRecord::default(), record(3), record(0), record(5), v1::NewRecord::default()],
            within_ms: 0,
        };
        let start = v1::EpochStart { voters: vec![vec![7; 16].into(); 3], ..v1::EpochStart::default() };
        let leader = v1::Start {
            history: vec![start.clone(); 4],
            members: vec![v1::Member::default(); 2],
            origin: Some(v1::Origin { history: vec![start], producers: vec![9; 500].into(), ..Default::default() }),
            runs: vec![v1::Run { nonce: 5, ..v1::Run::default() }; 6],
            ..v1::Start::default()
        };
        let leader = v1::LeaderMessage { message: Some(v1::leader_message::Message::Start(leader)) };
        let (append, leader) = (append.encode_to_vec(), leader.encode_to_vec());
        for pieces in [1, 2, 3, 7, 100, append.len() + leader.len()] {
            let counted = tally(&APPEND, &append, pieces).unwrap();
            assert_eq!(counted, Tally { records: 5, headers: 8, record_headers: 5, parts: 0 });
            // The Start, its history with voters, members, the origin with its history, runs.
            assert_eq!(tally(&LEADER, &leader, pieces).unwrap().parts, 1 + 4 * 4 + 2 + 1 + 4 + 6);
            assert_eq!(tally(&OTHER, &append, pieces).unwrap().parts, 3 + 5);
        }
    }

    #[test]
    fn the_members_that_replicas_stand_by_are_counted_wherever_they_come() {
        let standby = v1::Standby { members: vec![v1::Member::default(); 1000], ..v1::Standby::default() };
        let leader = v1::LeaderMessage { message: Some(v1::leader_message::Message::Standby(standby.clone())) };
        assert_eq!(tally(&LEADER, &leader.encode_to_vec(), 7).unwrap().parts, 1 + 1000);
        let learners = vec![v1::Member::default(); 3];
        let request = v1::LearnersRequest { epoch: 4, learners, standby: Some(standby), ..Default::default() };
        assert_eq!(tally(&LEARNERS, &request.encode_to_vec(), 7).unwrap().parts, 1 + 3 + 1 + 1000);
    }

    /// What repeats in a message, or within it, and is not counted.
    fn uncounted(files: &FileDescriptorSet, (message, path): (&str, &str), fields: &Fields, found: &mut Vec<String>) {
        let all = files.file.iter().flat_map(|file| &file.message_type);
        let descriptor = all.clone().find(|one| format!(".zue.v1.{}", one.name()) == message).expect(message);
        assert!(
            descriptor.nested_type.is_empty(),
            "{path}: a map, or a message within a message: let the walk know it"
        );
        let (Fields::All(counted) | Fields::These(counted)) = fields;
        for field in &descriptor.field {
            let path = format!("{path}.{}", field.name());
            let known = counted.iter().find(|one| i64::try_from(one.number) == Ok(field.number().into()));
            // Numbers that repeat come packed, as one field of many.
            let is_packed = !matches!(field.r#type(), Type::Message | Type::Bytes | Type::String);
            let is_counted = (known.is_some() || matches!(fields, Fields::All(_))) && !is_packed;
            if field.label() == Label::Repeated && !is_counted {
                found.push(path.clone());
            }
            if field.r#type() == Type::Message {
                let within = known.map_or(&NOTHING, |known| &known.within);
                uncounted(files, (field.type_name(), &path), within, found);
            }
        }
    }

    #[test]
    fn all_that_repeats_in_what_a_call_may_send_is_counted() {
        let files = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let (mut found, mut calls) = (Vec::new(), 0);
        for service in files.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/zue.v1.{}/{}", service.name(), method.name());
                uncounted(&files, (method.input_type(), &path), of(&path), &mut found);
                calls += 1;
            }
        }
        assert!(calls > 8, "{calls}");
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn what_is_no_message_is_refused_where_that_shows() {
        for bytes in [&[0x22, 0x05, 0x1a][..], &[0x0b], &[0x22, 0x02, 0x1a, 0x09], &[0xff; 11], &[0x09, 1, 2]] {
            assert!(matches!(tally(&APPEND, bytes, 1), Err(Malformed::Wire(_))), "{bytes:?}");
        }
    }
}
