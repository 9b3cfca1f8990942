//! The floor under what an append costs: the same messages between the same processes in bare tonic. A server answers an append once one
//! of two others has its records; nothing is decided, checked or written. What remains is HTTP/2, Protocol Buffers and the kernel.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use zue_proto::v1;
use zue_proto::v1::append_stream_response::Outcome;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::log_server::{Log, LogServer};
use zue_tests::programs::Process;

const NAME: &str = "floor";
/// What is appended at once, at most, as with a node.
const JOINED_MAX: usize = 512;
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// host:port of each server that is to have the records, with commas between
    #[arg(long, value_delimiter = ',')]
    followers: Vec<String>,
}

/// Three servers, of which the first is asked.
pub(crate) struct Servers {
    processes: [Process; 3],
    address: String,
}

impl Servers {
    pub(crate) fn start(dir: &Path) -> Self {
        let address = |node: usize| format!("127.0.0.{}:9440", node + 1);
        let said = dir.join("floor.log");
        let start = |node: usize, more: &[&str]| {
            let listen = address(node);
            let process = Process::start("zue-chaos", &[&["floor", "--listen", &listen], more].concat(), &said);
            process.expect_line(NAME, WITHIN);
            process
        };
        let [first, second] = [1, 2].map(|node| start(node, &[]));
        let followers = [1, 2].map(address).join(",");
        let leader = start(0, &["--followers", &followers]);
        Self { processes: [leader, first, second], address: address(0) }
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(Process::id)
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        vec![self.address.clone()]
    }
}

/// Serves until it is killed, on one thread.
pub(crate) fn run(Options { listen, followers }: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (appends, waiting) = mpsc::unbounded_channel();
        let (heard, answers) = mpsc::unbounded_channel();
        let mut feeds = vec![];
        for follower in followers {
            feeds.push(feed(&follower, heard.clone()).await?);
        }
        tokio::spawn(lead(waiting, answers, feeds));
        let server = Server::builder().tcp_nodelay(true).add_service(LogServer::new(Floor { listen, appends }));
        println!("{NAME}");
        Ok(server.serve(listen).await?)
    })
}

/// A follower's stream; the number of each message that it answers goes to `heard`.
async fn feed(follower: &str, heard: mpsc::UnboundedSender<u64>) -> Result<mpsc::UnboundedSender<v1::AppendRequest>> {
    let channel: Channel = Endpoint::new(format!("http://{follower}"))?.tcp_nodelay(true).connect().await?;
    let (feed, messages) = mpsc::unbounded_channel();
    let answers = LogClient::new(channel).append_stream(UnboundedReceiverStream::new(messages)).await?;
    tokio::spawn(async move {
        let mut answers = answers.into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            let Some(Outcome::Appended(appended)) = answer.outcome else { return };
            let _ = heard.send(appended.epoch);
        }
    });
    Ok(feed)
}

/// An append, and where it is answered.
struct Append {
    request: v1::AppendRequest,
    answer: mpsc::UnboundedSender<Result<v1::AppendStreamResponse, Status>>,
}

/// Sends on what has come, as one message, and answers it when the first follower has; at once where there is none.
async fn lead(
    mut appends: mpsc::UnboundedReceiver<Append>,
    mut heard: mpsc::UnboundedReceiver<u64>,
    feeds: Vec<mpsc::UnboundedSender<v1::AppendRequest>>,
) {
    let (mut number, mut offset) = (0_u64, 0_u64);
    let mut waiting: VecDeque<(u64, Vec<Append>)> = VecDeque::new();
    let mut taken = vec![];
    loop {
        tokio::select! {
            count = appends.recv_many(&mut taken, JOINED_MAX) => if count == 0 { return },
            Some(done) = heard.recv(), if !feeds.is_empty() => {
                while let Some((_, batch)) = waiting.pop_front_if(|(number, _)| *number <= done) {
                    for append in batch {
                        append.answer(&mut offset);
                    }
                }
                continue;
            }
        }
        let mut batch = std::mem::take(&mut taken);
        if feeds.is_empty() {
            for append in batch {
                append.answer(&mut offset);
            }
            continue;
        }
        number += 1;
        let records = batch.iter_mut().flat_map(|append| append.request.records.iter().cloned()).collect();
        // Their answers bear the number.
        let message = v1::AppendRequest { sequence: number, records, ..Default::default() };
        for feed in &feeds {
            let _ = feed.send(message.clone());
        }
        waiting.push_back((number, batch));
    }
}

impl Append {
    fn answer(self, offset: &mut u64) {
        let count = u32::try_from(self.request.records.len()).unwrap_or(u32::MAX);
        let (base_offset, epoch) = (*offset, self.request.sequence);
        *offset += u64::from(count);
        let appended = v1::AppendResponse { base_offset, count, epoch, duplicate: false };
        let _ = self.answer.send(Ok(v1::AppendStreamResponse { outcome: Some(Outcome::Appended(appended)) }));
    }
}

struct Floor {
    listen: SocketAddr,
    appends: mpsc::UnboundedSender<Append>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// No load asks for it.
fn not_asked<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only appends are measured here"))
}

#[tonic::async_trait]
impl Log for Floor {
    type AppendStreamStream = Answers<v1::AppendStreamResponse>;
    type ReadStream = Answers<v1::ReadResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (answer, answers) = mpsc::unbounded_channel();
        let appends = self.appends.clone();
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            while let Ok(Some(request)) = requests.message().await {
                let _ = appends.send(Append { request, answer: answer.clone() });
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers))))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let leader = v1::LeaderHint { name: NAME.to_owned(), address: self.listen.to_string() };
        let described =
            v1::DescribeResponse { name: NAME.to_owned(), epoch: 1, leader: Some(leader), ..Default::default() };
        Ok(Response::new(described))
    }

    async fn open_producer(
        &self,
        _: Request<v1::OpenProducerRequest>,
    ) -> Result<Response<v1::OpenProducerResponse>, Status> {
        let producer_id = Bytes::from(rand::random::<[u8; 16]>().to_vec());
        Ok(Response::new(v1::OpenProducerResponse { producer_id }))
    }

    async fn append(&self, _: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        not_asked()
    }

    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        not_asked()
    }

    async fn switch_over(&self, _: Request<v1::SwitchOverRequest>) -> Result<Response<v1::SwitchOverResponse>, Status> {
        not_asked()
    }

    async fn trim(&self, _: Request<v1::TrimRequest>) -> Result<Response<v1::TrimResponse>, Status> {
        not_asked()
    }

    async fn back_up(&self, _: Request<v1::AskBackupRequest>) -> Result<Response<v1::AskedBackup>, Status> {
        not_asked()
    }
}
