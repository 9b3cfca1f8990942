//! `zue tls`: authorities, certificates and tokens for nodes that are started by hand, and for `zue dev --tls`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use zue_tls::{Authority, Cluster, Identity, Insecure, Issued, Kind, Names, NewToken, Role};

use crate::Usage;
use crate::terminal::output;

const DAY: Duration = Duration::from_hours(24);
/// The lifetime of what is issued, unless something else is asked for.
const LEAF_DAYS: u32 = 90;
const AUTHORITY_DAYS: u32 = 3650;
const DAYS_MAX: i64 = 36_500;

/// Of connections to nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Mode {
    Required,
    Permissive,
}

impl Mode {
    pub(crate) fn insecure(self) -> Insecure {
        match self {
            Self::Required => Insecure::Never,
            Self::Permissive => Insecure::IfNeeded,
        }
    }
}

const EXAMPLE: &str = "\
Example:
  zue tls init ./authorities --cluster default/my-log
  zue tls issue ./authorities node --name zue-0.example.com --name 10.0.0.1 --out ./node
  zue tls issue ./authorities controller --out ./controller
  zue tls issue ./authorities client shop --out ./shop
  zue tls token --out ./token
The clients and what they may do are named in the file that --access-file of the nodes gives:
  clients:
  - {name: shop, rights: [append, read]}
  - {name: till, rights: [append], tokenSha256: [HASH]}";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLE)]
pub(crate) enum Tls {
    /// Make the two authorities of a cluster: one signs its nodes and controllers, the other its clients. Keep the folder from others
    Init(Init),
    /// Issue a certificate, and write it to a folder with its key and the trusted authorities
    Issue(Issue),
    /// Make a token for a client that has no certificate, and print the hash for the nodes
    Token(Token),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder for the authorities; created if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The cluster: two names, as of a namespace and a resource
    #[arg(long, value_name = "NAMESPACE/NAME")]
    cluster: Cluster,
    /// The validity of the authorities
    #[arg(long, default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The folder of the authorities
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    to: To,
}

#[derive(Debug, Subcommand)]
enum To {
    /// For all nodes, or for one
    Node {
        /// A name or address by which clients reach it; may be repeated
        #[arg(long, value_name = "HOST")]
        name: Vec<String>,
        #[command(flatten)]
        out: Out,
    },
    /// For `zue control`
    Controller {
        #[command(flatten)]
        out: Out,
    },
    /// For a client
    Client {
        /// Its name in the list of clients
        client: String,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Args)]
struct Out {
    /// The folder to write to; created if missing. Existing files of these names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The validity of the certificate
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The file to write the token to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(tls: Tls) -> anyhow::Result<()> {
    match tls {
        Tls::Init(Init { dir, cluster, days }) => {
            if dir.join("cluster").exists() {
                bail!("{} holds authorities already: to make others, choose another folder", dir.display());
            }
            Authorities::make(&dir, &cluster, DAY * days)?;
            output::line(&format!(
                "the authorities of {cluster} are in {}: anyone who can read them can pass for any node or client",
                dir.display()
            ))
        }
        Tls::Issue(Issue { dir, to }) => issue(&Authorities::load(&dir)?, to),
        Tls::Token(Token { out }) => {
            let token = NewToken::make()?;
            write(&out, &format!("{}\n", token.text))?;
            output::line(&token.sha256)
        }
    }
}

fn issue(authorities: &Authorities, to: To) -> anyhow::Result<()> {
    let (identity, names, out) = match to {
        To::Node { name, out } => (authorities.cluster.identity(Role::Node), Names::parse(&name), out),
        To::Controller { out } => (authorities.cluster.identity(Role::Controller), Names::default(), out),
        To::Client { client, out } => {
            let identity = authorities.cluster.client(&client).map_err(|bad| Usage(bad.to_string()))?;
            (identity, Names::default(), out)
        }
    };
    authorities.give(&identity, &names, DAY * out.days, &out.out)?;
    output::line(&format!("{identity} is in {}", out.out.display()))
}

/// The authorities of a cluster, in a folder.
pub(crate) struct Authorities {
    pub(crate) cluster: Cluster,
    peers: Authority,
    clients: Authority,
}

const KINDS: [(Kind, &str); 2] = [(Kind::Peer, "peer-ca"), (Kind::Client, "client-ca")];

impl Authorities {
    pub(crate) fn make(dir: &Path, cluster: &Cluster, life: Duration) -> anyhow::Result<Self> {
        make_dir(dir)?;
        for (kind, name) in KINDS {
            let authority = Authority::new(kind, cluster, life)?;
            write(&dir.join(format!("{name}.key")), &authority.key())?;
            write(&dir.join(format!("{name}.crt")), authority.certificate())?;
        }
        // What is there last says that all of it is.
        write(&dir.join("cluster"), &format!("{cluster}\n"))?;
        Self::load(dir)
    }

    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let path = dir.join(name);
            let bytes = zue_tls::read_text(&path)?;
            String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
        };
        let cluster = text("cluster").context("there are no authorities: `zue tls init` makes them")?;
        let authority = |(kind, name): (Kind, &str)| {
            let (certificate, key) = (text(&format!("{name}.crt"))?, text(&format!("{name}.key"))?);
            Authority::load(kind, &certificate, &key).with_context(|| format!("{}", dir.join(name).display()))
        };
        let [peers, clients] = KINDS;
        Ok(Self { cluster: cluster.trim().parse()?, peers: authority(peers)?, clients: authority(clients)? })
    }

    /// Gives somebody a certificate, in a folder as it is read there.
    pub(crate) fn give(&self, identity: &Identity, names: &Names, life: Duration, out: &Path) -> anyhow::Result<()> {
        make_dir(out)?;
        let (authority, bundles): (_, &[(&str, &Authority)]) = match identity.role {
            Role::Node => (&self.peers, &[("peer-ca.crt", &self.peers), ("client-ca.crt", &self.clients)]),
            Role::Controller => (&self.peers, &[("peer-ca.crt", &self.peers)]),
            Role::Client(_) => (&self.clients, &[("ca.crt", &self.peers)]),
        };
        let Issued { certificate, key } = authority.issue(identity, names, life)?;
        for (name, authority) in bundles {
            write(&out.join(name), authority.certificate())?;
        }
        write(&out.join("tls.key"), &key)?;
        write(&out.join("tls.crt"), &certificate)
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("{} cannot be made", dir.display()))
}

/// Replaces a file as a whole; for its owner alone.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}
