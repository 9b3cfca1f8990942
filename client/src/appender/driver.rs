//! Moves an appender's batches: connects to the leader, sends what is unsent, takes the answers, and begins again when the
//! connection or the leader fails. Bounded by the window and by the queue.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use zue_proto::v1::{self, append_stream_response::Outcome};

use super::queue::Exit;
use super::window::Window;
use crate::client::Failures;
use crate::error::{AppendError, Error};
use crate::servers::{MESSAGE_BYTES_MAX, Server};
use crate::{AppendId, Appended, Client};

type Acks = mpsc::Sender<Result<Appended, AppendError>>;

/// A connection to the leader.
struct Line {
    leader: Server,
    requests: mpsc::Sender<Arc<v1::AppendRequest>>,
    answers: Streaming<v1::AppendStreamResponse>,
}

/// The end of a connection.
enum End {
    /// All is acknowledged, and nothing more comes.
    Finished,
    /// Nobody wants the acknowledgements.
    Abandoned,
    Failed(Error),
}

pub(super) async fn run(client: Client, again: Option<AppendId>, mut queued: Exit, acks: Acks) {
    let config = client.config();
    let mut driver = Driver {
        window: Window::new(config.in_flight_max, again),
        acks,
        failures: Failures::default(),
        client: client.clone(),
    };
    let error = loop {
        if driver.window.is_empty() {
            let Some(records) = queued.batch(driver.records_max()).await else { return };
            driver.window.push(records, Instant::now());
        }
        let error = match driver.connect_and_pump(&mut queued).await {
            End::Finished | End::Abandoned => return,
            End::Failed(error) => error,
        };
        if let Err(error) = driver.failed(error).await {
            break error;
        }
    };
    let (is_unknown, id) = (driver.window.is_unknown(), driver.window.id());
    let _ = driver.acks.send(Err(AppendError { is_unknown, id, error })).await;
}

struct Driver {
    client: Client,
    window: Window,
    acks: Acks,
    failures: Failures,
}

impl Driver {
    async fn connect_and_pump(&mut self, queued: &mut Exit) -> End {
        match self.connect().await {
            Ok(line) => {
                let leader = line.leader.clone();
                let end = self.pump(line, queued).await;
                if let End::Failed(error) = &end {
                    self.client.servers().failed(&leader, error);
                }
                end
            }
            Err(error) => End::Failed(error),
        }
    }

    /// The most records of the next batch. What is in doubt goes alone: earlier batches may have begun and ended anywhere.
    fn records_max(&self) -> usize {
        if self.window.is_in_doubt() { 1 } else { usize::MAX }
    }

    async fn connect(&mut self) -> Result<Line, Error> {
        let begun = self.window.oldest_since().unwrap_or_else(Instant::now);
        if !self.window.has_producer() {
            self.window.renew(Some(self.client.open_producer(begun).await?.id));
        }
        let leader = self.client.servers().leader(self.client.time_left(begun)).await?;
        let link = self.client.servers().link(&leader.address)?;
        let (requests, stream) = mpsc::channel(self.client.config().in_flight_max);
        // Some servers answer nothing before the first request: it is in the stream by then.
        self.send_unsent(&requests);
        let answers = zue_proto::append_stream(link, ReceiverStream::new(stream), MESSAGE_BYTES_MAX);
        let answers = self.client.call(&leader, self.client.time_left(begun), answers).await?;
        Ok(Line { leader, requests, answers })
    }

    /// Sends what this connection has not carried. The channel is as long as the window: it takes all of it.
    fn send_unsent(&mut self, requests: &mpsc::Sender<Arc<v1::AppendRequest>>) {
        while let Some(request) = self.window.next_unsent(Instant::now()) {
            // A closed channel is told by the answers.
            let _ = requests.try_send(request);
        }
    }

    async fn pump(&mut self, mut line: Line, queued: &mut Exit) -> End {
        let mut is_at_end = false;
        let client = self.client.clone();
        let leader = line.leader.clone();
        // Begins anew with every answer.
        let mut replaced = Box::pin(client.servers().replaced(&leader));
        loop {
            if is_at_end && self.window.is_empty() {
                return End::Finished;
            }
            let (since, sent) = (self.window.oldest_since(), self.window.oldest_sent());
            let sent = sent.unwrap_or_else(Instant::now);
            let patience = self.client.patience(since.unwrap_or(sent), sent);
            tokio::select! {
                biased;
                answer = line.answers.message() => match self.answered(&line.leader, answer) {
                    Ok(appended) => {
                        self.failures = Failures::default();
                        client.goes_on();
                        replaced.set(client.servers().replaced(&leader));
                        if self.acks.send(Ok(appended)).await.is_err() {
                            return End::Abandoned;
                        }
                    }
                    Err(error) => return End::Failed(error),
                },
                records = queued.batch(self.records_max()), if !is_at_end && self.window.has_room() => match records {
                    Some(records) => {
                        if self.window.is_empty() {
                            replaced.set(client.servers().replaced(&leader));
                        }
                        self.window.push(records, Instant::now());
                        self.send_unsent(&line.requests);
                    }
                    None => is_at_end = true,
                },
                () = &mut replaced, if !self.window.is_empty() => return End::Failed(Error::replaced(&leader.name)),
                () = sleep_until(sent + patience), if !self.window.is_empty() => {
                    return End::Failed(Error::no_answer(&line.leader.name, patience));
                }
            }
        }
    }

    fn answered(
        &mut self,
        leader: &Server,
        answer: Result<Option<v1::AppendStreamResponse>, tonic::Status>,
    ) -> Result<Appended, Error> {
        let malformed = |what| Error::Malformed { server: leader.name.clone(), what };
        let outcome = match answer {
            Ok(Some(answer)) => answer.outcome,
            Ok(None) => {
                return Err(Error::unreachable(&leader.name, "it ended the stream of appends"));
            }
            Err(status) => return Err(Error::of_status(&leader.name, &status)),
        };
        match outcome {
            Some(Outcome::Appended(appended)) => {
                self.window.acknowledged(&appended).ok_or_else(|| malformed("the number of appended records differs"))
            }
            Some(Outcome::Error(error)) => Err(Error::refused(&leader.name, error)),
            None => Err(malformed("neither an offset nor an error")),
        }
    }

    /// Makes ready for the next try, or says that there is none.
    async fn failed(&mut self, error: Error) -> Result<(), Error> {
        let forgotten = error.forgets(self.window.acknowledged_before());
        if error.is_not_appended() || forgotten {
            self.window.refused();
        } else {
            self.window.disconnected();
        }
        let error = if forgotten { self.forgotten(error).await? } else { error };
        let begun = self.window.oldest_since().unwrap_or_else(Instant::now);
        self.client.again(begun, &mut self.failures, error).await
    }
}

impl Driver {
    /// The producer is not known any more. A batch that may be in the log is never sent under another one before it is found not to be:
    /// it could be stored twice. Those that are found are acknowledged.
    async fn forgotten(&mut self, error: Error) -> Result<Error, Error> {
        let server = error.server().unwrap_or_default().to_owned();
        if let Some(wanted) = self.window.wanted() {
            let begun = self.window.oldest_since().unwrap_or_else(Instant::now);
            let found = self.client.find(&wanted, begun).await.map_err(|why| error.unfound(why))?;
            self.window.found(&found);
            if !found.is_empty() {
                self.failures = Failures::default();
            }
            for appended in found {
                // Should nobody want them, the next one says so.
                let _ = self.acks.send(Ok(appended)).await;
            }
        }
        // Of what comes again, more may be in the log: it is looked for when it comes.
        if !self.window.is_in_doubt() {
            self.window.renew(None);
        }
        Ok(Error::producer_forgotten(&server))
    }
}
