//! Reading in order, from whichever replica can: never backwards, never past what has not come, on from the last offset when a
//! replica dies.

use std::collections::VecDeque;
use std::future::pending;
use std::ops::Range;
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use zue_proto::v1::{self, Consistency, Reason, Record};

use crate::Client;
use crate::client::Failures;
use crate::config::ReadOptions;
use crate::error::{Error, Refused};
use crate::servers::{Described, LEADER_SILENCE, Server, leads};

/// A reading that follows and hears nothing for so long asks whether another replica leads and has more.
const FOLLOW_IDLE: Duration = Duration::from_secs(3);

/// Records in the order of their offsets, as a replica sent them. Offsets are missing where records were compacted away.
#[derive(Clone, PartialEq, Debug)]
pub struct ReadBatch {
    /// At least one.
    pub records: Vec<Record>,
    /// The offset to go on from.
    pub next: u64,
    /// The end of what is committed, as the replica knew it.
    pub commit_end: u64,
}

/// A reading under way.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    options: ReadOptions,
    position: Position,
    /// Whom is read, what it sends, and since when it has sent something.
    line: Option<(Server, Streaming<v1::ReadResponse>, Option<Instant>)>,
    /// In a row, and since when.
    failures: Failures,
    failing_since: Option<Instant>,
    /// The server that failed last.
    avoid: Option<String>,
    is_done: bool,
}

/// The progress of a reading.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Position {
    next: u64,
    /// Until a record has come: how old the first one may be, wherever it is.
    not_before_ms: Option<u64>,
    left: Option<u64>,
    /// The greatest end of the committed records that any replica has told.
    known_end: u64,
    /// The greatest that one has told when it was asked to read: where a reading ends that does not follow.
    target: u64,
}

impl Position {
    /// Moves on over what a replica sent, or says what does not follow: `(expected, found)`.
    fn pass(&mut self, sent: &v1::ReadResponse) -> Result<(), (u64, u64)> {
        let v1::ReadResponse { records, first, next, .. } = sent;
        if self.not_before_ms.is_some() {
            self.next = self.next.max(*first);
        }
        if *first != self.next {
            return Err((self.next, *first));
        }
        for record in records {
            if record.offset < self.next || record.offset >= *next || self.left == Some(0) {
                return Err((self.next, record.offset));
            }
            self.next = record.offset + 1;
            self.left = self.left.map(|left| left - 1);
            self.not_before_ms = None;
        }
        self.next = self.next.max(*next);
        Ok(())
    }

    fn is_at_end(&self, follow: bool) -> bool {
        self.left == Some(0) || (!follow && (self.next >= self.target || self.not_before_ms.is_some()))
    }

    /// A replica that refuses an offset which another has told to be committed only lags.
    fn is_known(&self, refused: &Refused) -> bool {
        refused.log_start <= self.next && self.next <= self.known_end
    }
}

impl Client {
    /// Reads committed records in order.
    pub fn read(&self, options: ReadOptions) -> Reader {
        Reader::new(self.clone(), options)
    }

    /// The offsets that can be read from the replica of this name, or from the one that [`Client::read`] would choose.
    pub async fn range(&self, replica: Option<&str>) -> Result<Range<u64>, Error> {
        let begun = Instant::now();
        let mut failures = Failures::default();
        loop {
            match locate(self, begun, replica, None).await {
                Err(error) => self.again(begun, &mut failures, error).await?,
                Ok((_, answer)) => {
                    self.goes_on();
                    return Ok(answer.log_start..answer.commit_end);
                }
            }
        }
    }
}

impl Reader {
    pub(crate) fn new(client: Client, options: ReadOptions) -> Self {
        let position = Position {
            next: options.from,
            not_before_ms: options.from_timestamp_ms,
            left: options.max,
            known_end: 0,
            target: 0,
        };
        Self {
            client,
            options,
            position,
            line: None,
            failures: Failures::default(),
            failing_since: None,
            avoid: None,
            is_done: false,
        }
    }

    /// The next records; none at the end, or after an error. May be dropped without losing a record.
    pub async fn next(&mut self) -> Option<Result<ReadBatch, Error>> {
        while !self.is_done && self.position.left != Some(0) {
            let error = match self.step().await {
                Ok(Some(batch)) => {
                    (self.failures, self.failing_since, self.avoid) = (Failures::default(), None, None);
                    return Some(Ok(batch));
                }
                Ok(None) => break,
                Err(error) => error,
            };
            if let Some((server, _, since)) = self.line.take() {
                // Waiting for news is no failure.
                if self.options.follow && since.is_some_and(|since| since.elapsed() >= FOLLOW_IDLE) {
                    self.failing_since = None;
                }
                self.client.servers().failed(&server, &error);
                self.avoid = Some(server.name);
            }
            if let Err(error) = self.again(error).await {
                self.is_done = true;
                return Some(Err(error));
            }
        }
        self.is_done = true;
        None
    }

    /// The records one by one.
    pub fn records(self) -> impl Stream<Item = Result<Record, Error>> + Send + Unpin {
        Box::pin(futures::stream::unfold((self, VecDeque::new()), |(mut reader, mut records)| async move {
            if records.is_empty() {
                match reader.next().await? {
                    Ok(batch) => records.extend(batch.records),
                    Err(error) => return Some((Err(error), (reader, records))),
                }
            }
            let record = records.pop_front()?;
            Some((Ok(record), (reader, records)))
        }))
    }

    /// Returns whether another replica may give what this one does not.
    fn is_of_the_replica(&self, error: &Error) -> bool {
        match error {
            Error::Refused(refused) if refused.reason == Reason::OffsetOutOfRange => self.position.is_known(refused),
            Error::Refused(refused) if refused.reason == Reason::Corrupt => self.options.replica.is_none(),
            _ => false,
        }
    }

    /// Makes ready for the next try, or says that there is none.
    async fn again(&mut self, error: Error) -> Result<(), Error> {
        let begun = *self.failing_since.get_or_insert_with(Instant::now);
        if self.is_of_the_replica(&error) {
            return self.client.pause(begun, &mut self.failures, error).await;
        }
        self.client.again(begun, &mut self.failures, error).await
    }

    async fn step(&mut self) -> Result<Option<ReadBatch>, Error> {
        if self.line.is_none() {
            let (server, answers) = self.open().await?;
            self.client.goes_on();
            self.line = Some((server, answers, None));
        }
        let Some((server, answers, since)) = &mut self.line else { unreachable!("it was opened") };
        loop {
            let (idle, within) = if self.options.follow {
                (FOLLOW_IDLE, Duration::MAX)
            } else {
                (LEADER_SILENCE, self.client.config().attempt_timeout)
            };
            let is_overtaken = overtaken(&self.client, &self.options, self.position.next, server, idle);
            let answer = tokio::select! {
                answer = timeout(within, answers.message()) => answer.map_err(|_| Error::no_answer(&server.name, within))?,
                error = is_overtaken => return Err(error),
            };
            let answer = answer.map_err(|status| Error::of_status(&server.name, &status))?;
            let Some(sent) = answer else {
                if self.position.is_at_end(self.options.follow) {
                    return Ok(None);
                }
                return Err(Error::unreachable(&server.name, "it ended the stream before the end"));
            };
            let commit_end = sent.commit_end;
            self.position.known_end = self.position.known_end.max(commit_end);
            if since.is_none() {
                *since = Some(Instant::now());
                self.position.target = self.position.target.max(commit_end);
            }
            self.position.pass(&sent).map_err(|(expected, found)| {
                let server = server.name.clone();
                Error::Gap { server, expected, found }
            })?;
            if !sent.records.is_empty() {
                return Ok(Some(ReadBatch { records: sent.records, next: self.position.next, commit_end }));
            }
        }
    }

    async fn open(&self) -> Result<(Server, Streaming<v1::ReadResponse>), Error> {
        let begun = self.failing_since.unwrap_or_else(Instant::now);
        let server = match (self.options.replica.as_deref(), self.avoid.as_deref()) {
            (None, _) if self.options.linearizable => self.client.leader(begun).await?,
            (name, avoid) => locate(&self.client, begun, name, avoid).await?.0,
        };
        let consistency = if self.options.linearizable { Consistency::Linearizable } else { Consistency::Committed };
        let request = v1::ReadRequest {
            log: String::new(),
            from: self.position.next,
            max_records: self.position.left.unwrap_or(0),
            follow: self.options.follow,
            consistency: consistency.into(),
            from_timestamp_ms: self.position.not_before_ms,
        };
        let mut client = self.client.servers().client(&server.address)?;
        let answers = self.client.call(&server, self.client.time_left(begun), client.read(request)).await?;
        Ok((server, answers))
    }
}

/// Ends when another replica leads and has more, while nothing comes from this one: it may be cut off, or hang. Looks whenever nothing
/// has come for so long. Never where one was asked for by name.
async fn overtaken(client: &Client, options: &ReadOptions, next: u64, server: &Server, idle: Duration) -> Error {
    if options.replica.is_some() {
        return pending().await;
    }
    let avoid = Some(server.name.as_str());
    loop {
        sleep(idle).await;
        let described = client.servers().describe(idle, |described| best(described, avoid, true).is_some()).await;
        let Some((other, described)) = best(&described, avoid, false) else { continue };
        if other != *server && leads(&described) && described.commit_end > next {
            return Error::unreachable(&server.name, &format!("it sends nothing, and {} has more", other.name));
        }
    }
}

/// The replica to read: the one of this name, or the leader, or whoever has most while nobody leads.
pub(crate) async fn locate(
    client: &Client,
    begun: Instant,
    name: Option<&str>,
    avoid: Option<&str>,
) -> Result<(Server, v1::DescribeResponse), Error> {
    let (servers, within) = (client.servers(), client.time_left(begun));
    let Some(name) = name else {
        let described = servers.describe(within, |described| best(described, avoid, true).is_some()).await;
        return best(&described, avoid, false).ok_or_else(|| Error::no_leader(&described));
    };
    let described = servers.describe(within, |described| find(described, name).is_some()).await;
    find(&described, name).ok_or_else(|| not_found(&described, name))
}

fn answers(described: &[Described]) -> impl Iterator<Item = (&v1::DescribeResponse, Server)> {
    described.iter().filter_map(|one| {
        let answer = one.answer.as_ref().ok()?;
        Some((answer, Server { name: answer.name.clone(), address: one.address.clone() }))
    })
}

fn find(described: &[Described], name: &str) -> Option<(Server, v1::DescribeResponse)> {
    answers(described).find(|(answer, _)| answer.name == name).map(|(answer, server)| (server, answer.clone()))
}

/// Whoever leads, else whoever has most; who failed last only when there is no other.
fn best(described: &[Described], avoid: Option<&str>, only_leader: bool) -> Option<(Server, v1::DescribeResponse)> {
    let wanted = |answer: &v1::DescribeResponse| !only_leader || (leads(answer) && Some(answer.name.as_str()) != avoid);
    let rank = |answer: &v1::DescribeResponse| {
        (Some(answer.name.as_str()) != avoid, leads(answer), answer.epoch, answer.commit_end)
    };
    let wanted = answers(described).filter(|(answer, _)| wanted(answer));
    wanted.max_by_key(|(answer, _)| rank(answer)).map(|(answer, server)| (server, answer.clone()))
}

/// The named one is down, or there is none of that name.
fn not_found(described: &[Described], name: &str) -> Error {
    let members = || answers(described).flat_map(|(answer, _)| &answer.members);
    let mut known: Vec<String> = members().map(|member| member.name.clone()).collect();
    known.extend(answers(described).map(|(answer, _)| answer.name.clone()));
    known.sort_unstable();
    known.dedup();
    if let Some(member) = members().find(|member| member.name == name) {
        let address = &member.address;
        let at = described.iter().find(|one| one.address == *address).and_then(|one| one.answer.as_ref().err());
        let why = at.map_or_else(|| format!("another answers at {address}"), |why| format!("{address}: {why}"));
        return Error::unreachable(name, &why);
    }
    if known.is_empty() || described.iter().any(|one| one.answer.is_err()) {
        return Error::no_leader(described);
    }
    Error::UnknownReplica { name: name.to_owned(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(end: u64) -> Position {
        Position { next: 0, not_before_ms: None, left: None, known_end: end, target: end }
    }

    fn sent(first: u64, offsets: &[u64], next: u64) -> v1::ReadResponse {
        let record = |offset: &u64| Record { offset: *offset, ..Default::default() };
        v1::ReadResponse { first, next, records: offsets.iter().map(record).collect(), ..Default::default() }
    }

    #[test]
    fn a_reading_goes_over_what_was_compacted_away_and_tells_what_does_not_follow() {
        let pass = |first, offsets: &[u64], next| {
            let mut position = Position { next: 4, left: Some(3), ..told(9) };
            position.pass(&sent(first, offsets, next)).map(|()| (position.next, position.left))
        };
        assert_eq!(pass(4, &[4, 5], 6), Ok((6, Some(1))));
        assert_eq!(pass(4, &[5, 7], 9), Ok((9, Some(1))));
        assert_eq!(pass(4, &[], 8), Ok((8, Some(3))));
        assert_eq!(pass(5, &[5], 6), Err((4, 5)));
        assert_eq!(pass(3, &[3], 4), Err((4, 3)));
        assert_eq!(pass(4, &[3], 5), Err((4, 3)));
        assert_eq!(pass(4, &[5, 5], 6), Err((6, 5)));
        assert_eq!(pass(4, &[6], 6), Err((4, 6)));
        assert_eq!(pass(4, &[4, 5, 6, 7], 8), Err((7, 7)));
    }

    #[test]
    fn a_reading_by_time_begins_where_the_replica_says_and_keeps_asking_by_time_until_a_record_has_come() {
        let mut position = Position { not_before_ms: Some(7), ..told(9) };
        assert_eq!(position.pass(&sent(5, &[], 5)), Ok(()));
        assert_eq!((position.next, position.not_before_ms), (5, Some(7)));
        assert_eq!(position.pass(&sent(5, &[6], 7)), Ok(()));
        assert_eq!((position.next, position.not_before_ms), (7, None));
        assert_eq!(position.pass(&sent(8, &[8], 9)), Err((7, 8)));
    }

    #[test]
    fn a_reading_is_done_at_the_end_it_was_told_of_or_when_it_has_enough() {
        let at = |next, left| Position { next, left, ..told(9) };
        assert!(at(9, None).is_at_end(false) && !at(8, None).is_at_end(false));
        assert!(!at(9, None).is_at_end(true) && at(4, Some(0)).is_at_end(true));
    }

    #[test]
    fn only_an_offset_that_was_told_to_be_committed_is_asked_for_again() {
        let refused = Refused {
            server: "zue-1".to_owned(),
            reason: Reason::OffsetOutOfRange,
            outcome: v1::Outcome::Unspecified,
            message: String::new(),
            log_start: 2,
            commit_end: 5,
            expected_sequence: 0,
        };
        let known = |next, known_end| Position { next, ..told(known_end) }.is_known(&refused);
        assert_eq!([known(7, 7), known(7, 5), known(1, 7)], [true, false, false]);
    }
}
