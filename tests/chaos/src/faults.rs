//! Faults in an order that the seed gives: a deck of cards is drawn again and again, and each fault lasts a while.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::Cluster;
use crate::network::Network;
use crate::volume::Volume;
use crate::world::run;

/// Whom a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Whom {
    Leader,
    Follower,
}

/// The direction in which packets are lost, as seen from the node that is struck.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    In,
    Out,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    Kill(Whom),
    KillAll,
    Pause(Whom),
    /// Cut off from all other nodes and the controllers; clients still reach it.
    Cut(Whom, Way),
    /// From one other node only.
    CutOne(Whom, Way),
    Slow(Whom),
    FullDisk(Whom),
    /// Killed, and its disk is lost. Only when the last one that was lost has been replaced.
    Wipe(Whom),
    KillController,
    /// A second controller, with what the first had written down by then.
    SecondController,
}

const DECK: [(Fault, usize); 19] = [
    (Fault::Kill(Whom::Leader), 12),
    (Fault::Kill(Whom::Follower), 2),
    (Fault::KillAll, 1),
    (Fault::Pause(Whom::Leader), 1),
    (Fault::Pause(Whom::Follower), 1),
    (Fault::Cut(Whom::Leader, Way::Both), 1),
    (Fault::Cut(Whom::Leader, Way::In), 1),
    (Fault::Cut(Whom::Leader, Way::Out), 1),
    (Fault::Cut(Whom::Follower, Way::Both), 1),
    (Fault::CutOne(Whom::Leader, Way::In), 1),
    (Fault::CutOne(Whom::Leader, Way::Out), 1),
    (Fault::Slow(Whom::Leader), 1),
    (Fault::Slow(Whom::Follower), 1),
    (Fault::FullDisk(Whom::Leader), 1),
    (Fault::FullDisk(Whom::Follower), 1),
    (Fault::Wipe(Whom::Leader), 1),
    (Fault::Wipe(Whom::Follower), 1),
    (Fault::KillController, 1),
    (Fault::SecondController, 1),
];

/// The lengths of a fault and of the time until the next one begins, ms: at times they overlap.
const LASTS: std::ops::Range<u64> = 200..3_500;
const UNTIL_NEXT: std::ops::Range<u64> = 500..3_500;
/// Longer than a disk that is lost takes to be noticed, and a replica to count as in sync no more.
const BETWEEN_WIPES: Duration = Duration::from_secs(10);
const SLOW_KBIT: u64 = 1_000;
/// The time that a roll-back loses.
const ROLLED_BACK: Duration = Duration::from_secs(2);
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(30);
/// The faults of nodes that may last at the same time.
const STRUCK_MAX: usize = 2;

/// The end of a fault.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cure {
    Start,
    Continue,
    Join(Vec<(usize, usize)>),
    Fast,
    Empty,
    StartController,
    EndController,
}

struct Struck {
    /// The node, or none for the controllers.
    node: Option<usize>,
    cure: Cure,
    until: Instant,
}

pub(crate) struct Faults {
    dice: Xoshiro256PlusPlus,
    deck: Vec<Fault>,
    struck: Vec<Struck>,
    network: Network,
    volumes: Vec<Volume>,
    wiped: Option<Instant>,
    log: File,
    begun: Instant,
    pub(crate) counts: BTreeMap<Fault, u64>,
    pub(crate) leader_kills: u64,
}

impl Faults {
    /// Makes the faults; what is done goes to a log, too.
    pub(crate) fn new(seed: u64, network: Network, volumes: Vec<Volume>, log: &Path) -> Result<Self> {
        let dice = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (deck, struck, counts, log) = (vec![], vec![], BTreeMap::new(), File::create(log)?);
        let begun = Instant::now();
        Ok(Self { dice, deck, struck, network, volumes, wiped: None, log, begun, counts, leader_kills: 0 })
    }

    /// One fault after the other for this long; then everything is put right.
    pub(crate) async fn run(&mut self, cluster: &mut Cluster, lasting: Duration) -> Result<()> {
        let end = Instant::now() + lasting;
        while Instant::now() < end {
            let fault = self.draw();
            self.strike(cluster, fault).await?;
            let next = Instant::now() + Duration::from_millis(self.dice.random_range(UNTIL_NEXT));
            while let Some(cured) = self.struck.iter().map(|struck| struck.until).min().filter(|until| *until <= next) {
                tokio::time::sleep_until(cured.into()).await;
                self.cure(cluster, cured)?;
            }
            tokio::time::sleep_until(next.into()).await;
        }
        self.cure_all(cluster)
    }

    pub(crate) fn cure_all(&mut self, cluster: &mut Cluster) -> Result<()> {
        let last = self.struck.iter().map(|struck| struck.until).max();
        last.map_or(Ok(()), |last| self.cure(cluster, last))
    }

    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = DECK.iter().flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count)).collect();
            self.deck.shuffle(&mut self.dice);
        }
        self.deck.pop().unwrap_or(Fault::KillAll)
    }

    /// Ends what has lasted until then.
    fn cure(&mut self, cluster: &mut Cluster, now: Instant) -> Result<()> {
        for struck in self.struck.extract_if(.., |struck| struck.until <= now) {
            let (at, node) = (self.begun.elapsed(), struck.node.map_or("", |node| self.network.name(node)));
            writeln!(self.log, "{at:.1?}   {:?} {node}", struck.cure)?;
            match (struck.cure, struck.node) {
                (Cure::Start, Some(node)) => cluster.start_node(node),
                (Cure::Continue, Some(node)) => cluster.signal(node, "CONT"),
                (Cure::Fast, Some(node)) => self.network.fast(node)?,
                (Cure::Empty, Some(node)) => self.volumes[node].empty()?,
                (Cure::Join(cuts), _) => {
                    cuts.into_iter().try_for_each(|(from, to)| self.network.join(from, to))?;
                }
                (Cure::StartController, _) => cluster.start_controller(0)?,
                (Cure::EndController, _) => cluster.kill_controller(1),
                (Cure::Start | Cure::Continue | Cure::Fast | Cure::Empty, None) => {}
            }
        }
        Ok(())
    }

    /// A node that is well, if one may be struck now.
    async fn pick(&mut self, cluster: &Cluster, whom: Whom) -> Option<usize> {
        let struck: Vec<_> = self.struck.iter().filter_map(|struck| struck.node).collect();
        if struck.len() >= STRUCK_MAX {
            return None;
        }
        let leader = cluster.leader().await.map(|leader| leader.node);
        let well = |node: &usize| !struck.contains(node);
        match whom {
            Whom::Leader => leader.filter(well),
            Whom::Follower => {
                let nodes: Vec<_> = (0..cluster.len()).filter(|node| Some(*node) != leader).filter(well).collect();
                nodes.get(self.dice.random_range(0..nodes.len().max(1))).copied()
            }
        }
    }

    /// Returns whether all replicas are voters and have what was acknowledged. That is known a while after the last loss only.
    async fn may_wipe(&self, cluster: &Cluster) -> bool {
        let is_long_ago = self.wiped.is_none_or(|wiped| wiped.elapsed() > BETWEEN_WIPES);
        is_long_ago && cluster.whole(&cluster.status().await).is_some()
    }

    async fn strike(&mut self, cluster: &mut Cluster, fault: Fault) -> Result<()> {
        let node = match fault {
            Fault::Kill(whom)
            | Fault::Pause(whom)
            | Fault::Cut(whom, _)
            | Fault::CutOne(whom, _)
            | Fault::Slow(whom)
            | Fault::FullDisk(whom)
            | Fault::Wipe(whom) => match self.pick(cluster, whom).await {
                // Nobody leads, or enough is broken already.
                None => return Ok(()),
                Some(_) if matches!(fault, Fault::Wipe(_)) && !self.may_wipe(cluster).await => return Ok(()),
                Some(node) => Some(node),
            },
            Fault::KillAll if self.struck.iter().any(|struck| struck.node.is_some()) => return Ok(()),
            Fault::KillController | Fault::SecondController
                if self.struck.iter().any(|struck| struck.node.is_none()) =>
            {
                return Ok(());
            }
            Fault::KillAll | Fault::KillController | Fault::SecondController => None,
        };
        let at = self.begun.elapsed();
        writeln!(self.log, "{at:.1?} {fault:?} {}", node.map_or("", |node| self.network.name(node)))?;
        let cure = self.begin(cluster, fault, node).await?;
        *self.counts.entry(fault).or_default() += 1;
        let until = Instant::now() + Duration::from_millis(self.dice.random_range(LASTS));
        match fault {
            Fault::KillAll => {
                let all = (0..cluster.len()).map(|node| Struck { node: Some(node), cure: Cure::Start, until });
                self.struck.extend(all);
            }
            _ => self.struck.push(Struck { node, cure, until }),
        }
        Ok(())
    }

    async fn begin(&mut self, cluster: &mut Cluster, fault: Fault, node: Option<usize>) -> Result<Cure> {
        let at = node.unwrap_or_default();
        Ok(match fault {
            Fault::Kill(whom) => {
                self.leader_kills += u64::from(whom == Whom::Leader);
                cluster.kill(at);
                Cure::Start
            }
            Fault::KillAll => {
                self.leader_kills += u64::from(cluster.leader().await.is_some());
                (0..cluster.len()).for_each(|node| cluster.kill(node));
                Cure::Start
            }
            Fault::Pause(_) => {
                cluster.signal(at, "STOP");
                Cure::Continue
            }
            Fault::Cut(_, way) => self.cut(at, (0..self.network.hosts()).filter(|other| *other != at), way)?,
            Fault::CutOne(_, way) => {
                let other = (at + self.dice.random_range(1..cluster.len())) % cluster.len();
                self.cut(at, std::iter::once(other), way)?
            }
            Fault::Slow(_) => {
                self.network.slow(at, SLOW_KBIT)?;
                Cure::Fast
            }
            Fault::FullDisk(_) => {
                self.volumes[at].fill()?;
                Cure::Empty
            }
            Fault::Wipe(whom) => {
                self.leader_kills += u64::from(whom == Whom::Leader);
                self.wiped = Some(Instant::now());
                cluster.kill(at);
                std::fs::remove_dir_all(self.volumes[at].data())?;
                Cure::Start
            }
            Fault::KillController => {
                cluster.kill_controller(0);
                Cure::StartController
            }
            Fault::SecondController => {
                cluster.start_controller(1)?;
                Cure::EndController
            }
        })
    }

    /// Gives all replicas the disks that they had a while before: what was acknowledged meanwhile is lost.
    pub(crate) async fn roll_back(&self, cluster: &mut Cluster) -> Result<()> {
        let replace = |from: &str, to: &str| {
            self.volumes.iter().try_for_each(|volume| {
                let (data, before) = (volume.data(), volume.data().with_extension("before"));
                let path = |name| if name == "data" { &data } else { &before };
                drop(std::fs::remove_dir_all(path(to)));
                let (from, to) = (path(from).to_string_lossy(), path(to).to_string_lossy());
                run("cp", &["-a", &from, &to])
            })
        };
        for (from, to) in [("data", "before"), ("before", "data")] {
            (0..cluster.len()).for_each(|node| cluster.kill(node));
            replace(from, to)?;
            (0..cluster.len()).for_each(|node| cluster.start_node(node));
            cluster.expect_leader(ROLLED_BACK_WITHIN).await?;
            tokio::time::sleep(ROLLED_BACK).await;
        }
        Ok(())
    }

    fn cut(&self, node: usize, others: impl Iterator<Item = usize>, way: Way) -> Result<Cure> {
        let cuts: Vec<_> = others
            .flat_map(|other| [(way != Way::In).then_some((node, other)), (way != Way::Out).then_some((other, node))])
            .flatten()
            .collect();
        cuts.iter().try_for_each(|(from, to)| self.network.cut(*from, *to))?;
        Ok(Cure::Join(cuts))
    }
}
