//! A stream to the leader that carries one append at a time: an append does not pay for a call of its own. It ends by itself when it
//! is not used for a while, so that a client that rests takes no place at the server.

use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};
use zue_proto::v1::append_stream_response::Outcome;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::{AppendRequest, AppendResponse, AppendStreamResponse};

use crate::names::Producer;
use crate::servers::{Link, Server};

/// The time that a line that is not used stays open.
const REST_MAX: Duration = Duration::from_secs(5);

/// An open stream of appends.
#[derive(Debug)]
pub(crate) struct Line {
    server: Server,
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendStreamResponse>,
}

impl Line {
    /// Returns whether it is open and leads there.
    pub(crate) fn leads_to(&self, server: &Server) -> bool {
        self.server == *server && !self.requests.is_closed()
    }

    /// Opens one with its first append.
    pub(crate) async fn open(
        mut client: LogClient<Link>,
        server: &Server,
        first: AppendRequest,
    ) -> Result<Response<(Self, AppendResponse)>, Status> {
        let (requests, queued) = mpsc::channel(1);
        // There is room for one. Some servers answer nothing before it is there.
        let _ = requests.try_send(first);
        let answers = client.append_stream(until_it_rests(queued, REST_MAX)).await?.into_inner();
        let mut line = Self { server: server.clone(), requests, answers };
        let answer = line.answer().await?;
        Ok(Response::new((line, answer)))
    }

    /// Sends one more; no other may be under way.
    pub(crate) async fn append(mut self, request: AppendRequest) -> Result<Response<(Self, AppendResponse)>, Status> {
        self.requests.try_send(request).map_err(|_| Status::unavailable("it ended the stream of appends"))?;
        let answer = self.answer().await?;
        Ok(Response::new((self, answer)))
    }

    async fn answer(&mut self) -> Result<AppendResponse, Status> {
        let answer =
            self.answers.message().await?.ok_or_else(|| Status::unavailable("it ended the stream of appends"))?;
        match answer.outcome {
            Some(Outcome::Appended(appended)) => Ok(appended),
            Some(Outcome::Error(error)) => Err(zue_proto::status_of(error)),
            None => Err(Status::internal("it answered with neither an offset nor an error")),
        }
    }
}

/// Passes on what is queued, until nothing is for so long.
fn until_it_rests(
    queued: mpsc::Receiver<AppendRequest>,
    rest_max: Duration,
) -> impl Stream<Item = AppendRequest> + Send {
    futures::stream::unfold(queued, move |mut queued| async move {
        let next = timeout(rest_max, queued.recv()).await.ok().flatten()?;
        Some((next, queued))
    })
}

/// A producer that no append uses now, and what its last append was sent on.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) producer: Producer,
    pub(crate) line: Option<Line>,
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_line_that_is_not_used_for_a_while_ends() {
        const REST: Duration = Duration::from_millis(50);
        let (requests, queued) = mpsc::channel(1);
        let mut sent = Box::pin(until_it_rests(queued, REST));
        for _ in 0..3 {
            requests.send(AppendRequest::default()).await.unwrap();
            assert!(sent.next().await.is_some());
        }
        let begun = Instant::now();
        assert!(sent.next().await.is_none());
        assert!(begun.elapsed() >= REST);
        assert!(requests.is_closed(), "who has it opens another");
    }
}
