//! Round by round, cell by cell, build by build: three nodes on empty folders, the load beside them, and what both have taken.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::cells::{self, Cell, Kind};
use super::counters::{Counters, Taken};
use super::floor;
use super::load::{Outcome, READY};
use super::report::Report;
use crate::cluster::{Cluster, Secured};

/// For what must come, beside what was asked for: nodes that lead, a log that is filled, an answer.
const WITHIN: Duration = Duration::from_mins(1);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Cells to measure, by words with commas between: lat, clients64, tasks64, pipe, read; 100B, 1KiB; Sync, Os [default: all]
    #[arg(long, default_value = "", hide_default_value = true)]
    cells: String,
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Time for which a cell is measured in a round
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(100..))]
    millis: u64,
    /// The folder with the programs of another build, which is named as it is: measured in turns with this one
    #[arg(long)]
    base: Option<PathBuf>,
    /// This build once without TLS and once with it, in turns
    #[arg(long, conflicts_with = "base")]
    tls: bool,
    /// Beside the same messages in bare tonic, without a log, in turns
    #[arg(long, conflicts_with_all = ["base", "tls"])]
    floor: bool,
}

/// What is measured of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nodes,
    NodesWithTls,
    Floor,
}

/// Programs of one commit.
pub(crate) struct Build {
    pub(crate) name: String,
    pub(crate) commit: String,
    /// The folder of its nodes and its controller; none for those beside this program.
    programs: PathBuf,
    /// Its load, if it has one, else this program's.
    load: PathBuf,
    what: What,
}

/// The result of one cell in one round.
pub(crate) struct Found {
    pub(crate) round: u64,
    /// The build.
    pub(crate) build: usize,
    pub(crate) cell: Cell,
    pub(crate) outcome: Outcome,
    pub(crate) taken: Taken,
}

pub(crate) async fn run(dir: &Path, Options { cells, rounds, millis, base, tls, floor }: Options) -> Result<()> {
    let mut cells = cells::select(&cells)?;
    // The floor holds no records.
    cells.retain(|cell| !floor || cell.kind != Kind::Read);
    let builds = match base {
        Some(base) => vec![Build::base(&base)?, Build::this()?],
        None if tls => vec![Build { name: "off".to_owned(), ..Build::this()? }, Build::with_tls()?],
        None if floor => vec![Build::floor()?, Build::this()?],
        None => vec![Build::this()?],
    };
    let mut report = Report::new(builds, rounds, millis);
    for round in 0..rounds {
        for cell in &cells {
            // Neither build always goes first: what the one leaves to the disk is felt by the other.
            let order = 0..report.builds.len();
            let order: Vec<usize> = if round % 2 == 0 { order.collect() } else { order.rev().collect() };
            for build in order {
                let of = report.builds.get(build).context("there is this build")?;
                match measure(&dir.join(format!("{round}-{build}")), of, *cell, millis).await {
                    Ok((outcome, taken)) => report.add(Found { round, build, cell: *cell, outcome, taken }),
                    Err(error) => report.fail(round, build, *cell, &error),
                }
            }
        }
    }
    report.write()
}

impl Build {
    fn this() -> Result<Self> {
        let git = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
        let git = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let commit = if git.is_empty() { "this tree".to_owned() } else { git };
        let load = std::env::current_exe()?;
        Ok(Self { name: "zue".to_owned(), commit, programs: PathBuf::new(), load, what: What::Nodes })
    }

    fn with_tls() -> Result<Self> {
        Ok(Self { name: "tls".to_owned(), what: What::NodesWithTls, ..Self::this()? })
    }

    fn floor() -> Result<Self> {
        Ok(Self { name: "floor".to_owned(), what: What::Floor, ..Self::this()? })
    }

    fn base(folder: &Path) -> Result<Self> {
        let programs = folder.canonicalize().with_context(|| format!("no programs in {}", folder.display()))?;
        for program in ["zue-node", "zue"] {
            ensure!(programs.join(program).exists(), "{} holds no {program}", programs.display());
        }
        let own = programs.join("zue-chaos");
        let asked = Command::new(&own).args(["load", "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let load = if asked.is_ok_and(|status| status.success()) { own } else { std::env::current_exe()? };
        let commit = programs.file_name().unwrap_or_default().to_string_lossy().chars().take(9).collect();
        Ok(Self { name: "base".to_owned(), commit, programs, load, what: What::Nodes })
    }

    pub(crate) fn has_load(&self) -> bool {
        self.programs.as_os_str().is_empty() || self.load.starts_with(&self.programs)
    }
}

async fn measure(dir: &Path, build: &Build, cell: Cell, millis: u64) -> Result<(Outcome, Taken)> {
    std::fs::create_dir(dir)?;
    if build.what == What::Floor {
        let floor = floor::Servers::start(dir);
        let load = Load::start(&build.load, &floor.servers(), None, cell, millis)?;
        let found = load.measure(|| floor.processes(), dir, millis).await?;
        std::fs::remove_dir_all(dir)?;
        return Ok(found);
    }
    let config = format!("log: {{durability: {}}}\n", cell.durability.name());
    let secured = (build.what == What::NodesWithTls).then(Secured::new);
    let cluster = Cluster::of_build((&build.programs, secured), dir, &config).await?;
    let leader = cluster.expect_whole(WITHIN).await?;
    let load = Load::start(&build.load, &cluster.servers(), cluster.of_client(), cell, millis)?;
    let found = load.measure(|| cluster.processes(), dir, millis).await?;
    let after = cluster.expect_whole(WITHIN).await?;
    ensure!(
        leader == after,
        "the leader changed, so this is no figure: {} in epoch {}, then {} in epoch {}",
        cluster.name(leader.node),
        leader.epoch,
        cluster.name(after.node),
        after.epoch
    );
    drop(cluster);
    std::fs::remove_dir_all(dir)?;
    Ok(found)
}

/// The load, a process of its own.
struct Load {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Load {
    fn start(program: &Path, servers: &[String], tls: Option<[PathBuf; 3]>, cell: Cell, millis: u64) -> Result<Self> {
        let mut command = tokio::process::Command::new(program);
        command.args(["load", "--servers", &servers.join(","), "--kind", cell.kind.name()]);
        if let Some([ca, cert, key]) = tls {
            command.arg("--ca").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
        }
        command.args(["--bytes", &cell.bytes.to_string(), "--millis", &millis.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let input = child.stdin.take().context("its input is piped")?;
        let lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        Ok(Self { child, input, lines })
    }

    /// Lets it go on for so long; what it says, and what the servers have taken meanwhile.
    async fn measure<P: Iterator<Item = u32>>(
        mut self,
        processes: impl Fn() -> P,
        dir: &Path,
        millis: u64,
    ) -> Result<(Outcome, Taken)> {
        self.expect_ready().await?;
        let before = Counters::now(processes(), dir)?;
        self.begin().await?;
        let outcome = self.outcome(Duration::from_millis(millis) + WITHIN).await?;
        let taken = Counters::now(processes(), dir)?.since(&before);
        ensure!(outcome.records > 0, "no record was acknowledged, {} failed: {:?}", outcome.failed, outcome.why);
        Ok((outcome, taken))
    }

    async fn line(&mut self, within: Duration) -> Result<String> {
        let line = timeout(within, self.lines.next_line()).await;
        let line = line.with_context(|| format!("the load says nothing for {within:?}"))??;
        line.context("the load ended before it was done; what it said is above")
    }

    async fn expect_ready(&mut self) -> Result<()> {
        let line = self.line(WITHIN).await?;
        ensure!(line == READY, "the load says {line:?}, not {READY:?}");
        Ok(())
    }

    async fn begin(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n").await?)
    }

    async fn outcome(mut self, within: Duration) -> Result<Outcome> {
        let line = self.line(within).await?;
        let status = timeout(WITHIN, self.child.wait()).await.context("the load does not end")??;
        ensure!(status.success(), "the load ended with {status}");
        serde_json::from_str(&line).with_context(|| format!("the load says {line:?}"))
    }
}
