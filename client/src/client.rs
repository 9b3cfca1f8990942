//! The client: its servers, tries that fail, and what is asked in one call. Appends and reads are in rooms of their own.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use zue_proto::v1;

use crate::ClientConfig;
use crate::error::Error;
use crate::line::Idle;
use crate::names::{AppendId, Producer};
use crate::servers::{Server, Servers};
use crate::trouble::{Trouble, Troubles};

/// The last try before the deadline has at least this long.
const TRY_MIN: Duration = Duration::from_millis(50);

/// One replica, as far as clients see it.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplicaStatus {
    /// Its name; unknown where an address that nobody names does not answer.
    pub name: Option<String>,
    /// The server that was asked.
    pub address: String,
    /// Its answer, or why there is none.
    pub answer: Result<v1::DescribeResponse, String>,
}

/// A client of one cluster. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    servers: Servers,
    /// Producers that no append uses now; each append has one to itself, so that many may be under way.
    idle: Mutex<Vec<Idle>>,
    under_way: Semaphore,
    troubles: Troubles,
}

/// Tries that failed in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    count: u32,
    last: Option<Error>,
    /// One of them was for who somebody is.
    is_of_identity: bool,
}

impl Failures {
    /// Returns whether another try may succeed. What is shown and believed is read anew for each connection: who is refused for that tries
    /// once more, since certificates and tokens are replaced while they are in use.
    fn allow_another(&mut self, error: &Error) -> bool {
        error.is_retriable() || (error.is_of_identity() && !std::mem::replace(&mut self.is_of_identity, true))
    }
}

impl Client {
    /// A client that knows these servers (host:port) and finds the others. Connects when it is used.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>, config: ClientConfig) -> Result<Self, Error> {
        let config = config.in_bounds();
        let servers = Servers::new(servers.into_iter().map(Into::into).collect(), &config)?;
        let under_way = Semaphore::new(config.in_flight_max);
        let (idle, troubles) = (Mutex::default(), Troubles::default());
        Ok(Self(Arc::new(Inner { config, servers, idle, under_way, troubles })))
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.0.servers
    }

    pub(crate) fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of appends that may be under way.
    pub(crate) fn under_way(&self) -> &Semaphore {
        &self.0.under_way
    }

    /// The work that it tries again and again by now; none while all goes well.
    pub fn trouble(&self) -> Option<Trouble> {
        self.0.troubles.now()
    }

    /// Something has succeeded, or failed for good.
    pub(crate) fn goes_on(&self) {
        self.0.troubles.over();
    }

    /// The end of all that was committed anywhere when this was called; a leader that a majority confirms says so.
    pub async fn end(&self) -> Result<u64, Error> {
        self.end_of(Instant::now(), &mut Failures::default()).await
    }

    /// The same, for something that was begun then.
    pub(crate) async fn end_of(&self, begun: Instant, failures: &mut Failures) -> Result<u64, Error> {
        loop {
            match self.ask_end(begun).await {
                Err(error) => self.again(begun, failures, error).await?,
                Ok(end) => {
                    self.goes_on();
                    return Ok(end);
                }
            }
        }
    }

    /// Lets the log start at that offset, if it starts before it: what lies before is not read any more, and its room is given back.
    /// Answered when a quorum durably keeps to it; retried until the deadline. Gives where the log starts.
    pub async fn trim(&self, before: u64) -> Result<u64, Error> {
        let begun = Instant::now();
        let mut failures = Failures::default();
        loop {
            match self.ask_trim(begun, before).await {
                Err(error) => self.again(begun, &mut failures, error).await?,
                Ok(log_start) => {
                    self.goes_on();
                    return Ok(log_start);
                }
            }
        }
    }

    async fn ask_trim(&self, begun: Instant, before: u64) -> Result<u64, Error> {
        let leader = self.leader(begun).await?;
        let within = self.time_left(begun);
        let mut request = tonic::Request::new(v1::TrimRequest { log: String::new(), before });
        request.set_timeout(within.mul_f64(0.9));
        let mut client = self.0.servers.client(&leader.address)?;
        Ok(self.call(&leader, within, client.trim(request)).await?.log_start)
    }

    async fn ask_end(&self, begun: Instant) -> Result<u64, Error> {
        let leader = self.leader(begun).await?;
        let within = self.time_left(begun);
        let consistency = v1::Consistency::Linearizable.into();
        let mut request = tonic::Request::new(v1::DescribeRequest { log: String::new(), consistency });
        request.set_timeout(within.mul_f64(0.9));
        let mut client = self.0.servers.client(&leader.address)?;
        Ok(self.call(&leader, within, client.describe(request)).await?.commit_end)
    }

    /// The leader, for something begun then.
    pub(crate) async fn leader(&self, begun: Instant) -> Result<Server, Error> {
        self.0.servers.leader(self.time_left(begun)).await
    }

    /// The status of every replica. Asks all known addresses once, and retries nothing.
    pub async fn status(&self) -> Vec<ReplicaStatus> {
        let described = self.0.servers.describe(self.0.config.deadline, |_| false).await;
        let members: Vec<v1::MemberHint> = described
            .iter()
            .filter_map(|one| one.answer.as_ref().ok())
            .flat_map(|answer| answer.members.clone())
            .collect();
        let mut replicas: Vec<ReplicaStatus> = Vec::new();
        for one in described {
            let name = match &one.answer {
                Ok(answer) => Some(answer.name.clone()),
                Err(_) => members.iter().find(|member| member.address == one.address).map(|member| member.name.clone()),
            };
            let replica = ReplicaStatus { name, address: one.address, answer: one.answer };
            // A replica that is reached by two addresses is told once, by the one that answers.
            match replicas.iter_mut().find(|other| other.name.is_some() && other.name == replica.name) {
                Some(other) if other.answer.is_err() => *other = replica,
                Some(_) => {}
                None => replicas.push(replica),
            }
        }
        replicas.sort_by(|a, b| (a.name.is_none(), &a.name, &a.address).cmp(&(b.name.is_none(), &b.name, &b.address)));
        replicas
    }

    /// Makes ready for the next try of something begun then, or says that there is none.
    pub(crate) async fn again(&self, begun: Instant, failures: &mut Failures, error: Error) -> Result<(), Error> {
        if failures.allow_another(&error) {
            return self.pause(begun, failures, error).await;
        }
        self.goes_on();
        Err(error)
    }

    /// Pauses before the next try of something begun then, or says that the time is over. The last try is made at the deadline.
    pub(crate) async fn pause(&self, begun: Instant, failures: &mut Failures, error: Error) -> Result<(), Error> {
        failures.count = failures.count.saturating_add(1);
        let after = begun.elapsed();
        let left = self.0.config.deadline.saturating_sub(after);
        if left.is_zero() {
            // A try that the deadline cut short tells less than the one before.
            self.goes_on();
            let before = failures.last.take().filter(|_| !matches!(error, Error::Refused(_)));
            return Err(Error::TimedOut { after, last: Box::new(before.unwrap_or(error)) });
        }
        self.0.troubles.failed(error.clone());
        failures.last = Some(error);
        tokio::time::sleep(self.0.config.retry.pause(failures.count).min(left)).await;
        Ok(())
    }

    /// The time that a try may take that is made now, for something begun then.
    pub(crate) fn time_left(&self, begun: Instant) -> Duration {
        self.patience(begun, Instant::now())
    }

    /// The time that a try may take that was made at `tried`, for something begun at `begun`.
    pub(crate) fn patience(&self, begun: Instant, tried: Instant) -> Duration {
        let left = self.0.config.deadline.saturating_sub(tried.saturating_duration_since(begun));
        left.min(self.0.config.attempt_timeout).max(TRY_MIN)
    }

    /// One answer of one server, within the given time. A server that fails is looked for anew.
    pub(crate) async fn call<T>(
        &self,
        server: &Server,
        within: Duration,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        let answer = tokio::select! {
            answer = timeout(within, answer) => match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Error::of_status(&server.name, &status),
                Err(_) => Error::no_answer(&server.name, within),
            },
            () = self.0.servers.replaced(server) => Error::replaced(&server.name),
        };
        self.0.servers.failed(server, &answer);
        Err(answer)
    }

    /// A producer that has appended nothing.
    pub(crate) async fn open_producer(&self, begun: Instant) -> Result<Producer, Error> {
        let leader = self.leader(begun).await?;
        let mut client = self.0.servers.client(&leader.address)?;
        let answer =
            self.call(&leader, self.time_left(begun), client.open_producer(v1::OpenProducerRequest {})).await?;
        let malformed =
            |_| Error::Malformed { server: leader.name.clone(), what: "a producer id is not 16 bytes long" };
        let id = <[u8; 16]>::try_from(&*answer.producer_id).map_err(malformed)?;
        Ok(Producer::again(AppendId { producer: id, sequence: 0 }))
    }
}
