//! `zue dev`: a cluster on loopback in one process, kept in one directory.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::FutureExt as _;
use futures::future::{join_all, select_all, try_join_all};
use tokio::net::TcpListener;
use zue_controller::{FileStore, FileStoreError, NodeAddress, Turn};
use zue_node::RunningNode;
use zue_proto::v1::Role;

use crate::Usage;
use crate::serve::control::{Leadership, Turns, check};
use crate::serve::dev_tls::DevTls;
use crate::serve::node::{Replica, START_WAIT_MAX};
use crate::terminal::output::Out;
use crate::terminal::stop::Stop;

/// The file of the controller's record; its lock is the lock of the directory.
const CONTROL_FILE: &str = "control";
/// The number of replicas that the directory holds.
const REPLICAS_FILE: &str = "replicas";
const REPLICAS_BYTES_MAX: u64 = 64;
/// The most that there may be.
const REPLICAS_MAX: u16 = 9;
/// Once a leader is there, how long the others are waited for before it is told.
const FOLLOWERS_MAX: Duration = Duration::from_secs(3);
/// The interval of looks whether another process has let go: nothing tells.
const HELD_RETRY: Duration = Duration::from_millis(200);
/// The ports that clients use without being told.
const PORT_DEFAULT: u16 = 9440;

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The directory for the data; created if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The number of replicas; a new number adds or removes replicas, one by one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) replicas: u16,
    /// Replica i listens on PORT + 10 i for clients, + 1 for peers, + 2 for metrics; on loopback only
    #[arg(long, default_value_t = 9440, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// With TLS: make everything for it in the data directory, and print the flags that clients need
    #[arg(long)]
    pub(crate) tls: bool,
    #[command(flatten)]
    pub(crate) leadership: Leadership,
}

impl Dev {
    /// The address of one port of one replica: 0 for clients, 1 for peers, 2 for metrics.
    fn address(&self, ordinal: u16, port: u16) -> Option<SocketAddr> {
        let port = self.port.checked_add(ordinal.checked_mul(10)?)?.checked_add(port)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

pub(crate) async fn run(dev: Dev) -> anyhow::Result<()> {
    check(dev.replicas.into(), &dev.leadership)?;
    zue_node::raise_and_check_open_files();
    let mut stop = Stop::of_a_service().context("signals cannot be listened to")?;
    let (store, tls, replicas, mut nodes) = tokio::select! {
        started = start(&dev) => started?,
        _ = stop.asked() => return Ok(()),
    };
    let addresses = replicas.iter().map(address).collect();
    let dead = first_dead(&nodes, &replicas);
    let mut turns = Turns::new("zue dev", store, (addresses, tls.dial()?), dev.replicas.into(), &dev.leadership);
    let served = async {
        let leader = ready(&mut turns, dev.replicas.into()).await;
        // It serves whether or not somebody reads this.
        if let Err(error) = welcome(&dev, &tls, &replicas, &leader) {
            zue_telemetry::say(format!("{error:#}"));
        }
        shrink(&dev, &mut turns, &mut nodes).await?;
        turns.go_on().await;
        anyhow::Ok(())
    };
    let served = tokio::select! {
        served = served => served,
        dead = dead => Err(dead),
        _ = stop.asked() => Ok(()),
    };
    zue_telemetry::say("stopping");
    // Its connections would be waited for.
    drop(turns);
    tokio::select! {
        () = stop_all(nodes) => served,
        _ = stop.asked() => bail!("stopped without closing the logs cleanly"),
    }
}

/// Starts the nodes, once what ran here before has ended.
async fn start(dev: &Dev) -> anyhow::Result<(FileStore, DevTls, Vec<Replica>, Vec<RunningNode>)> {
    let free = Instant::now() + START_WAIT_MAX.0;
    let (store, made_for) = until_free(free, async || open(&dev.data, dev.replicas)).await?;
    // Replicas that are to go run on until they have given up their votes.
    let count = made_for.max(dev.replicas);
    let tls = DevTls::of(&dev.data, dev.tls);
    let replicas = replicas(dev, &tls, count)?;
    until_free(free, async || check_ports(&replicas).await).await?;
    claim(&dev.data, count)?;
    tls.make()?;
    let nodes = try_join_all(replicas.iter().map(Replica::start)).await?;
    Ok((store, tls, replicas, nodes))
}

/// Waits until a node has ended that was not told to, and says which and how.
fn first_dead(nodes: &[RunningNode], replicas: &[Replica]) -> impl Future<Output = anyhow::Error> + use<> {
    let dead = nodes.iter().zip(replicas).map(|(node, Replica { name, .. })| {
        let (name, ended) = (name.clone(), node.ended());
        Box::pin(async move { anyhow::anyhow!("{name}: {}, for a fault of this program", ended.await) })
    });
    select_all(dead).map(|(dead, ..)| dead)
}

/// Stops the replicas that are to go, once nothing depends on them. Their data stays.
async fn shrink(dev: &Dev, turns: &mut Turns, nodes: &mut Vec<RunningNode>) -> anyhow::Result<()> {
    let wished = usize::from(dev.replicas);
    if nodes.len() <= wished {
        return Ok(());
    }
    while turns.next().await.needed > wished {}
    turns.keep(wished);
    stop_all(nodes.split_off(wished)).await;
    claim(&dev.data, dev.replicas)?;
    let (left, data) = (dev.replicas, dev.data.display());
    zue_telemetry::say(format!("{left} replicas are left; the data of the others stays in {data}"));
    Ok(())
}

/// The leader first, so that it does not miss its followers.
async fn stop_all(nodes: Vec<RunningNode>) {
    let (leaders, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(RunningNode::leads);
    join_all(leaders.into_iter().map(RunningNode::stop)).await;
    join_all(others.into_iter().map(RunningNode::stop)).await;
}

fn replicas(dev: &Dev, tls: &DevTls, count: u16) -> anyhow::Result<Vec<Replica>> {
    let one = |ordinal: u16| {
        let name = format!("zue-{ordinal}");
        let address = |port| {
            let too_high = || Usage(format!("--port {} leaves no ports for {count} replicas", dev.port));
            dev.address(ordinal, port).ok_or_else(too_high)
        };
        let data_dir = dev.data.join(&name);
        Ok(Replica {
            name,
            data_dir,
            client: address(0)?,
            peer: address(1)?,
            metrics: address(2)?,
            detection_time: dev.leadership.detection_time,
            tls: tls.settings(),
        })
    };
    (0..count).map(one).collect()
}

fn address(replica: &Replica) -> NodeAddress {
    NodeAddress {
        name: replica.name.clone(),
        peer_address: replica.peer.to_string(),
        dial_address: None,
        last_address: None,
        replica: None,
        client_address: replica.client.to_string(),
    }
}

/// Another process has it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct HeldByAnother(String);

/// Tries until another process has let go, or that takes too long.
async fn until_free<T>(end: Instant, mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut has_told = false;
    loop {
        let tried = attempt().await;
        match &tried {
            Err(error) if error.is::<HeldByAnother>() && Instant::now() < end => {
                if !has_told {
                    zue_telemetry::say(format!("{error}: waiting up to {START_WAIT_MAX} until it is free"));
                }
                has_told = true;
                tokio::time::sleep(HELD_RETRY).await;
            }
            _ => return tried,
        }
    }
}

/// Makes the directory, or takes one that was made before, and locks it. Says for how many replicas it was made.
fn open(dir: &Path, replicas: u16) -> anyhow::Result<(FileStore, u16)> {
    let cannot = || format!("{} cannot be used", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(cannot)?;
    let is_ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(CONTROL_FILE);
    let path = dir.join(REPLICAS_FILE);
    let made_for = match zue_log::read_text(&path, REPLICAS_BYTES_MAX) {
        Ok(text) => text.trim().parse::<u16>().ok().filter(|count| (1..=REPLICAS_MAX).contains(count)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in fs::read_dir(dir).with_context(cannot)? {
                if !is_ours(&entry.with_context(cannot)?.file_name()) {
                    bail!("{} holds other files: choose a new or an empty directory for --data", dir.display());
                }
            }
            Some(replicas)
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let store = FileStore::open(dir.join(CONTROL_FILE)).map_err(|error| match error {
        FileStoreError::InUse(_) => HeldByAnother(format!("{} is in use by another `zue dev`", dir.display())).into(),
        error => anyhow::Error::new(error),
    })?;
    let made_for =
        made_for.with_context(|| format!("{}: a number from 1 to {REPLICAS_MAX} is expected", path.display()))?;
    Ok((store, made_for))
}

/// Writes down for how many replicas the directory is made.
fn claim(dir: &Path, replicas: u16) -> anyhow::Result<()> {
    let path = dir.join(REPLICAS_FILE);
    let mut options = fs::File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{replicas}\n").as_bytes()));
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Before anything is written, so that a port in use has no other effect than being told.
async fn check_ports(replicas: &[Replica]) -> anyhow::Result<()> {
    for Replica { name, client, peer, metrics, .. } in replicas {
        for (address, what) in [(client, "clients"), (peer, "peers"), (metrics, "metrics")] {
            if let Err(error) = TcpListener::bind(address).await {
                let is_held = error.kind() == io::ErrorKind::AddrInUse;
                let holder = if is_held { zue_node::port_holder(*address) } else { String::new() };
                let why =
                    format!("{name} cannot listen on {address} for {what}: {error}{holder}; choose another --port");
                return Err(if is_held { HeldByAnother(why).into() } else { anyhow::Error::msg(why) });
            }
        }
    }
    Ok(())
}

/// Waits for a leader, and a little for its followers; its name.
async fn ready(turns: &mut Turns, replicas: usize) -> String {
    let mut led_since = None;
    loop {
        let Turn { nodes, .. } = turns.next().await;
        let Some(leader) = nodes.iter().flatten().find(|status| status.role() == Role::Leader) else { continue };
        let since = *led_since.get_or_insert_with(Instant::now);
        if leader.isr.len() >= replicas || since.elapsed() > FOLLOWERS_MAX {
            return leader.name.clone();
        }
    }
}

fn welcome(dev: &Dev, tls: &DevTls, replicas: &[Replica], leader: &str) -> anyhow::Result<()> {
    let zue = std::env::args().next().unwrap_or_else(|| "zue".to_owned());
    let mut out = Out::new();
    let mut say = |text: String| out.line(text.as_bytes());
    let wished = usize::from(dev.replicas);
    let ready = if wished == 1 { "1 replica is ready".to_owned() } else { format!("{wished} replicas are ready") };
    say(format!("{ready}, {leader} leads; data in {}", dev.data.display()))?;
    for Replica { name, client, peer, metrics, .. } in replicas.iter().take(wished) {
        say(format!("  {name}  clients {client}  peers {peer}  http://{metrics}/metrics"))?;
    }
    say("In another terminal:".to_owned())?;
    if replicas.len() > wished {
        say(format!("{} more run until they have given up their votes", replicas.len() - wished))?;
    }
    let found_by_default = dev.port == PORT_DEFAULT && dev.replicas <= 3;
    if !found_by_default {
        let servers: Vec<String> = replicas.iter().take(wished).map(|replica| replica.client.to_string()).collect();
        say(format!("  export ZUE_SERVERS={}", servers.join(",")))?;
    }
    for line in tls.exports() {
        say(format!("  {line}"))?;
    }
    for command in ["append hello", "read", "tail -f", "status"] {
        say(format!("  {zue} {command}"))?;
    }
    say("Ctrl-C stops it; the data stays.".to_owned())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_directory_knows_how_many_replicas_it_holds_and_is_for_one_process() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("new");
        let (store, made_for) = open(&dir, 3).unwrap();
        assert_eq!(made_for, 3);
        claim(&dir, 3).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(REPLICAS_FILE))), (0o700, 0o600));
        assert!(open(&dir, 3).unwrap_err().to_string().contains("in use by another `zue dev`"));
        drop(store);
        assert_eq!(open(&dir, 5).unwrap().1, 3);
        fs::write(dir.join(REPLICAS_FILE), "10\n").unwrap();
        let error = open(&dir, 3).unwrap_err().to_string();
        assert!(error.contains("a number from 1 to 9 is expected"), "{error}");
    }

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years").unwrap();
        assert!(open(dir.path(), 3).unwrap_err().to_string().contains("holds other files"));
    }

    #[test]
    fn ports_beyond_the_last_are_wrong_use() {
        let cli = Cli::try_parse_from("zue dev --data d --replicas 3 --port 65520".split(' ')).unwrap();
        let Command::Dev(dev) = cli.command else { panic!() };
        assert!(replicas(&dev, &DevTls::of(&dev.data, false), 3).err().unwrap().is::<Usage>());
    }
}
