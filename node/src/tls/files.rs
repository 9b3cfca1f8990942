//! The files, read one by one. A valid file counts even if another one is broken, so a broken file cannot hold up a revocation in
//! another. A file that is invalid, or does not fit the others, is reported, and its former content stays in force.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use zue_engine::room::full;

use zue_tls::{Bundle, Cluster, DialError, FileError, Leaf, Role, Usage};

use super::access::{Access, AccessError};
use super::credentials::TlsError;
use super::file::File;

/// A node's certificate serves others, and opens connections to them.
const USAGES: [Usage; 2] = [Usage::Server, Usage::Client];

/// The places of the files.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) folder: PathBuf,
    pub(super) access: Option<PathBuf>,
}

/// The content of the files.
#[derive(Clone, Debug)]
pub(super) struct FileContents {
    pub(super) leaf: Leaf,
    /// Each believes nobody by way of the other.
    pub(super) peers: Bundle,
    pub(super) clients: Bundle,
    pub(super) access: Access,
}

/// Why what some of them say now does not count.
pub(super) type Problems = BTreeMap<File, String>;

impl FileContents {
    pub(super) fn hashes(&self) -> [&str; 4] {
        [&self.leaf.sha256, &self.peers.sha256, &self.clients.sha256, &self.access.sha256]
    }
}

impl Places {
    /// Does something with the files beside the calls: it may wait for a disk, or for a network.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, TlsError> {
        let places = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&places)).await;
        done.map_err(|failed| DialError::Config(failed.to_string()).into())
    }

    fn leaf(&self, cluster: Option<&Cluster>) -> Result<Leaf, TlsError> {
        let (certificate, key) = (self.folder.join("tls.crt"), self.folder.join("tls.key"));
        let leaf = Leaf::read(&certificate, &key)?.expect(|role| *role == Role::Node, "a node")?;
        match cluster.filter(|cluster| leaf.cluster() != *cluster) {
            Some(ours) => Err(TlsError::OtherCluster {
                path: certificate,
                found: leaf.cluster().to_string(),
                ours: ours.to_string(),
            }),
            None => Ok(leaf),
        }
    }

    fn peers(&self) -> Result<Bundle, FileError> {
        Bundle::read(&self.folder.join("peer-ca.crt"))
    }

    fn clients(&self) -> Result<Bundle, FileError> {
        Bundle::read(&self.folder.join("client-ca.crt"))
    }

    fn access(&self, cluster: &Cluster) -> Result<Access, AccessError> {
        let access = self.access.as_ref().map(|path| Access::read(path, cluster)).transpose()?;
        Ok(access.unwrap_or_default())
    }

    /// Reads them at first: all of them have to be whole.
    pub(super) fn read_all(&self) -> Result<FileContents, TlsError> {
        let (leaf, peers, clients) = (self.leaf(None)?, self.peers()?, self.clients()?);
        leaf.check(&peers, &USAGES)?;
        let (peers, clients) = (peers.apart_from(&clients)?, clients.apart_from(&peers)?);
        let access = self.access(leaf.cluster())?;
        Ok(FileContents { leaf, peers, clients, access })
    }

    /// Reads them again, where they said this before.
    pub(super) fn read_again(&self, before: &FileContents) -> (FileContents, Problems) {
        let cluster = before.leaf.cluster();
        let found = NewContents { leaf: self.leaf(Some(cluster)), peers: self.peers(), clients: self.clients() };
        let (leaf, peers, clients, mut problems) = found.beside(before);
        let access = self.access(cluster).unwrap_or_else(|why| {
            problems.insert(File::Access, full(&why));
            before.access.clone()
        });
        (FileContents { leaf, peers, clients, access }, problems)
    }

    /// Changes whenever one of them is replaced, and mostly when it is written to.
    pub(super) fn look(&self) -> FileStamps {
        let names = ["tls.crt", "tls.key", "peer-ca.crt", "client-ca.crt"].map(|name| self.folder.join(name));
        let one = |path: &PathBuf| {
            let facts = |file: Metadata| -> Outside {
                (file.dev(), file.ino(), file.len(), [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
            };
            std::fs::metadata(path).ok().map(facts)
        };
        FileStamps(names.iter().chain(&self.access).map(one).collect())
    }
}

/// The file, its length, and when it was written to and changed last.
type Outside = (u64, u64, u64, [i64; 4]);

/// The files, seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileStamps(Vec<Option<Outside>>);

/// The new content of the files that have to go together.
struct NewContents {
    leaf: Result<Leaf, TlsError>,
    peers: Result<Bundle, FileError>,
    clients: Result<Bundle, FileError>,
}

impl NewContents {
    /// Each file's new content if it fits the others, else its former one. The authorities of the peers are judged first.
    fn beside(self, before: &FileContents) -> (Leaf, Bundle, Bundle, Problems) {
        let mut problems = Problems::new();
        let peers = whole(&mut problems, File::Peers, self.peers.map_err(TlsError::from));
        let clients = whole(&mut problems, File::Clients, self.clients.map_err(TlsError::from));
        let leaf = self.leaf.and_then(|leaf| believed(leaf, peers.as_ref(), before));
        let leaf = whole(&mut problems, File::Leaf, leaf);
        for peers_now in peers.iter().chain([&before.peers]) {
            let mut apart = clients.iter().chain([&before.clients]);
            let apart = apart.find_map(|one| Some((peers_now.apart_from(one).ok()?, one.apart_from(peers_now).ok()?)));
            // One's own certificate is kept, whoever believes it, where there is none that can be used: it holds up nothing.
            let goes_with = |own: &&Leaf| leaf.is_none() || own.check_in_its_time(peers_now, &USAGES).is_ok();
            let own = leaf.iter().chain([&before.leaf]).find(goes_with);
            let (Some((peers_now, clients_now)), Some(own)) = (apart, own) else { continue };
            let mut passed_over = |file, why: Option<FileError>| {
                let why = why.map_or_else(|| "it does not fit the other files".to_owned(), |why| full(&why));
                problems.insert(file, why);
            };
            if let Some(found) = peers.as_ref().filter(|found| found.sha256 != peers_now.sha256) {
                let why = own.check_in_its_time(found, &USAGES).err();
                passed_over(File::Peers, why.or_else(|| found.apart_from(&clients_now).err()));
            }
            if let Some(found) = clients.as_ref().filter(|found| found.sha256 != clients_now.sha256) {
                passed_over(File::Clients, found.apart_from(&peers_now).err());
            }
            if let Some(found) = leaf.as_ref().filter(|found| found.sha256 != own.sha256) {
                passed_over(File::Leaf, found.check(&peers_now, &USAGES).err());
            }
            return (own.clone(), peers_now, clients_now, problems);
        }
        let FileContents { leaf, peers, clients, access: _ } = before.clone();
        (leaf, peers, clients, problems)
    }
}

/// The content of a file that is whole; of one that is not, the problem is noted.
fn whole<T>(problems: &mut Problems, file: File, found: Result<T, TlsError>) -> Option<T> {
    found.map_err(|why| problems.insert(file, full(&why))).ok()
}

/// A node's own certificate, if those believe it who have the new bundle, or the one before.
fn believed(leaf: Leaf, peers: Option<&Bundle>, before: &FileContents) -> Result<Leaf, TlsError> {
    let by_new = peers.map(|peers| leaf.check(peers, &USAGES));
    if matches!(by_new, Some(Ok(()))) {
        return Ok(leaf);
    }
    let by_old = leaf.check(&before.peers, &USAGES);
    match by_new {
        Some(Err(why)) if by_old.is_err() => Err(why.into()),
        _ => by_old.map(|()| leaf).map_err(Into::into),
    }
}
