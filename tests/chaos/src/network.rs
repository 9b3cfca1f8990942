//! One network of namespaces on a bridge, in which packets can be lost one way and links can be slow. The addresses of the link are
//! fixed, so that a cut is an entry that leads nowhere.

use std::fmt::Write as _;

use anyhow::Result;

use crate::world::{feed, run};

/// A host by its number; the program itself is none of them and reaches all of them.
pub(crate) type HostId = usize;

const NOWHERE: &str = "02:00:00:00:ff:ff";

#[derive(Debug)]
pub(crate) struct Network {
    names: Vec<String>,
}

pub(crate) fn address(host: HostId) -> String {
    format!("10.9.0.{}", host + 1)
}

fn link(host: HostId) -> String {
    format!("02:00:00:00:00:{:02x}", host + 1)
}

impl Network {
    /// Namespaces of these names.
    pub(crate) fn new(names: Vec<String>) -> Result<Self> {
        let mut batch = String::from(
            "link add bridge type bridge\n\
             link set bridge address 02:00:00:00:00:fe up\n\
             addr add 10.9.0.254/24 dev bridge\n",
        );
        for (host, name) in names.iter().enumerate() {
            run("ip", &["netns", "add", name])?;
            let (link, address) = (link(host), address(host));
            let _ = write!(
                batch,
                "link add host{host} type veth peer name eth0 address {link} netns {name}\n\
                 link set host{host} master bridge up\n\
                 neigh replace {address} lladdr {link} dev bridge nud permanent\n"
            );
        }
        feed("ip", &["-batch", "-"], &batch)?;
        for (host, name) in names.iter().enumerate() {
            let mut batch = format!(
                "link set lo up\n\
                 addr add {}/24 dev eth0\n\
                 link set eth0 up\n\
                 neigh replace 10.9.0.254 lladdr 02:00:00:00:00:fe dev eth0 nud permanent\n",
                address(host)
            );
            for other in (0..names.len()).filter(|other| *other != host) {
                let _ = writeln!(batch, "{}", neighbour(other, &link(other)));
            }
            feed("ip", &["-n", name, "-batch", "-"], &batch)?;
        }
        Ok(Self { names })
    }

    pub(crate) fn name(&self, host: HostId) -> &str {
        &self.names[host]
    }

    pub(crate) fn hosts(&self) -> usize {
        self.names.len()
    }

    /// From now on nothing that `from` sends arrives at `to`.
    pub(crate) fn cut(&self, from: HostId, to: HostId) -> Result<()> {
        feed("ip", &["-n", self.name(from), "-batch", "-"], &neighbour(to, NOWHERE))
    }

    /// Everything arrives again.
    pub(crate) fn join(&self, from: HostId, to: HostId) -> Result<()> {
        feed("ip", &["-n", self.name(from), "-batch", "-"], &neighbour(to, &link(to)))
    }

    /// The host sends and receives this much at most.
    pub(crate) fn slow(&self, host: HostId, kbit: u64) -> Result<()> {
        let rate = format!("{kbit}kbit");
        let shape = ["root", "tbf", "rate", &rate, "burst", "32kb", "latency", "300ms"];
        let device = format!("host{host}");
        run("tc", &[&["-n", self.name(host), "qdisc", "replace", "dev", "eth0"][..], &shape].concat())?;
        run("tc", &[&["qdisc", "replace", "dev", &device][..], &shape].concat())
    }

    pub(crate) fn fast(&self, host: HostId) -> Result<()> {
        run("tc", &["-n", self.name(host), "qdisc", "del", "dev", "eth0", "root"])?;
        run("tc", &["qdisc", "del", "dev", &format!("host{host}"), "root"])
    }
}

fn neighbour(host: HostId, link: &str) -> String {
    format!("neigh replace {} lladdr {link} dev eth0 nud permanent", address(host))
}
