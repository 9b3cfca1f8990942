//! One append, from the first try to the answer: under one name whatever fails, and found in the log should its producer be forgotten.

use bytes::Bytes;
use tokio::time::Instant;
use zue_proto::v1::{self, NewRecord};

use crate::client::Failures;
use crate::error::{AppendError, Error};
use crate::find::AppendSearch;
use crate::line::{Idle, Line};
use crate::names::{AppendId, Producer};
use crate::servers::Server;
use crate::{Appended, Client};

/// The number of streams for appends that rest open.
const IDLE_LINES_MAX: usize = 4;

/// One append on its way.
pub(crate) struct Append<'a> {
    pub(crate) client: &'a Client,
    pub(crate) records: Vec<NewRecord>,
    pub(crate) producer: Option<Producer>,
    /// The stream that it is sent on, if that is open.
    pub(crate) line: Option<Line>,
    /// True if a try may have succeeded unheard.
    pub(crate) is_unknown: bool,
}

impl Client {
    /// Appends the records as one: all of them or none. Answered when they are committed; retried until the deadline, and kept
    /// once however often it was tried.
    pub async fn append(&self, records: Vec<NewRecord>) -> Result<Appended, AppendError> {
        self.append_with(Append { client: self, records, producer: None, line: None, is_unknown: false }).await
    }

    /// Appends the records under the name that an earlier try of the same records had, which may have succeeded: they are kept once.
    /// A try whose outcome is not known leaves its name in [`AppendError::id`]. The name must not be in use elsewhere.
    pub async fn append_again(&self, id: AppendId, records: Vec<NewRecord>) -> Result<Appended, AppendError> {
        let producer = Some(Producer::again(id));
        self.append_with(Append { client: self, records, producer, line: None, is_unknown: true }).await
    }

    async fn append_with(&self, mut append: Append<'_>) -> Result<Appended, AppendError> {
        let Ok(_permit) = self.under_way().acquire().await else { unreachable!("the semaphore is never closed") };
        let appended = append.run().await;
        let Append { producer, line, is_unknown, .. } = append;
        let id = producer.as_ref().map(Producer::next);
        if let Some(producer) = producer.filter(|_| !is_unknown) {
            self.rest(producer, line);
        }
        appended.map_err(|error| AppendError { is_unknown, id, error })
    }

    /// Keeps a producer for the next append. Of the lines few stay open: one that many appends use in turn is always among them.
    fn rest(&self, producer: Producer, line: Option<Line>) {
        let mut idle = self.idle();
        let open = idle.iter().filter(|idle| idle.line.is_some()).count();
        if open >= IDLE_LINES_MAX
            && let Some(oldest) = idle.iter_mut().find(|idle| idle.line.is_some())
        {
            oldest.line = None;
        }
        idle.push(Idle { producer, line });
    }
}

impl Append<'_> {
    /// Tries until it succeeds, fails for good, or the deadline passes.
    pub(crate) async fn run(&mut self) -> Result<Appended, Error> {
        let begun = Instant::now();
        let mut failures = Failures::default();
        loop {
            match self.attempt(begun).await {
                Err(error) => self.client.again(begun, &mut failures, error).await?,
                Ok(appended) => {
                    self.client.goes_on();
                    return Ok(appended);
                }
            }
        }
    }

    async fn producer(&mut self, begun: Instant) -> Result<Producer, Error> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let idle = self.client.idle().pop();
        let producer = match idle {
            Some(Idle { producer, line }) => {
                self.line = line;
                producer
            }
            None => self.client.open_producer(begun).await?,
        };
        Ok(self.producer.insert(producer).clone())
    }

    async fn attempt(&mut self, begun: Instant) -> Result<Appended, Error> {
        let producer = self.producer(begun).await?;
        let leader = self.client.leader(begun).await?;
        let within = self.client.time_left(begun);
        let request = v1::AppendRequest {
            log: String::new(),
            producer_id: Bytes::copy_from_slice(&producer.id),
            sequence: producer.next_sequence,
            records: self.records.clone(),
            // The server gives up a little earlier, so that its reason is heard.
            within_ms: u32::try_from(within.mul_f64(0.9).as_millis()).unwrap_or(u32::MAX).max(1),
        };
        let answered = if let Some(line) = self.line.take().filter(|line| line.leads_to(&leader)) {
            self.client.call(&leader, within, line.append(request)).await
        } else {
            let client = self.client.servers().client(&leader.address)?;
            self.client.call(&leader, within, Line::open(client, &leader, request)).await
        };
        let error = match answered {
            Ok((line, response)) => {
                self.line = Some(line);
                return self.appended(&leader, response);
            }
            Err(error) => error,
        };
        if error.forgets((producer.known_end > 0).then_some(producer.next_sequence)) {
            return self.forgotten(&leader, &producer, error, begun).await;
        }
        self.is_unknown |= !error.is_not_appended();
        Err(error)
    }

    /// The producer is not known any more. An append that may be in the log is never sent under another one before it is found not to
    /// be: it could be stored twice.
    async fn forgotten(
        &mut self,
        leader: &Server,
        producer: &Producer,
        error: Error,
        begun: Instant,
    ) -> Result<Appended, Error> {
        let found = if self.is_unknown {
            let appends = vec![(producer.next_sequence, u32::try_from(self.records.len()).unwrap_or(u32::MAX))];
            let have_keys = self.records.iter().any(|record| record.key.is_some());
            let wanted = AppendSearch::since_opened(producer.id, appends, have_keys).not_before(producer.known_end);
            self.client.find(&wanted, begun).await.map_err(|why| error.unfound(why))?
        } else {
            Vec::new()
        };
        (self.producer, self.is_unknown) = (None, false);
        self.client.idle().clear();
        found.first().copied().ok_or_else(|| Error::producer_forgotten(&leader.name))
    }

    fn appended(&mut self, leader: &Server, response: v1::AppendResponse) -> Result<Appended, Error> {
        let count = u64::from(response.count);
        if usize::try_from(count) != Ok(self.records.len()) {
            self.is_unknown = true;
            return Err(Error::Malformed {
                server: leader.name.clone(),
                what: "the number of appended records differs",
            });
        }
        self.is_unknown = false;
        let v1::AppendResponse { base_offset, count, epoch, duplicate } = response;
        let id = self.producer.as_ref().map(Producer::next).unwrap_or_default();
        if let Some(producer) = &mut self.producer {
            producer.next_sequence += u64::from(count);
            producer.known_end = base_offset.saturating_add(u64::from(count));
        }
        Ok(Appended { base_offset, count, epoch, duplicate, id })
    }
}
