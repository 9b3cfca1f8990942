//! Asking the other replicas for committed records, for those that are damaged here; and answering who asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zue_core::Offset;
use zue_engine::maintenance::{Ask, Unanswered};
use zue_log::{Excerpt, OsDisk, Reader};
use zue_proto::place::Place;
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, Reason};
use zue_proto::{PROTOCOL_VERSION, id_bytes};
use zue_settings::fixed::{FETCHES_BYTES_MAX, FETCHES_MAX, PEER_MESSAGE_BYTES_MAX};

use crate::driver::handle::Handle;
use crate::driver::member::Identity;
use crate::driver::state::{Ends, ReplicaView};
use crate::process::vital::Vitals;
use crate::replication::address_book::AddressBook;
use crate::server::caller::Caller;
use crate::server::net;
use crate::server::outflow::Call;
use crate::server::owner::Owner;
use crate::server::room::Room;
use crate::services::aside::aside;
use crate::services::errors::{error, invalid, out_of_range, read_failed, shutting_down};
use crate::services::target::{self, Target};
use crate::storage::{Answer, Fetch};

/// The size of one answer, about; a larger record comes alone.
const ANSWER_BYTES: usize = 1 << 20;
/// The time that a replica has to answer.
pub(crate) const ANSWER_TIMEOUT_MS: u64 = 5000;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(ANSWER_TIMEOUT_MS);

/// Asks for what the maintenance of the log lacks.
pub(crate) struct Fetcher {
    view: watch::Receiver<ReplicaView>,
    address_book: AddressBook,
    fetches: mpsc::Receiver<Fetch>,
}

impl Fetcher {
    /// Takes questions for what is damaged here to the replicas that they are for, until it is stopped.
    pub(crate) fn spawn(
        handle: &Handle,
        address_book: &AddressBook,
        (stop, vitals): (&CancellationToken, &Vitals),
    ) -> mpsc::Sender<Fetch> {
        let (ask, fetches) = mpsc::channel(1);
        let (view, address_book) = (handle.view.clone(), address_book.clone());
        let asking = Self { view, address_book, fetches };
        let (vital, stop) = (vitals.task("who fetches what is damaged", stop), stop.clone());
        tokio::spawn(vital.run(asking.run(stop)));
        ask
    }

    /// Answers until it is stopped. Once the maintenance has ended, nobody asks any more: the maintenance reports that itself, so this
    /// task only waits for its stop.
    async fn run(mut self, stop: CancellationToken) {
        let answers = async {
            while let Some(Fetch { ask, reply }) = self.fetches.recv().await {
                reply.send(self.fetch(ask).await);
            }
        };
        if stop.run_until_cancelled(answers).await.is_some() {
            stop.cancelled().await;
        }
    }

    async fn fetch(&self, Ask { of, from, upto, .. }: Ask) -> Answer {
        let (cluster, member) = {
            let view = self.view.borrow();
            (view.cluster, view.members.iter().find(|member| member.id == of).cloned())
        };
        let Some((cluster, member)) = cluster.zip(member) else {
            return Err(Unanswered { reason: "it is no member any more".to_owned(), is_damaged: false });
        };
        let request = v1::FetchRequest {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: id_bytes(cluster.0),
            target: id_bytes(of.0),
            from: from.0,
            upto: upto.0,
        };
        let place = self.address_book.of(&member);
        let name = &member.name;
        let Ok(answer) = timeout(ANSWER_TIMEOUT, ask_at(&place, request, from)).await else {
            if let Some(at) = place.last() {
                place.is_wrong(at);
            }
            let reason = format!("{name}: no answer within {ANSWER_TIMEOUT:?}");
            return Err(Unanswered { reason, is_damaged: false });
        };
        answer.map_err(|why| Unanswered { reason: format!("{name}: {}", why.reason), ..why })
    }
}

async fn ask_at(place: &Place, request: v1::FetchRequest, from: Offset) -> Answer {
    let failed = |reason: String| Unanswered { reason, is_damaged: false };
    let (channel, at) = net::connect(place).await.map_err(|why| failed(why.to_string()))?;
    let mut client = ReplicationClient::new(channel).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let response = client.fetch(request).await.map_err(|status| {
        let error = zue_proto::error_of(&status);
        if error.as_ref().is_none_or(|error| error.reason() == Reason::WrongTarget) {
            place.is_wrong(at);
        }
        let Some(error) = error else { return failed(status.to_string()) };
        let is_damaged = matches!(error.reason(), Reason::Corrupt | Reason::OffsetOutOfRange);
        Unanswered { reason: error.message, is_damaged }
    })?;
    place.worked(at);
    Excerpt::decode(response.into_inner().frames, from).map_err(|error| failed(error.to_string()))
}

/// Gives committed records to replicas that lack them.
#[derive(Clone, Debug)]
pub(crate) struct FetchServer {
    reader: Reader<OsDisk>,
    ends: watch::Receiver<Ends>,
    view: watch::Receiver<ReplicaView>,
    turns: Arc<Semaphore>,
    /// For answers on their way.
    room: Arc<Room>,
}

impl FetchServer {
    pub(crate) fn new(reader: Reader<OsDisk>, ends: watch::Receiver<Ends>, view: watch::Receiver<ReplicaView>) -> Self {
        Self { reader, ends, view, turns: Arc::new(Semaphore::new(FETCHES_MAX)), room: Room::new(FETCHES_BYTES_MAX) }
    }

    pub(crate) async fn give(
        &self,
        identity: &Identity,
        caller: Option<&Caller>,
        owner: Owner,
        request: v1::FetchRequest,
    ) -> Result<v1::FetchResponse, v1::Error> {
        let v1::FetchRequest { protocol_version, cluster_id, target, from, upto } = request;
        target::check(identity, caller, &Target { protocol_version, target: &target })?;
        let asked =
            zue_proto::cluster_id(&cluster_id).map_err(invalid)?.ok_or_else(|| invalid("cluster_id is missing"))?;
        if self.view.borrow().cluster != Some(asked) {
            return Err(error(Reason::WrongTarget, format!("this replica is not of cluster {asked}")));
        }
        let readable = self.ends.borrow().readable();
        if from >= upto {
            return Err(invalid(format!("there is nothing from {from} to {upto}")));
        }
        if upto > readable.0 {
            // It may be so later.
            return Err(error(Reason::Overloaded, format!("what is before {upto} is not known to be committed here")));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| shutting_down())?;
        let reader = self.reader.clone();
        let read = move || reader.excerpt(Offset(from), Offset(upto), ANSWER_BYTES);
        let (read, _turn) = aside(turn, read).await.map_err(|_| shutting_down())?;
        let excerpt = read.map_err(|failure| match failure {
            zue_log::ReadError::OutOfRange { log_start, .. } => out_of_range(from, log_start, readable),
            failure => read_failed(&failure, readable),
        })?;
        let mut held = self.room.hold(owner);
        let grown = timeout(ANSWER_TIMEOUT, held.grow(excerpt.bytes().len())).await;
        let max = self.room.max();
        grown.map_err(|_| error(Reason::Overloaded, format!("{max} bytes of such answers are on their way")))?;
        if let Some(call) = Call::current() {
            call.keep(held);
        }
        Ok(v1::FetchResponse { frames: excerpt.bytes().clone() })
    }
}

#[cfg(test)]
mod tests {
    use zue_tls::Dial;

    use super::*;

    #[tokio::test]
    async fn maintenance_that_has_ended_ends_nothing_else() {
        let (ask, fetches) = mpsc::channel(1);
        let (vitals, stop) = (Vitals::new(), CancellationToken::new());
        let (view, address_book) = (watch::channel(ReplicaView::default()).1, AddressBook::by(Dial::plain()));
        let asking = Fetcher { view, address_book, fetches };
        let running = tokio::spawn(vitals.task("who fetches", &stop).run(asking.run(stop.clone())));
        drop(ask);
        assert!(timeout(Duration::from_millis(50), vitals.ended()).await.is_err());
        stop.cancel();
        running.await.unwrap();
    }
}
