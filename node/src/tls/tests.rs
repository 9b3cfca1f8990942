//! The files that are in force, each for itself, and who is let in by them.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use tempfile::TempDir;
use zue_settings::{AccessSettings, TlsSettings};
use zue_tls::{Authority, Cluster, Issued, Kind, Names, NewToken, Role};

use super::files::Places;
use super::*;
use crate::server::owner::tests::owner;
use crate::server::slots::Slots;

const HOUR: Duration = Duration::from_hours(1);

/// The files of a node, and who signs them.
struct Made {
    folder: TempDir,
    cluster: Cluster,
    peers: Authority,
    clients: Authority,
}

impl Made {
    fn new() -> Self {
        let cluster = Cluster::new("test", "ours").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [peers, clients] =
            [Kind::Peer, Kind::Client].map(|kind| Authority::new(kind, &cluster, HOUR * 24).unwrap());
        let made = Self { folder, cluster, peers, clients };
        made.write("peer-ca.crt", made.peers.certificate());
        made.write("client-ca.crt", made.clients.certificate());
        made.write("access.yaml", "clients: [{name: shop, rights: [read]}]");
        made.give(&made.node(&made.peers, HOUR));
        made
    }

    fn node(&self, by: &Authority, life: Duration) -> Issued {
        by.issue(&self.cluster.identity(Role::Node), &Names::default(), life).unwrap()
    }

    fn give(&self, issued: &Issued) {
        self.write("tls.crt", &issued.certificate);
        self.write("tls.key", &issued.key);
    }

    fn write(&self, name: &str, text: impl AsRef<str>) {
        std::fs::write(self.folder.path().join(name), text.as_ref()).unwrap();
    }

    fn places(&self) -> Places {
        Places { folder: self.folder.path().to_owned(), access: Some(self.folder.path().join("access.yaml")) }
    }

    async fn kept(&self) -> Arc<Credentials> {
        let tls = TlsSettings { mode: TlsMode::Required, folder: None };
        let access = AccessSettings { file: self.places().access };
        Arc::new(Credentials::read(&tls, &access, self.folder.path()).await.unwrap())
    }
}

/// A connection that shows no certificate.
fn stranger() -> Arc<Caller> {
    Caller::of_test(owner(1, 1), &Slots::new(8), PresentedIdentity::Nobody)
}

fn other(kind: Kind, of: &Made) -> Authority {
    Authority::new(kind, &of.cluster, HOUR).unwrap()
}

#[test]
fn each_file_counts_for_itself_and_what_is_not_whole_of_one_holds_up_no_other() {
    // Of two certificates the second one is.
    let torn = |text: &str| text[..text.len() * 3 / 4].to_owned();
    let broken = ["tls.crt", "tls.key", "peer-ca.crt", "client-ca.crt", "access.yaml"];
    for name in broken {
        let made = Made::new();
        let before = made.places().read_all().unwrap();
        // All of them say something new, and one is torn.
        let (new_peers, new_clients) = (other(Kind::Peer, &made), other(Kind::Client, &made));
        made.write("peer-ca.crt", format!("{}{}", made.peers.certificate(), new_peers.certificate()));
        made.write("client-ca.crt", new_clients.certificate());
        made.write("access.yaml", "clients: []");
        made.give(&made.node(&made.peers, HOUR));
        let path = made.folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, if name == "access.yaml" { String::new() } else { torn(&text) }).unwrap();
        let (said, problems) = made.places().read_again(&before);
        let file = match name {
            "tls.crt" | "tls.key" => File::Leaf,
            "peer-ca.crt" => File::Peers,
            "client-ca.crt" => File::Clients,
            _ => File::Access,
        };
        assert_eq!(problems.keys().collect::<Vec<_>>(), [&file], "{name}: {problems:?}");
        assert!(problems.values().all(|why| why.contains(name)), "{problems:?}");
        for (one, (now, then)) in File::ALL.iter().zip(said.hashes().into_iter().zip(before.hashes())) {
            assert_eq!(now == then, *one == file, "{name} is torn, and of {one:?} counts what was there before or not");
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_used_does_not_hold_up_that_its_authority_is_gone() {
    let made = Made::new();
    let before = made.places().read_all().unwrap();
    let new = other(Kind::Peer, &made);
    made.write("peer-ca.crt", new.certificate());
    // Its own is of the authority that goes: a mistake, as long as it is whole.
    let (said, problems) = made.places().read_again(&before);
    assert_eq!((&said.peers.sha256, problems.len()), (&before.peers.sha256, 1), "{problems:?}");
    assert!(problems[&File::Peers].contains("is not trusted by the authorities in"), "{problems:?}");
    made.write("tls.key", "");
    let (said, problems) = made.places().read_again(&before);
    assert_eq!(problems.keys().collect::<Vec<_>>(), [&File::Leaf], "{problems:?}");
    assert_ne!(said.peers.sha256, before.peers.sha256);
    assert_eq!(said.leaf.sha256, before.leaf.sha256);
    // And so does one that is past its time.
    made.give(&made.node(&made.peers, Duration::ZERO));
    std::thread::sleep(Duration::from_millis(1100));
    let (said, problems) = made.places().read_again(&before);
    assert_eq!(problems.keys().collect::<Vec<_>>(), [&File::Leaf], "{problems:?}");
    assert_ne!(said.peers.sha256, before.peers.sha256);
    // The new one, with what it signed, counts at once.
    made.give(&made.node(&new, HOUR));
    let (said, problems) = made.places().read_again(&said);
    assert!(problems.is_empty() && said.leaf.sha256 != before.leaf.sha256, "{problems:?}");
}

#[test]
fn a_node_does_not_change_sides_while_it_runs() {
    let made = Made::new();
    let before = made.places().read_all().unwrap();
    let identity = Cluster::new("test", "theirs").unwrap().identity(Role::Node);
    made.give(&made.peers.issue(&identity, &Names::default(), HOUR).unwrap());
    made.write("access.yaml", "clients: []");
    let (said, problems) = made.places().read_again(&before);
    assert_eq!(said.leaf.cluster(), before.leaf.cluster());
    assert_ne!(said.access.sha256, before.access.sha256);
    let why = &problems[&File::Leaf];
    assert!(why.contains("is of a node of test/theirs, and this node is of test/ours"), "{why}");
    // One that is started with them is of theirs.
    assert_eq!(made.places().read_all().unwrap().leaf.cluster().to_string(), "test/theirs");
}

#[test]
fn the_two_kinds_of_authorities_stay_apart_whichever_file_mixes_them() {
    let made = Made::new();
    let before = made.places().read_all().unwrap();
    for (name, text, file) in [
        ("client-ca.crt", made.peers.certificate(), File::Clients),
        ("peer-ca.crt", &format!("{}{}", made.peers.certificate(), made.clients.certificate()), File::Peers),
    ] {
        let path = made.folder.path().join(name);
        let right = std::fs::read_to_string(&path).unwrap();
        made.write(name, text);
        let (said, problems) = made.places().read_again(&before);
        assert_eq!(problems.keys().collect::<Vec<_>>(), [&file], "{problems:?}");
        assert!(problems[&file].contains("hold the same authority"), "{problems:?}");
        assert_eq!(said.hashes(), before.hashes());
        made.write(name, right);
    }
}

#[tokio::test]
async fn nobody_is_let_in_by_a_token_that_is_revoked_while_it_is_looked_for() {
    let made = Made::new();
    let token = NewToken::make().unwrap();
    let list = format!("clients: [{{name: till, rights: [read], tokenSha256: [{}]}}]", token.sha256);
    made.write("access.yaml", list);
    let kept = made.kept().await;
    made.write("access.yaml", "clients: []");
    let (revoked, problems) = made.places().read_again(&kept.current.load().files);
    assert!(problems.is_empty(), "{problems:?}");
    let caller = stranger();
    let asked = || Asked {
        caller: Arc::clone(&caller),
        port: Port::Client,
        path: "/zue.v1.Log/Read".to_owned(),
        need: Some(Need::Read),
        token: Some(Ok(zue_tls::sha256(token.text.as_bytes()))),
    };
    let replaced = std::cell::Cell::new(false);
    let (party, generation) = kept.settled(|current| {
        let party = asked().party(TlsMode::Required, current);
        // It is found just before it goes.
        if !replaced.replace(true) {
            assert!(matches!(party, Ok(Some(Party::Client(_)))), "{party:?}");
            kept.take(revoked.clone()).unwrap();
        }
        party
    });
    let why = party.expect_err("it is revoked");
    assert_eq!((why.reason(), generation), (Reason::Unauthenticated, 1), "{why:?}");
    // What was let in just before is found out, though nothing changes after it.
    let call_right = CallRight::of(&kept, asked(), 0);
    assert_eq!(call_right.check().unwrap_err().reason(), Reason::Unauthenticated);
    let why = call_right.lost().now_or_never().expect("it ends at once");
    assert!(why.message.contains("was revoked"), "{why:?}");
}

#[tokio::test]
async fn a_call_goes_on_while_what_it_stands_on_is_there_whatever_else_is_replaced() {
    let made = Made::new();
    let token = NewToken::make().unwrap();
    let list = |rights: &str| {
        let list = format!("clients: [{{name: till, rights: {rights}, tokenSha256: [{}]}}]", token.sha256);
        made.write("access.yaml", list);
    };
    list("[read, append]");
    let kept = made.kept().await;
    let security = Security(Some(Arc::clone(&kept)));
    let headers = http::HeaderMap::from_iter([(
        http::header::AUTHORIZATION,
        http::HeaderValue::try_from(format!("Bearer {}", token.text)).unwrap(),
    )]);
    let admitted = security.admit(&stranger(), Port::Client, "/zue.v1.Log/Read", &headers);
    let Admitted { call_right, .. } = admitted.unwrap().expect("there is such a method");
    let mut end = Box::pin(call_right.clone().lost());
    let replace = || {
        let (said, _) = made.places().read_again(&kept.current.load().files);
        kept.take(said).unwrap();
    };
    for rights in ["[read]", "[read, admin]"] {
        list(rights);
        replace();
        assert!(end.as_mut().now_or_never().is_none() && call_right.check().is_ok(), "{rights}");
    }
    list("[append]");
    replace();
    let why = end.as_mut().now_or_never().expect("it ends at once");
    assert_eq!(why.reason(), Reason::PermissionDenied, "{why:?}");
}

#[tokio::test]
async fn a_node_that_is_to_have_tls_never_goes_without() {
    let mut config = NodeConfig::default();
    for mode in [TlsMode::Required, TlsMode::Permissive] {
        (config.tls.mode, config.tls.folder) = (mode, None);
        let error = Security::read(&config).await.map(drop).unwrap_err();
        assert!(matches!(error, TlsError::NoFolder), "{error}");
        config.tls.folder = Some(Path::new("/nowhere").to_owned());
        assert!(Security::read(&config).await.is_err());
    }
}
