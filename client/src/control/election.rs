//! One attempt at an epoch: reserve, seal, choose, appoint, in this order and each only after the one before. An attempt that fails
//! anywhere leaves its epoch used up, and nothing to undo. From the seal on nobody leads, so nothing but the replicas is waited for.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};
use zue_core::control::{Reason, Recorded, Seen, Wish};
use zue_core::election::{Change, Choice, First, NoChoice, Sealed, choose};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId};
use zue_proto::v1;

use super::{Controller, NodeAddress, Store, peers, seen};

/// What an epoch is to begin with.
pub(super) struct Attempt<'a> {
    pub(super) nodes: &'a [NodeAddress],
    pub(super) seen: &'a [Option<Seen>],
    pub(super) epoch: Epoch,
    pub(super) prefer: Option<ReplicaId>,
    /// Who is not sealed.
    pub(super) without: Option<ReplicaId>,
    /// The voter to add or to remove, if the answers bear it out.
    pub(super) change: Option<Change>,
    pub(super) wish: &'a Wish,
    pub(super) reason: Reason,
}

/// Who was appointed.
pub(super) struct Elected {
    pub(super) leader: ReplicaId,
    pub(super) leader_name: String,
    pub(super) choice: Choice,
    /// The cluster that began with this epoch, if one did.
    pub(super) bootstrapped: Option<ClusterId>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ElectError {
    #[error("it could not be written down: {0}")]
    Store(String),
    #[error("another controller wrote meanwhile")]
    Conflict,
    #[error("no epoch is left beside {0}, which is written down: the replicas have promised the last ones")]
    NoEpochLeft(Epoch),
    #[error("{choice}{refusals}")]
    NoChoice { choice: NoChoice, refusals: String },
    #[error("cluster {0} is recorded, but every replica that answers is blank")]
    DataGone(ClusterId),
    #[error("{name} cannot be appointed: {why}")]
    NotAppointed { name: String, why: String },
}

impl Attempt<'_> {
    /// The cluster this is about, as far as it is known.
    pub(super) fn cluster(&self, recorded: &Recorded) -> Option<ClusterId> {
        recorded.cluster.or_else(|| self.seen.iter().flatten().find_map(|seen| seen.cluster))
    }

    /// A text for people that names nodes instead of replicas.
    pub(super) fn with_names(&self, text: &str) -> String {
        let named = self.nodes.iter().zip(self.seen);
        let known = named.filter_map(|(node, seen)| Some((seen.as_ref()?.replica, &node.name)));
        known.fold(text.to_owned(), |text, (id, name)| text.replace(&format!("replica {id}"), name))
    }

    /// Who is at the first nodes, so many of them.
    fn at_first(&self, nodes: usize) -> Vec<ReplicaId> {
        self.seen.iter().take(nodes).flatten().map(|seen| seen.replica).collect()
    }

    fn choose(&self, answers: &[(usize, Sealed)]) -> Result<Choice, NoChoice> {
        let mut in_order: Vec<_> = answers.iter().collect();
        in_order.sort_by_key(|(ordinal, _)| *ordinal);
        let answers: Vec<Sealed> = in_order.into_iter().map(|(_, sealed)| sealed.clone()).collect();
        let (voters, listed) = (self.at_first(self.wish.replicas), self.at_first(self.nodes.len()));
        let first = Some(First { voters: &voters, listed: &listed }).filter(|_| self.reason == Reason::Bootstrap);
        choose(&answers, self.prefer, first, self.wish.quorum, self.change)
    }
}

impl<S: Store> Controller<S> {
    pub(super) async fn attempt(&mut self, attempt: &Attempt<'_>) -> Result<Elected, ElectError> {
        if attempt.epoch == self.recorded.epoch {
            return Err(ElectError::NoEpochLeft(self.recorded.epoch));
        }
        self.reserve(attempt.epoch).await?;
        let known = attempt.cluster(&self.recorded);
        let (choice, sealed_cluster) = self.seal(attempt, known).await?;
        if let (true, Some(cluster)) = (choice.bootstrap, known) {
            return Err(ElectError::DataGone(cluster));
        }
        let cluster = sealed_cluster.unwrap_or_else(|| ClusterId(rand::random::<u128>().max(1)));
        let leader_name = self.appoint(attempt, &choice, cluster).await?;
        let bootstrapped = choice.bootstrap.then_some(cluster);
        Ok(Elected { leader: choice.leader, leader_name, choice, bootstrapped })
    }

    async fn reserve(&mut self, epoch: Epoch) -> Result<(), ElectError> {
        let to = Recorded { epoch, ..self.recorded.clone() };
        match self.store.swap(&self.recorded, &to).await {
            Ok(true) => self.recorded = to,
            Ok(false) => return Err(ElectError::Conflict),
            Err(error) => return Err(ElectError::Store(error.to_string())),
        }
        Ok(())
    }

    /// Seals every replica in reach and chooses. Once the answers are enough, the others are waited for only a little: one whose
    /// disk hangs must not hold up the rest.
    async fn seal(
        &mut self,
        attempt: &Attempt<'_>,
        cluster: Option<ClusterId>,
    ) -> Result<(Choice, Option<ClusterId>), ElectError> {
        let seal_timeout = self.config.seal_timeout;
        let is_asked =
            |seen: &Seen| (seen.cluster.is_none() || seen.cluster == cluster) && Some(seen.replica) != attempt.without;
        let mut asked = FuturesUnordered::new();
        for (ordinal, (node, seen)) in attempt.nodes.iter().zip(attempt.seen).enumerate() {
            let Some(seen) = seen.as_ref().filter(|seen| is_asked(seen)) else { continue };
            let client = self.peers.client(node);
            let (replica, epoch) = (seen.replica, attempt.epoch);
            let request = v1::SealRequest {
                protocol_version: zue_proto::PROTOCOL_VERSION,
                cluster_id: seen::cluster_bytes(cluster),
                target: zue_proto::id_bytes(replica.0),
                epoch: epoch.0,
            };
            asked.push(async move {
                let answer = match client {
                    Ok(mut client) => peers::call(seal_timeout, client.seal(request)).await,
                    Err(why) => Err(why),
                };
                (ordinal, answer.and_then(|answer| sealed(answer, replica, epoch)))
            });
        }
        let mut answers = Vec::new();
        let mut refusals = Vec::new();
        let mut until = Instant::now() + seal_timeout;
        while let Ok(Some((ordinal, answer))) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(sealed) => answers.push((ordinal, sealed)),
                Err(why) => {
                    let name = attempt.nodes.get(ordinal).map_or("?", |node| &node.name);
                    refusals.push(format!("; {name}: {why}"));
                }
            }
            if attempt.choose(&answers).is_ok() {
                until = until.min(Instant::now() + self.config.seal_grace);
            }
        }
        let sealed_cluster = answers.iter().find_map(|(_, sealed)| sealed.cluster);
        let choice =
            attempt.choose(&answers).map_err(|choice| ElectError::NoChoice { choice, refusals: refusals.concat() })?;
        Ok((choice, sealed_cluster))
    }

    /// Tells the chosen one.
    async fn appoint(
        &mut self,
        attempt: &Attempt<'_>,
        choice: &Choice,
        cluster: ClusterId,
    ) -> Result<String, ElectError> {
        let Choice { leader, voters, quorum, old_voters, bootstrap: _, unchanged: _ } = choice;
        let ordinal = seen::ordinal_of(attempt.seen, *leader);
        let Some(node) = ordinal.and_then(|ordinal| attempt.nodes.get(ordinal)) else {
            unreachable!("the chosen one answered at one of the nodes");
        };
        let members = |ids: &[ReplicaId]| seen::members(ids, attempt.nodes, attempt.seen, &self.homes);
        let request = v1::AppointRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: seen::cluster_bytes(Some(cluster)),
            target: zue_proto::id_bytes(leader.0),
            epoch: attempt.epoch.0,
            voters: members(voters),
            quorum: *quorum,
            old_voters: old_voters.as_deref().map(members).unwrap_or_default(),
        };
        let answer = match self.peers.client(node) {
            Ok(mut client) => {
                let within = self.config.appoint_timeout.bound(self.election.failures().saturating_add(1));
                peers::call(within, client.appoint(request)).await
            }
            Err(why) => Err(why),
        };
        let not_appointed = |why| ElectError::NotAppointed { name: node.name.clone(), why };
        answer.map(|_| node.name.clone()).map_err(not_appointed)
    }
}

/// A checked answer to a seal: of the replica that was asked, and with the promise that was asked for.
fn sealed(answer: v1::SealResponse, asked: ReplicaId, epoch: Epoch) -> Result<Sealed, String> {
    let malformed = |malformed: zue_proto::Malformed| format!("its answer makes no sense: {malformed}");
    let replica = zue_proto::replica_id("replica_id", &answer.replica_id).map_err(malformed)?;
    if replica != asked {
        return Err(format!("another replica answers: {replica}"));
    }
    if answer.promised != epoch.0 {
        return Err(format!("it promised epoch {}, not {epoch}", answer.promised));
    }
    let durable = zue_proto::tail(answer.durable);
    Ok(Sealed {
        replica,
        cluster: seen::begun_cluster(&answer.cluster_id, durable).map_err(malformed)?,
        last: answer.last_epoch_start.map(zue_proto::epoch_start).transpose().map_err(malformed)?,
        durable,
        commit_end: Offset(answer.commit_end),
        suspect: answer.suspect.map(|suspect| zue_proto::tail(Some(suspect))),
        damaged: answer.damaged,
        lineage: zue_proto::lineage(answer.lineage),
        runs: zue_proto::runs(&answer.runs).map_err(malformed)?,
    })
}
