//! The known servers, the leader, and the connections to them. Knows neither appends nor reads.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use zue_proto::v1;
use zue_proto::v1::control_client::ControlClient;
use zue_proto::v1::log_client::LogClient;

use crate::ClientConfig;
use crate::error::{Error, NoLeader};
use crate::security::Bearer;
use zue_proto::net;
use zue_tls::Dial;

/// The time that a server may take to say who leads, unless there is less time.
const DESCRIBE_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// The time that others are waited for once a leader has answered: one of a newer epoch may be among them.
const GRACE: Duration = Duration::from_millis(100);
/// A leader that has not answered for so long may have been replaced: the others are asked, this often.
pub(crate) const LEADER_SILENCE: Duration = Duration::from_millis(200);
/// The number of addresses that are remembered beside those given.
const LEARNT_MAX: usize = 32;
/// A message of the largest batch fits many times.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection to a server, on which the token is shown.
pub(crate) type Link = InterceptedService<Channel, Bearer>;

/// A server and where it was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// The answer of one address.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) address: String,
    pub(crate) answer: Result<v1::DescribeResponse, String>,
    /// True if what answers there is no port for clients.
    pub(crate) is_misplaced: bool,
    /// It does not know who asks, or who asks has no right to; or it is not believed itself.
    pub(crate) denied: Option<Error>,
}

impl Described {
    fn silent(address: String, why: String) -> Self {
        Self { address, answer: Err(why), is_misplaced: false, denied: None }
    }
}

/// Returns whether this replica says that it leads itself.
pub(crate) fn leads(description: &v1::DescribeResponse) -> bool {
    description.leader.as_ref().is_some_and(|leader| leader.name == description.name)
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Addresses that servers named.
    learnt: Vec<String>,
    leader: Option<Server>,
}

/// The servers of one cluster.
#[derive(Debug)]
pub(crate) struct Servers {
    given: Vec<String>,
    dial: Dial,
    bearer: Bearer,
    state: Mutex<State>,
}

impl Servers {
    pub(crate) fn new(given: Vec<String>, config: &ClientConfig) -> Result<Self, Error> {
        if given.is_empty() {
            return Err(Error::NoServers);
        }
        for address in &given {
            net::check_address(address)?;
        }
        let dial = config.tls.as_ref().map_or_else(Dial::plain, |tls| tls.0.clone());
        if config.token.is_some() && dial.is_plain() {
            return Err(Error::TokenWithoutTls);
        }
        let bearer = Bearer(config.token.clone());
        Ok(Self { given, dial, bearer, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, address: &str) -> Result<Channel, Error> {
        let mut state = self.state();
        let known = state.channels.get(address).cloned();
        let channel = known.map_or_else(|| net::channel(address, &self.dial), Ok)?;
        state.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    pub(crate) fn client(&self, address: &str) -> Result<LogClient<Link>, Error> {
        Ok(LogClient::new(self.link(address)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The connection to a server, on which the token is shown.
    pub(crate) fn link(&self, address: &str) -> Result<Link, Error> {
        Ok(self.on(self.channel(address)?))
    }

    fn on(&self, channel: Channel) -> Link {
        Link::new(channel, self.bearer.clone())
    }

    /// After a failure the leader is looked for anew. One that was not reached is connected anew as well: its name may lead
    /// elsewhere by now. So is one that knows nothing of this client, which may have something newer to show.
    pub(crate) fn failed(&self, server: &Server, error: &Error) {
        let mut state = self.state();
        if matches!(error, Error::Unreachable { .. }) || error.is_of_identity() {
            state.channels.remove(&server.address);
        }
        if state.leader.as_ref() == Some(server) {
            state.leader = None;
        }
    }

    /// The leader: as found last, or as found now.
    pub(crate) async fn leader(&self, within: Duration) -> Result<Server, Error> {
        let known = self.state().leader.clone();
        if let Some(leader) = known {
            return Ok(leader);
        }
        self.find_leader(within).await.map(|(leader, _)| leader)
    }

    /// The leader as found now, and its epoch.
    pub(crate) async fn find_leader(&self, within: Duration) -> Result<(Server, u64), Error> {
        let described = self.search(within, |described| newest_leader(described).is_some(), true).await;
        let leader = newest_leader(&described).ok_or_else(|| Error::no_leader(&described))?;
        let epoch = described.iter().find(|one| one.address == leader.address).and_then(|one| one.answer.as_ref().ok());
        self.state().leader = Some(leader.clone());
        Ok((leader, epoch.map_or(0, |answer| answer.epoch)))
    }

    /// Ends once the others say that another leads than this one, which was found to lead and does not answer. A process that was
    /// stopped and a machine that is gone break no connection.
    pub(crate) async fn replaced(&self, leader: &Server) {
        let is_other =
            |described: &[Described]| newest_leader(described).is_some_and(|found| found.name != leader.name);
        loop {
            tokio::time::sleep(LEADER_SILENCE).await;
            if self.state().leader.as_ref() != Some(leader) {
                continue;
            }
            let found = newest_leader(&self.describe(LEADER_SILENCE, is_other).await);
            if let Some(found) = found.filter(|found| found.name != leader.name) {
                self.state().leader = Some(found);
                return;
            }
        }
    }

    /// The answers of every known address, in the order of the answers. Ends soon after these are enough.
    pub(crate) async fn describe(&self, within: Duration, is_enough: impl Fn(&[Described]) -> bool) -> Vec<Described> {
        self.search(within, is_enough, false).await
    }

    /// The same. `again`: while one is silent, the others are asked again: one of them may lead by now, and a machine that is gone is
    /// silent for seconds.
    async fn search(&self, within: Duration, is_enough: impl Fn(&[Described]) -> bool, again: bool) -> Vec<Described> {
        let mut asked: Vec<String> = Vec::new();
        let mut pending = FuturesUnordered::new();
        let mut repeated: Vec<String> = Vec::new();
        let mut described: Vec<Described> = Vec::new();
        let within = within.min(DESCRIBE_TIMEOUT_MAX);
        let mut until = Instant::now() + within;
        let mut next = self.addresses();
        loop {
            next.retain(|address| !asked.contains(address));
            for address in next.drain(..) {
                pending.push(self.describe_one(address.clone(), within));
                asked.push(address);
            }
            let is_silent = |address: &String| described.iter().all(|one| one.address != *address);
            let is_one_silent = asked.iter().any(is_silent);
            let repeat_at = if again && is_one_silent { until.min(Instant::now() + GRACE) } else { until };
            let answer = match timeout_at(repeat_at, pending.next()).await {
                Ok(Some(answer)) => answer,
                Err(_) if Instant::now() < until => {
                    for one in described.iter().filter(|one| !one.is_misplaced && !repeated.contains(&one.address)) {
                        pending.push(self.describe_one(one.address.clone(), within));
                    }
                    repeated = described.iter().map(|one| one.address.clone()).collect();
                    continue;
                }
                Ok(None) | Err(_) => break,
            };
            repeated.retain(|address| *address != answer.address);
            described.retain(|one| one.address != answer.address);
            if let Ok(description) = &answer.answer {
                self.learn(description);
                next = self.addresses();
            }
            if answer.denied.is_some() {
                // The next connection shows what is in the files then.
                self.state().channels.remove(&answer.address);
            }
            described.push(answer);
            if is_enough(&described) {
                until = until.min(Instant::now() + GRACE);
            }
        }
        let silent = asked.into_iter().filter(|address| !described.iter().any(|one| one.address == *address));
        let silent: Vec<_> = silent.map(|address| Described::silent(address, "no answer".to_owned())).collect();
        described.extend(silent);
        described
    }

    fn describe_one(&self, address: String, within: Duration) -> BoxFuture<'static, Described> {
        let channel = self.channel(&address).map(|channel| (LogClient::new(self.on(channel.clone())), channel));
        Box::pin(async move {
            let (mut client, channel) = match channel {
                Ok(both) => both,
                Err(error) => return Described::silent(address, error.to_string()),
            };
            match timeout(within, client.describe(v1::DescribeRequest::default())).await {
                Ok(Ok(response)) => {
                    Described { address, answer: Ok(response.into_inner()), is_misplaced: false, denied: None }
                }
                Ok(Err(status)) if net::is_misplaced(&status) => {
                    let why = misplaced(channel, within).await.unwrap_or_else(|| net::why(&status));
                    Described { address, answer: Err(why), is_misplaced: true, denied: None }
                }
                Ok(Err(status)) => {
                    let denied = Some(Error::of_status(&address, &status)).filter(Error::is_of_identity);
                    Described { denied, ..Described::silent(address, net::why(&status)) }
                }
                Err(_) => Described::silent(address, "no answer".to_owned()),
            }
        })
    }

    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.given.clone();
        let learnt = self.state().learnt.clone();
        addresses.extend(learnt.into_iter().filter(|address| !self.given.contains(address)));
        addresses
    }

    /// Remembers the addresses that a server names.
    fn learn(&self, description: &v1::DescribeResponse) {
        let leader = description.leader.iter().map(|leader| &leader.address);
        let members = description.members.iter().map(|member| &member.address);
        let mut state = self.state();
        for address in leader.chain(members) {
            if net::check_address(address).is_err() || state.learnt.contains(address) || self.given.contains(address) {
                continue;
            }
            if state.learnt.len() == LEARNT_MAX {
                let forgotten = state.learnt.remove(0);
                state.channels.remove(&forgotten);
            }
            state.learnt.push(address.clone());
        }
    }
}

/// Asks a replica about itself on its port for replicas and controllers.
async fn misplaced(channel: Channel, within: Duration) -> Option<String> {
    let mut control = ControlClient::new(channel);
    let status = timeout(within, control.status(v1::StatusRequest::default())).await.ok()?.ok()?.into_inner();
    let v1::StatusResponse { name, client_address, .. } = status;
    Some(format!("this is where {name} serves replicas and controllers; it serves clients at {client_address}"))
}

/// The one that leads the newest epoch among those that answered and lead; an older leader may not know yet that it is replaced.
fn newest_leader(described: &[Described]) -> Option<Server> {
    let answers = described.iter().filter_map(|one| Some((&one.address, one.answer.as_ref().ok()?)));
    let leader = answers.filter(|(_, answer)| leads(answer)).max_by_key(|(_, answer)| answer.epoch);
    leader.map(|(address, answer)| Server { name: answer.name.clone(), address: address.clone() })
}

impl Error {
    pub(crate) fn no_leader(described: &[Described]) -> Self {
        // Who is not let in finds no leader, however often it looks.
        let denied = described.iter().filter_map(|one| one.denied.clone());
        match denied.max_by_key(|denied| matches!(denied, Self::Refused(_))) {
            Some(refused @ Self::Refused(_)) if described.iter().all(|one| one.answer.is_err()) => refused,
            // Where one alone is not believed, another may have its address by now.
            Some(distrusted) if described.iter().all(|one| one.denied.is_some()) => distrusted,
            _ => Self::NoLeader(Box::new(no_leader(described))),
        }
    }
}

fn no_leader(described: &[Described]) -> NoLeader {
    let answers: Vec<&v1::DescribeResponse> = described.iter().filter_map(|one| one.answer.as_ref().ok()).collect();
    let mut answered: Vec<String> = answers.iter().map(|answer| answer.name.clone()).collect();
    answered.sort_unstable();
    answered.dedup();
    let mut unreachable: Vec<(String, String)> =
        described.iter().filter_map(|one| Some((one.address.clone(), one.answer.as_ref().err()?.clone()))).collect();
    // Two that say the same are then the same.
    unreachable.sort_unstable();
    let newest = answers.iter().filter(|answer| answer.leader.is_some()).max_by_key(|answer| answer.epoch);
    let named = newest.and_then(|answer| answer.leader.clone()).filter(|leader| !answered.contains(&leader.name));
    // One that says nothing of its stream is of an earlier version: it is believed.
    let is_followed = answers.iter().any(|answer| {
        answer.leader.as_ref().map(|leader| &leader.name) == named.as_ref().map(|leader| &leader.name)
            && answer.leader_connected != Some(false)
    });
    let voters: Vec<_> = newest.into_iter().flat_map(|answer| &answer.members).filter(|member| member.voter).collect();
    let missing =
        voters.iter().filter(|voter| !answered.contains(&voter.name)).map(|voter| voter.name.clone()).collect();
    NoLeader {
        named: named.map(|leader| (leader.name, leader.address)),
        is_followed,
        voters: voters.len(),
        missing,
        is_misplaced: !described.is_empty() && described.iter().all(|one| one.is_misplaced),
        answered,
        unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, epoch: u64, leader: Option<&str>) -> Described {
        let leader = leader.map(|name| v1::LeaderHint { name: name.to_owned(), address: format!("{name}:1") });
        let response = v1::DescribeResponse { name: name.to_owned(), epoch, leader, ..Default::default() };
        Described { address: format!("{name}:1"), answer: Ok(response), is_misplaced: false, denied: None }
    }

    #[test]
    fn of_two_that_lead_the_newer_epoch_counts() {
        let described = [answer("a", 4, Some("a")), answer("b", 5, Some("b")), answer("c", 6, None)];
        assert_eq!(newest_leader(&described).unwrap().name, "b");
    }

    #[test]
    fn a_leader_that_only_others_name_is_no_leader_but_is_named() {
        let silent = Described::silent("b:1".to_owned(), "refused".to_owned());
        let described = [answer("a", 4, Some("b")), silent];
        assert_eq!(newest_leader(&described), None);
        assert_eq!(no_leader(&described).named, Some(("b".to_owned(), "b:1".to_owned())));
    }

    #[test]
    fn one_that_is_not_believed_ends_the_search_only_where_all_are_not() {
        let distrusted = |address: &str| Described {
            denied: Some(Error::Distrusted { server: address.to_owned(), why: "of another cluster".to_owned() }),
            ..Described::silent(address.to_owned(), "of another cluster".to_owned())
        };
        let silent = || Described::silent("c:1".to_owned(), "refused".to_owned());
        let found = Error::no_leader(&[distrusted("a:1"), distrusted("b:1")]);
        assert!(matches!(found, Error::Distrusted { .. }) && !found.is_retriable(), "{found}");
        for rest in [silent(), answer("c", 4, None)] {
            let found = Error::no_leader(&[distrusted("a:1"), distrusted("b:1"), rest]);
            assert!(matches!(found, Error::NoLeader(_)) && found.to_string().contains("of another cluster"), "{found}");
        }
    }
}
