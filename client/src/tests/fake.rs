//! Servers of one log in memory, with the faults that a test asks for. The log keeps one copy of each sequence, and checks that no
//! client leaves a gap.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use zue_proto::v1::append_stream_response::Outcome as Answer;
use zue_proto::v1::log_server::{Log, LogServer};
use zue_proto::v1::{self, Outcome, Reason};

/// The fate of one append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// No.
    Refuse(Reason, Outcome),
    /// It is appended, and the answer gets lost with the connection.
    AppendAndBreak,
    /// The connection breaks before.
    Break,
    /// Nothing ever comes.
    Hang,
    /// All producers are forgotten; the append is refused accordingly.
    Forget,
    /// The log begins anew, empty: producers without a record are new in it.
    Anew,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replica {
    /// It answers nothing.
    pub(super) is_down: bool,
    /// The number of records that it knows to be committed, if not all.
    pub(super) has: Option<u64>,
    /// The number of records that a read gives before it breaks.
    pub(super) read_max: Option<u64>,
    /// This record it leaves out.
    pub(super) skips: Option<u64>,
    /// It answers nothing more, and breaks no connection: reads give what `read_max` says and stand still.
    pub(super) hangs: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) leader: Option<usize>,
    pub(super) epoch: u64,
    pub(super) log: Vec<v1::NewRecord>,
    pub(super) replicas: Vec<Replica>,
    pub(super) faults: VecDeque<Fault>,
    /// The number of streams of appends that were opened.
    pub(super) streams: usize,
    /// The addresses that the replicas give for themselves.
    pub(super) advertised: Vec<String>,
    /// True if those that do not lead say that they hear the leader, if they say so at all.
    pub(super) connected: Option<bool>,
    /// Each append that reached the leader: producer, sequence.
    pub(super) tries: Vec<(Bytes, u64)>,
    /// The servers that were asked for a backup, and by what name.
    pub(super) asked: Vec<(usize, String)>,
    /// The producer of each record.
    owners: Vec<(Bytes, u64)>,
    /// The record at this offset was compacted away.
    pub(super) compacted: Option<u64>,
    /// Any producer may be new.
    is_anew: bool,
    producers: HashMap<Bytes, Vec<(u64, u32, u64)>>,
    opened: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) addresses: Vec<String>,
}

pub(super) fn record(value: impl Into<Bytes>) -> v1::NewRecord {
    v1::NewRecord { value: value.into(), ..Default::default() }
}

pub(super) fn name(ordinal: usize) -> String {
    format!("zue-{ordinal}")
}

fn refusal(reason: Reason, outcome: Outcome, message: &str) -> v1::Error {
    v1::Error { reason: reason.into(), outcome: outcome.into(), message: message.to_owned(), ..Default::default() }
}

impl State {
    fn append(&mut self, request: v1::AppendRequest) -> Result<v1::AppendResponse, v1::Error> {
        let end = u64::try_from(self.log.len()).unwrap();
        let count = u32::try_from(request.records.len()).unwrap();
        self.tries.push((request.producer_id.clone(), request.sequence));
        if self.is_anew {
            self.producers.entry(request.producer_id.clone()).or_default();
        }
        let Some(appends) = self.producers.get_mut(&request.producer_id) else {
            return Err(refusal(Reason::UnknownProducer, Outcome::Unknown, "this producer is not known"));
        };
        let answer = |base_offset, count, duplicate| v1::AppendResponse { base_offset, count, epoch: 1, duplicate };
        let holds = |(first, of, _): &&(u64, u32, u64)| {
            *first <= request.sequence && request.sequence + u64::from(count) <= first + u64::from(*of)
        };
        if let Some((first, _, base)) = appends.iter().find(holds) {
            return Ok(answer(base + request.sequence - first, count, true));
        }
        let expected = appends.last().map_or(0, |(sequence, count, _)| sequence + u64::from(*count));
        if request.sequence != expected {
            let refused = refusal(Reason::SequenceGap, Outcome::NotAppended, &format!("sequence {expected} is due"));
            return Err(v1::Error { expected_sequence: expected, ..refused });
        }
        appends.push((request.sequence, count, end));
        self.owners.extend((request.sequence..).take(request.records.len()).map(|n| (request.producer_id.clone(), n)));
        self.log.extend(request.records);
        Ok(answer(end, count, false))
    }

    pub(super) fn values(&self) -> Vec<Bytes> {
        self.log.iter().map(|record| record.value.clone()).collect()
    }
}

impl Fake {
    pub(super) async fn start(replicas: usize) -> Self {
        let mut fake = Self::default();
        let mut listeners = Vec::new();
        for _ in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            fake.addresses.push(listener.local_addr().unwrap().to_string());
            listeners.push(listener);
        }
        let mut state = fake.state();
        (state.leader, state.epoch) = (Some(0), 1);
        state.replicas = vec![Replica::default(); replicas];
        state.advertised.clone_from(&fake.addresses);
        drop(state);
        for (ordinal, listener) in listeners.into_iter().enumerate() {
            let service = LogServer::new(Server { ordinal, fake: fake.clone() });
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        }
        fake
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn fail(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }
}

struct Server {
    ordinal: usize,
    fake: Fake,
}

enum Next {
    Answer(v1::AppendResponse),
    Error(v1::Error),
    Break,
    Hang,
}

impl Server {
    fn up(&self) -> Result<(), Status> {
        if self.fake.state().replicas[self.ordinal].is_down { Err(Status::unavailable("down")) } else { Ok(()) }
    }

    fn hint(state: &State) -> Option<v1::LeaderHint> {
        let leader = state.leader?;
        Some(v1::LeaderHint { name: name(leader), address: state.advertised[leader].clone() })
    }

    fn one(&self, request: v1::AppendRequest) -> Next {
        let mut state = self.fake.state();
        if state.replicas[self.ordinal].is_down {
            return Next::Break;
        }
        if state.leader != Some(self.ordinal) {
            let mut error = refusal(Reason::NotLeader, Outcome::NotAppended, "this replica does not lead");
            error.leader = Self::hint(&state);
            return Next::Error(error);
        }
        let fault = state.faults.pop_front();
        match fault {
            Some(Fault::Refuse(reason, outcome)) => return Next::Error(refusal(reason, outcome, "as asked for")),
            Some(Fault::Break) => return Next::Break,
            Some(Fault::Hang) => return Next::Hang,
            Some(Fault::Forget) => state.producers.clear(),
            Some(Fault::Anew) => {
                (state.log, state.owners, state.producers) = Default::default();
                state.is_anew = true;
            }
            Some(Fault::AppendAndBreak) | None => {}
        }
        match state.append(request) {
            Ok(_) if fault == Some(Fault::AppendAndBreak) => Next::Break,
            Ok(answer) => Next::Answer(answer),
            Err(error) => Next::Error(error),
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Log for Server {
    type AppendStreamStream = Answers<v1::AppendStreamResponse>;
    type ReadStream = Answers<v1::ReadResponse>;

    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        match self.one(request.into_inner()) {
            Next::Answer(answer) => Ok(Response::new(answer)),
            Next::Error(error) => Err(zue_proto::status_of(error)),
            Next::Break => Err(Status::unavailable("the connection broke")),
            Next::Hang => std::future::pending().await,
        }
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        self.up()?;
        self.fake.state().streams += 1;
        let me = Self { ordinal: self.ordinal, fake: self.fake.clone() };
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            while let Ok(Some(request)) = requests.message().await {
                let outcome = match me.one(request) {
                    Next::Answer(answer) => Answer::Appended(answer),
                    Next::Error(error) => Answer::Error(error),
                    Next::Break => {
                        let _ = answers.send(Err(Status::unavailable("the connection broke"))).await;
                        return;
                    }
                    Next::Hang => std::future::pending().await,
                };
                if answers.send(Ok(v1::AppendStreamResponse { outcome: Some(outcome) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.up()?;
        let request = request.into_inner();
        let state = self.fake.state();
        let Replica { has, read_max, skips, hangs, .. } = state.replicas[self.ordinal];
        let commit_end = has.unwrap_or(u64::try_from(state.log.len()).unwrap());
        if request.from > commit_end {
            let mut error = refusal(Reason::OffsetOutOfRange, Outcome::Unspecified, "the valid range is less");
            error.commit_end = commit_end;
            return Err(zue_proto::status_of(error));
        }
        let read_end = match request.max_records {
            0 => commit_end,
            max => commit_end.min(request.from + max),
        };
        let breaks_at = read_max.map(|max| request.from + max).filter(|end| *end < read_end);
        let records = (request.from..breaks_at.unwrap_or(read_end)).filter(|offset| Some(*offset) != skips);
        let one = |offset: u64| {
            let at = usize::try_from(offset).unwrap();
            let (value, (producer_id, sequence)) = (state.log[at].value.clone(), state.owners[at].clone());
            let record = v1::Record { offset, value, producer_id, sequence, ..Default::default() };
            let records = if state.compacted == Some(offset) { vec![] } else { vec![record] };
            Ok(v1::ReadResponse { records, commit_end, log_start: 0, first: offset, next: offset + 1 })
        };
        let mut answers: Vec<_> = records.map(one).collect();
        if breaks_at.is_some() && !hangs {
            answers.push(Err(Status::unavailable("the connection broke")));
        }
        let stream = tokio_stream::iter(answers);
        if request.follow || hangs {
            return Ok(Response::new(Box::pin(stream.chain(tokio_stream::pending()))));
        }
        Ok(Response::new(Box::pin(stream)))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        self.up()?;
        if self.fake.state().replicas[self.ordinal].hangs && self.fake.state().leader != Some(self.ordinal) {
            return std::future::pending().await;
        }
        let state = self.fake.state();
        let member = |(ordinal, address): (usize, &String)| v1::MemberHint {
            name: name(ordinal),
            address: address.clone(),
            voter: true,
            problem: String::new(),
        };
        let log_end = u64::try_from(state.log.len()).unwrap();
        Ok(Response::new(v1::DescribeResponse {
            name: name(self.ordinal),
            epoch: state.epoch,
            leader: Self::hint(&state),
            commit_end: state.replicas[self.ordinal].has.unwrap_or(log_end),
            leader_connected: state.connected,
            members: state.advertised.iter().enumerate().map(member).collect(),
            ..Default::default()
        }))
    }

    async fn switch_over(&self, _: Request<v1::SwitchOverRequest>) -> Result<Response<v1::SwitchOverResponse>, Status> {
        Err(Status::unimplemented("no controller is here"))
    }

    async fn trim(&self, request: Request<v1::TrimRequest>) -> Result<Response<v1::TrimResponse>, Status> {
        self.up()?;
        Ok(Response::new(v1::TrimResponse { log_start: request.into_inner().before }))
    }

    /// Made when it is asked for the second time.
    async fn back_up(&self, request: Request<v1::AskBackupRequest>) -> Result<Response<v1::AskedBackup>, Status> {
        self.up()?;
        let asked = (self.ordinal, request.into_inner().name);
        let mut state = self.fake.state();
        let outcome = if state.asked.contains(&asked) {
            let made = v1::BackupMade { id: "made".to_owned(), end: 7, made_ms: 1 };
            v1::asked_backup::Outcome::Made(made)
        } else {
            v1::asked_backup::Outcome::Running(v1::BackupRunning {})
        };
        state.asked.push(asked);
        Ok(Response::new(v1::AskedBackup { outcome: Some(outcome) }))
    }

    async fn open_producer(
        &self,
        _: Request<v1::OpenProducerRequest>,
    ) -> Result<Response<v1::OpenProducerResponse>, Status> {
        self.up()?;
        let mut state = self.fake.state();
        state.opened += 1;
        let producer_id = zue_proto::id_bytes(state.opened.into());
        state.producers.insert(producer_id.clone(), Vec::new());
        Ok(Response::new(v1::OpenProducerResponse { producer_id }))
    }
}
