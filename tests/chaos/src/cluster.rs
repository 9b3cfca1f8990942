//! Nodes and a controller, each a process of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zue_client::{Client, ClientConfig, DescribeResponse, ReplicaStatus, Tls};
use zue_settings::MemoryBound;
use zue_tests::identities::{Identities, LIFE};
use zue_tests::programs::Process;
use zue_tls::Role;

/// The place where a node runs.
#[derive(Clone, Debug)]
pub(crate) struct NodeHost {
    pub(crate) name: String,
    pub(crate) ip: String,
    /// The namespace of its network, if it has one of its own.
    pub(crate) network: Option<String>,
    pub(crate) data: PathBuf,
}

/// A leader and its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    pub(crate) node: usize,
    pub(crate) epoch: u64,
}

pub(crate) struct Cluster {
    /// The folder of the programs; empty for those beside this one.
    programs: PathBuf,
    dir: PathBuf,
    places: Vec<NodeHost>,
    nodes: Vec<Option<Process>>,
    controllers: [Option<Process>; 2],
    eye: Client,
    secured: Option<Secured>,
}

/// The TLS of a cluster: the authorities, and what they gave out.
pub(crate) struct Secured {
    identities: Identities,
    controller: PathBuf,
    client: PathBuf,
}

impl Secured {
    pub(crate) fn new() -> Self {
        let identities = Identities::of("chaos");
        identities.allow("clients: [{name: load, rights: [append, read, admin]}]\n");
        let controller = identities.peer(&identities.cluster.identity(Role::Controller), LIFE);
        let controller = identities.folder_of("controller", &controller);
        let client = identities.folder_of("client", &identities.client("load", LIFE));
        Self { identities, controller, client }
    }

    /// The part of the nodes' file about it.
    fn config(&self) -> String {
        let (folder, access) = (text(&self.identities.node()), text(&self.identities.access()));
        format!("tls: {{mode: Required, folder: {folder}}}\naccess: {{file: {access}}}\n")
    }

    /// The authority that clients believe, and what they show.
    pub(crate) fn of_client(&self) -> [PathBuf; 3] {
        ["ca.crt", "tls.crt", "tls.key"].map(|name| self.client.join(name))
    }
}

/// TLS by these files.
pub(crate) fn tls([ca, certificate, key]: &[PathBuf; 3]) -> Result<Tls> {
    Ok(Tls::files(ca, Some((certificate, key)))?)
}

impl Cluster {
    /// Starts the nodes with this configuration, and a controller; comes back when somebody leads.
    pub(crate) async fn start(dir: &Path, places: Vec<NodeHost>, config: &str) -> Result<Self> {
        Self::start_programs((Path::new(""), None), dir, places, config).await
    }

    async fn start_programs(
        (programs, secured): (&Path, Option<Secured>),
        dir: &Path,
        places: Vec<NodeHost>,
        config: &str,
    ) -> Result<Self> {
        let with_tls = secured.as_ref().map(Secured::config).unwrap_or_default();
        std::fs::write(dir.join("node.yaml"), format!("{config}{with_tls}"))?;
        let tls = secured.as_ref().map(|secured| tls(&secured.of_client())).transpose()?;
        let patience = ClientConfig { deadline: Duration::from_millis(700), tls, ..ClientConfig::default() };
        let eye = Client::new(addresses(&places), patience)?;
        let nodes = places.iter().map(|_| None).collect();
        let programs = programs.to_owned();
        let mut cluster =
            Self { programs, dir: dir.to_owned(), places, nodes, controllers: [None, None], eye, secured };
        for node in 0..cluster.len() {
            cluster.start_node(node);
        }
        cluster.start_controller(0)?;
        cluster.expect_leader(Duration::from_secs(30)).await?;
        Ok(cluster)
    }

    /// Three nodes on loopback addresses.
    pub(crate) async fn on_loopback(dir: &Path, config: &str) -> Result<Self> {
        Self::of_build((Path::new(""), None), dir, config).await
    }

    /// The same, of the programs in that folder; of those beside this one if it is empty. With TLS where that is to be.
    pub(crate) async fn of_build(build: (&Path, Option<Secured>), dir: &Path, config: &str) -> Result<Self> {
        let place = |node: usize| {
            let name = format!("zue-{node}");
            NodeHost { ip: format!("127.0.0.{}", node + 1), network: None, data: dir.join(&name), name }
        };
        Self::start_programs(build, dir, (0..3).map(place).collect(), config).await
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.places[node].name
    }

    pub(crate) fn ip(&self, node: usize) -> &str {
        &self.places[node].ip
    }

    pub(crate) fn data(&self, node: usize) -> &Path {
        &self.places[node].data
    }

    /// The servers that clients ask.
    pub(crate) fn servers(&self) -> Vec<String> {
        addresses(&self.places)
    }

    /// A client of all nodes.
    pub(crate) fn client(&self, config: ClientConfig) -> Result<Client> {
        Ok(Client::new(addresses(&self.places), config)?)
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let NodeHost { name, ip, network, data } = &self.places[node];
        let port = |port: u16| format!("{ip}:{port}");
        let (config, data) = (text(&self.dir.join("node.yaml")), text(data));
        let args = [
            ["--config", &config],
            ["--name", name],
            ["--data-dir", &data],
            ["--listen-client", &port(9440)],
            ["--listen-peer", &port(9441)],
            ["--listen-metrics", &port(9442)],
        ];
        let log = self.dir.join(format!("{name}.log"));
        self.nodes[node] =
            Some(Process::start_in(network.as_deref(), &self.program("zue-node"), args.as_flattened(), &log));
    }

    fn program(&self, name: &str) -> String {
        text(&self.programs.join(name))
    }

    /// The certificate of clients, where there is TLS.
    pub(crate) fn of_client(&self) -> Option<[PathBuf; 3]> {
        self.secured.as_ref().map(Secured::of_client)
    }

    /// Those of the nodes that run.
    pub(crate) fn processes(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().flatten().map(Process::id)
    }

    /// The memory that a node says it takes at most.
    pub(crate) fn memory_bound(&self) -> Result<u64> {
        let config = zue_node::read_config(&self.dir.join("node.yaml"))?;
        Ok(MemoryBound::of(&config).bytes())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].take() {
            process.kill();
        }
    }

    /// SIGSTOP, SIGCONT.
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        if let Some(process) = &self.nodes[node] {
            process.signal(signal);
        }
    }

    /// SIGTERM to all nodes, each of which must end by itself and well.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.controllers = [None, None];
        for node in 0..self.len() {
            self.signal(node, "TERM");
        }
        for (place, node) in self.places.iter().zip(&mut self.nodes) {
            let code = node.as_mut().map(Process::wait);
            ensure!(code.is_none_or(|code| code == 0), "{} ended with {code:?}", place.name);
            *node = None;
        }
        Ok(())
    }

    /// Starts one of two controllers. The second writes down elsewhere: it begins with what the first knows by now.
    pub(crate) fn start_controller(&mut self, which: usize) -> Result<()> {
        let mut nodes = String::new();
        for NodeHost { name, ip, .. } in &self.places {
            let _ = write!(nodes, "{name}={ip}:9441/{ip}:9440,");
        }
        let state = |which: usize| self.dir.join(format!("control-{which}.json"));
        if which > 0 {
            std::fs::copy(state(0), state(which)).context("the first controller has written nothing")?;
        }
        let (state, tls) = (text(&state(which)), self.secured.as_ref().map(|secured| text(&secured.controller)));
        let mut args = vec!["control", "--nodes", nodes.trim_end_matches(','), "--state", &state];
        args.extend(tls.iter().flat_map(|folder| ["--tls-folder", folder]));
        let name = format!("control-{which}");
        let network = self.places.iter().any(|place| place.network.is_some()).then_some(name.as_str());
        let log = self.dir.join(format!("{name}.log"));
        self.controllers[which] = Some(Process::start_in(network, &self.program("zue"), &args, &log));
        Ok(())
    }

    pub(crate) fn kill_controller(&mut self, which: usize) {
        self.controllers[which] = None;
    }

    /// The status of every node.
    pub(crate) async fn status(&self) -> Vec<ReplicaStatus> {
        self.eye.status().await
    }

    /// The leader, by what the nodes say.
    pub(crate) async fn leader(&self) -> Option<Leader> {
        self.leading(&self.status().await)
    }

    fn leading(&self, status: &[ReplicaStatus]) -> Option<Leader> {
        let answers = status.iter().filter_map(|one| one.answer.as_ref().ok());
        let leads = answers.filter(|answer| answer.leader.as_ref().is_some_and(|leader| leader.name == answer.name));
        let newest = leads.max_by_key(|answer| answer.epoch)?;
        let node = self.places.iter().position(|place| place.name == newest.name)?;
        Some(Leader { node, epoch: newest.epoch })
    }

    /// Waits until all answer, and one of them leads the others and has them in sync.
    pub(crate) async fn expect_whole(&self, within: Duration) -> Result<Leader> {
        let end = Instant::now() + within;
        loop {
            let status = self.status().await;
            if let Some(leader) = self.whole(&status) {
                return Ok(leader);
            }
            ensure!(Instant::now() < end, "not all are in sync after {within:?}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The leader, if all the others follow and are in sync.
    pub(crate) fn whole(&self, status: &[ReplicaStatus]) -> Option<Leader> {
        let leader = self.leading(status)?;
        let answers: Vec<_> = status.iter().filter_map(|one| one.answer.as_ref().ok()).collect();
        let names_it = |answer: &&DescribeResponse| {
            answer.epoch == leader.epoch && answer.leader.as_ref().is_some_and(|one| one.name == self.name(leader.node))
        };
        let in_sync = answers.iter().find(|answer| answer.name == self.name(leader.node))?.isr.len();
        let follow = answers.iter().copied().filter(|answer| names_it(answer)).count();
        (in_sync == self.len() && follow == self.len()).then_some(leader)
    }

    pub(crate) async fn expect_leader(&self, within: Duration) -> Result<Leader> {
        let end = Instant::now() + within;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            ensure!(Instant::now() < end, "nobody leads after {within:?}: {:?}", self.status().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn addresses(places: &[NodeHost]) -> Vec<String> {
    places.iter().map(|place| format!("{}:9440", place.ip)).collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap_or_default().to_owned()
}
