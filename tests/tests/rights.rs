//! Every method of a node, called by everybody who might: exactly those get through whose right it is.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "this is a test, and most of it a table: what is not there fails it"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::Channel;
use tonic::{Code, Status};
use zue_node::{Node, RunningNode};
use zue_proto::v1::control_client::ControlClient;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, Reason};
use zue_proto::{DESCRIPTORS, error_of};
use zue_settings::{NodeConfig, TlsMode};
use zue_tests::identities::{Identities, LIFE, write};
use zue_tests::replicas::eventually_async;
use zue_tls::{Dial, Insecure, Names, NewToken, Role};

const SOON: Duration = Duration::from_secs(20);
/// The time for which the node may take to look at its files again, and to let go of who has lost a right.
const TAKEN_UP: Duration = Duration::from_secs(30);

/// The time for which the node may take to look at its files again; what is open ends then.
const PROMPT: Duration = Duration::from_secs(6);

const APPEND: &[&str] = &["Append", "AppendStream", "OpenProducer"];
const READ: &[&str] = &["Read"];
const ADMIN: &[&str] = &["Trim", "SwitchOver", "Log/BackUp", "ServerReflectionInfo"];
const ANY: &[&str] = &["Describe"];
const HEALTH: &[&str] = &["health.v1.Health/Check", "health.v1.Health/Watch"];
const PEER: &[&str] = &["Follow", "Fetch"];
const STANDBY: &[&str] = &["Control/Status", "Control/Watch", "Seal", "Appoint"];
const CONTROL: &[&str] = &["Learners", "Handover", "Control/BackUp"];

/// The two ports, and which services they have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    Client,
    Peer,
}

fn has(port: Port, path: &str) -> bool {
    match port {
        Port::Client => path.starts_with("/zue.v1.Log/") || path.starts_with("/grpc."),
        Port::Peer => {
            path.starts_with("/zue.v1.Replication/")
                || path.starts_with("/zue.v1.Control/")
                || path.starts_with("/grpc.health.")
        }
    }
}

/// The paths of all methods that there are.
fn methods() -> Vec<String> {
    let sets = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
    let mut paths = Vec::new();
    for set in sets {
        for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let names = service.method.iter().map(prost_types::MethodDescriptorProto::name);
                paths.extend(names.map(|name| format!("/{}.{}/{name}", file.package(), service.name())));
            }
        }
    }
    assert!(paths.len() >= 18, "{paths:?}");
    paths
}

/// Calls a method with an empty message, and gives how that begins: whether it gets through does not depend on what it says.
async fn call(mut channel: Channel, path: &str, token: Option<&str>) -> Status {
    let message = futures::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5])))]);
    let mut call = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(token) = token {
        call = call.header("authorization", format!("Bearer {token}"));
    }
    let call = call.body(Body::new(StreamBody::new(message))).unwrap();
    let answer = async {
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        channel.call(call).await
    };
    match tokio::time::timeout(SOON, answer).await.expect("there is an answer") {
        Ok(answer) => Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok("it goes on")),
        Err(error) => Status::from_error(error.into()),
    }
}

/// Returns whether a call was let in: what it came to then is another matter.
fn is_let_in(status: &Status) -> bool {
    let refused = [Code::Unauthenticated, Code::PermissionDenied];
    !refused.contains(&status.code())
        && (error_of(status).is_some() || status.code() == Code::Ok || is_of_service(status))
}

/// The services of others answer without our words; the door adds them to what they refuse.
fn is_of_service(status: &Status) -> bool {
    !matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

struct Served {
    node: RunningNode,
    identities: Identities,
    _data: TempDir,
}

impl Served {
    async fn with(mode: TlsMode) -> Self {
        let (identities, data) = (Identities::of("ours"), tempfile::tempdir().unwrap());
        let mut config =
            NodeConfig { name: "zue-0".to_owned(), data_dir: data.path().join("log"), ..NodeConfig::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen.client, config.listen.peer, config.listen.metrics) = (any, any, any);
        config.tls.mode = mode;
        if mode != TlsMode::Off {
            config.tls.folder = Some(identities.node());
            config.access.file = Some(identities.access());
        }
        Self { node: Node::start(config).await.unwrap(), identities, _data: data }
    }

    fn address(&self, port: Port) -> SocketAddr {
        let addresses = self.node.addresses();
        if port == Port::Client { addresses.client } else { addresses.peer }
    }

    fn channel(&self, port: Port, dial: &Dial) -> Channel {
        zue_proto::net::channel(&self.address(port).to_string(), dial).unwrap()
    }

    /// Checks that those methods get through that were to.
    async fn check(&self, who: &str, (dial, token): (&Dial, Option<&str>), port: Port, may: &[&[&str]]) -> Vec<String> {
        let channel = self.channel(port, dial);
        let mut wrong = Vec::new();
        for path in methods().iter().filter(|path| has(port, path)) {
            let status = call(channel.clone(), path, token).await;
            let may = may.iter().copied().flatten().any(|name| path.ends_with(name));
            if is_let_in(&status) != may {
                wrong.push(format!("{who} at {port:?} {path}: may is {may}, and it came to {status:?}"));
            }
        }
        wrong
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_is_for_those_whose_right_it_is_and_for_nobody_else() {
    let served = Served::with(TlsMode::Required).await;
    let (ours, theirs) = (&served.identities, Identities::of("theirs"));
    let tokens = [NewToken::make().unwrap(), NewToken::make().unwrap(), NewToken::make().unwrap()];
    let [right, revoked, wrong] = &tokens;
    let list = |revoked: &str| {
        format!(
            "clients:\n- {{name: appends, rights: [append]}}\n- {{name: reads, rights: [read]}}\n- {{name: tends, rights: [admin]}}\n\
             - {{name: all, rights: [append, read, admin]}}\n- {{name: none, rights: []}}\n\
             - {{name: token, rights: [append, read], tokenSha256: [{}{revoked}]}}\n",
            right.sha256
        )
    };
    ours.allow(&list(&format!(", {}", revoked.sha256)));
    let client = async |dial: &Dial, token: Option<&NewToken>| {
        let token = token.map(|token| token.text.as_str());
        call(served.channel(Port::Client, dial), "/zue.v1.Log/Describe", token).await
    };
    let tokens_are_known = async || is_let_in(&client(&ours.dial(None), Some(revoked)).await).then_some(());
    eventually_async(TAKEN_UP, tokens_are_known, || "the list is taken up".to_owned()).await;
    ours.allow(&list(""));
    let is_revoked = async || (!is_let_in(&client(&ours.dial(None), Some(revoked)).await)).then_some(());
    eventually_async(TAKEN_UP, is_revoked, || "a token is revoked".to_owned()).await;

    let of = |role: Role| ours.cluster.identity(role);
    let alien = |role: Role| theirs.cluster.identity(role);
    let short = Duration::from_secs(1);
    let expired =
        [ours.client("all", short), ours.peer(&of(Role::Node), short), ours.peer(&of(Role::Controller), short)];
    tokio::time::sleep(short + Duration::from_millis(1200)).await;
    let [expired_client, expired_node, expired_controller] = expired;
    let named = Names::default();
    // Signed by our authority, and of another cluster all the same: nobody issues that, but it must not matter.
    let alien_client = ours.clients.issue(&theirs.cluster.client("all").unwrap(), &named, LIFE).unwrap();
    let alien_node = ours.peers.issue(&alien(Role::Node), &named, LIFE).unwrap();

    let (c, p, nothing) = (Port::Client, Port::Peer, &[][..]);
    let node = ours.peer(&of(Role::Node), LIFE);
    let controller = ours.peer(&of(Role::Controller), LIFE);
    let with = |issued: &zue_tls::Issued| ours.dial(Some(issued));
    let (plain, anonymous) = (Dial::plain(), ours.dial(None));
    let cells: Vec<(&str, Dial, Option<&NewToken>, Port, &[&[&str]])> = vec![
        ("without TLS", plain.clone(), None, c, nothing),
        ("without TLS", plain.clone(), None, p, nothing),
        ("a token without TLS", plain, Some(right), c, nothing),
        ("no certificate", anonymous.clone(), None, c, &[HEALTH]),
        ("no certificate", anonymous.clone(), None, p, nothing),
        ("a right token", anonymous.clone(), Some(right), c, &[HEALTH, ANY, APPEND, READ]),
        ("a right token", anonymous.clone(), Some(right), p, nothing),
        ("a wrong token", anonymous.clone(), Some(wrong), c, &[HEALTH]),
        ("a revoked token", anonymous, Some(revoked), c, &[HEALTH]),
        ("a wrong token and a certificate", with(&ours.client("all", LIFE)), Some(wrong), c, &[HEALTH]),
        ("a client that appends", with(&ours.client("appends", LIFE)), None, c, &[HEALTH, ANY, APPEND]),
        ("a client that reads", with(&ours.client("reads", LIFE)), None, c, &[HEALTH, ANY, READ]),
        ("a client that tends", with(&ours.client("tends", LIFE)), None, c, &[HEALTH, ANY, ADMIN]),
        ("a client with all rights", with(&ours.client("all", LIFE)), None, c, &[HEALTH, ANY, APPEND, READ, ADMIN]),
        ("a client with all rights", with(&ours.client("all", LIFE)), None, p, nothing),
        ("a client with no right", with(&ours.client("none", LIFE)), None, c, &[HEALTH]),
        ("a client that is not listed", with(&ours.client("other", LIFE)), None, c, &[HEALTH]),
        ("an expired client", with(&expired_client), None, c, &[HEALTH]),
        ("a client of another cluster", with(&theirs.client("all", LIFE)), None, c, &[HEALTH]),
        ("a client of another cluster", with(&theirs.client("all", LIFE)), None, p, nothing),
        ("a client named after another cluster", with(&alien_client), None, c, &[HEALTH]),
        ("a node", with(&node), None, p, &[HEALTH, PEER, STANDBY]),
        ("a node's certificate used by a client", with(&node), None, c, &[HEALTH]),
        ("a controller", with(&controller), None, p, &[HEALTH, CONTROL, STANDBY]),
        ("a controller's certificate used by a client", with(&controller), None, c, &[HEALTH]),
        ("an expired node", with(&expired_node), None, p, nothing),
        ("an expired controller", with(&expired_controller), None, p, nothing),
        ("a node of another cluster", with(&theirs.peer(&alien(Role::Node), LIFE)), None, p, nothing),
        ("a controller of another cluster", with(&theirs.peer(&alien(Role::Controller), LIFE)), None, p, nothing),
        ("a node named after another cluster", with(&alien_node), None, p, nothing),
    ];
    let mut wrong = Vec::new();
    for (who, dial, token, port, may) in &cells {
        let token = token.map(|token| token.text.as_str());
        wrong.extend(served.check(who, (dial, token), *port, may).await);
    }
    assert_eq!(wrong, Vec::<String>::new());
    // What is refused is told: who it is, and what is missing.
    for (dial, path, token, reason, words) in [
        (
            with(&ours.client("reads", LIFE)),
            "/zue.v1.Log/Append",
            None,
            Reason::PermissionDenied,
            "client/reads, whose rights are read, may not call /zue.v1.Log/Append: that needs the right append",
        ),
        (
            ours.dial(None),
            "/zue.v1.Log/Trim",
            Some(right),
            Reason::PermissionDenied,
            "client/token, whose rights are append, read, may not",
        ),
        (
            with(&ours.client("other", LIFE)),
            "/zue.v1.Log/Read",
            None,
            Reason::PermissionDenied,
            "spiffe://zue.io/test/ours/client/other has no access",
        ),
        (
            with(&expired_client),
            "/zue.v1.Log/Read",
            None,
            Reason::Unauthenticated,
            "spiffe://zue.io/test/ours/client/all, and it expired",
        ),
        (
            with(&node),
            "/zue.v1.Log/Read",
            None,
            Reason::Unauthenticated,
            "none of the authorities that are trusted here has signed it",
        ),
        (ours.dial(None), "/zue.v1.Log/Read", None, Reason::Unauthenticated, "no certificate and no token"),
        (ours.dial(None), "/zue.v1.Log/Read", Some(revoked), Reason::Unauthenticated, "wrong, or was revoked"),
        (Dial::plain(), "/zue.v1.Log/Read", None, Reason::Unauthenticated, "this port requires TLS"),
    ] {
        let status = call(served.channel(c, &dial), path, token.map(|token| token.text.as_str())).await;
        let error = error_of(&status).expect("it is told in our words");
        assert!(error.reason() == reason && error.message.contains(words), "{words}: {error:?}");
        assert!(
            tokens.iter().all(|token| !error.message.contains(&token.text) && !error.message.contains(&token.sha256))
        );
    }
    // Nobody without TLS is even answered on the port of the peers.
    let silence = call(served.channel(p, &Dial::plain()), "/zue.v1.Control/Status", None).await;
    assert!(error_of(&silence).is_none(), "{silence:?}");
    let refused = call(served.channel(p, &with(&controller)), "/zue.v1.Replication/Follow", None).await;
    let message = error_of(&refused).expect("it is told in our words").message;
    assert!(
        message.contains("spiffe://zue.io/test/ours/controller may not call") && message.contains("to be a node"),
        "{message}"
    );
    served.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_off_everybody_may_do_everything() {
    let served = Served::with(TlsMode::Off).await;
    let all = [HEALTH, ANY, APPEND, READ, ADMIN, PEER, STANDBY, CONTROL];
    for port in [Port::Client, Port::Peer] {
        let wrong = served.check("anybody", (&Dial::plain(), Some("a token of something else")), port, &all).await;
        assert_eq!(wrong, Vec::<String>::new());
    }
    // A controller of a cluster that is moved does without TLS where it has to, and any other does not.
    let controller = served.identities.peer(&served.identities.cluster.identity(Role::Controller), LIFE);
    let folder = served.identities.folder_of("controller", &controller);
    for (insecure, is_reached) in [(Insecure::IfNeeded, true), (Insecure::Never, false)] {
        let dial = Dial::controller(&folder, insecure).unwrap();
        let status = call(served.channel(Port::Peer, &dial), "/zue.v1.Control/Status", None).await;
        assert_eq!(status.code() == Code::Ok, is_reached, "{insecure:?}: {status:?}");
        assert_eq!(dial.without().count, u64::from(is_reached), "{:?}", dial.without());
    }
    let stranger = served.identities.dial(None);
    let refused = call(served.channel(Port::Client, &stranger), "/zue.v1.Log/Describe", None).await;
    assert!(format!("{refused:?}").contains("does not speak TLS"), "{refused:?}");
    served.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_cluster_is_moved_both_are_taken_and_rights_count_with_tls() {
    let served = Served::with(TlsMode::Permissive).await;
    let ours = &served.identities;
    let all = [HEALTH, ANY, APPEND, READ, ADMIN, PEER, STANDBY, CONTROL];
    let plain = Dial::plain();
    let node = ours.dial(Some(&ours.peer(&ours.cluster.identity(Role::Node), LIFE)));
    let client = ours.dial(Some(&ours.client("shop", LIFE)));
    for (who, dial, token, port, may) in [
        ("plain", &plain, None, Port::Client, &all[..]),
        ("plain", &plain, None, Port::Peer, &all),
        ("plain with a token", &plain, Some("x"), Port::Client, &[]),
        ("a node", &node, None, Port::Peer, &[HEALTH, PEER, STANDBY]),
        ("nobody", &ours.dial(None), None, Port::Client, &[HEALTH]),
        ("a client that is not listed", &client, None, Port::Client, &[HEALTH]),
    ] {
        assert_eq!(served.check(who, (dial, token), port, may).await, Vec::<String>::new());
    }
    served.node.stop().await;
}

/// The end of an open stream.
async fn end<T>(mut stream: tonic::Streaming<T>) -> Option<Status> {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// A call that shows this token, if any.
fn shown<T>(token: Option<&str>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        let header = http::HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().as_mut().insert("authorization", header);
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_a_right_loses_what_it_has_open() {
    let served = Served::with(TlsMode::Required).await;
    let ours = &served.identities;
    let token = NewToken::make().unwrap();
    let list = |rights: &str| {
        ours.allow(&format!(
            "clients:\n- {{name: shop, rights: {rights}}}\n- {{name: token, rights: {rights}, tokenSha256: [{}]}}\n- {{name: other, rights: [read]}}\n",
            token.sha256
        ));
    };
    list("[append, read]");
    let (mut reads, mut appends, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    for (name, token) in [(Some("shop"), None), (None, Some(token.text.as_str())), (Some("other"), None)] {
        let dial = ours.dial(name.map(|name| ours.client(name, LIFE)).as_ref());
        let channel = served.channel(Port::Client, &dial);
        let describe = async || is_let_in(&call(channel.clone(), "/zue.v1.Log/Describe", token).await).then_some(());
        eventually_async(TAKEN_UP, describe, || "the list is taken up".to_owned()).await;
        // Health is watched for as long as the connection lives, which is of somebody by now.
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        watched.push(health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner());
        let mut log = LogClient::new(channel.clone());
        let follow = v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
        reads.push((channel, token, log.read(shown(token, follow)).await.unwrap().into_inner()));
    }
    list("[append]");
    let other = reads.pop().unwrap();
    for (channel, token, read) in reads {
        let why = tokio::time::timeout(PROMPT, end(read)).await.expect("the read ends").expect("it is told why");
        assert_eq!(error_of(&why).map(|error| error.reason()), Some(Reason::PermissionDenied), "{why:?}");
        // The very next call on the same connection is refused, too.
        assert!(!is_let_in(&call(channel.clone(), "/zue.v1.Log/Read", token).await));
        assert!(is_let_in(&call(channel, "/zue.v1.Log/Append", token).await));
    }
    for (name, token) in [(Some("shop"), None), (None, Some(token.text.as_str()))] {
        let dial = ours.dial(name.map(|name| ours.client(name, LIFE)).as_ref());
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        sender.send(v1::AppendRequest::default()).await.unwrap();
        let requests = shown(token, tokio_stream::wrappers::ReceiverStream::new(requests));
        let mut log = LogClient::new(served.channel(Port::Client, &dial));
        let mut answers = log.append_stream(requests).await.unwrap().into_inner();
        // It is no leader: that is answered, and the stream goes on.
        assert!(answers.message().await.unwrap().is_some());
        appends.push((sender, answers));
    }
    list("[]");
    for (_sender, mut answers) in appends {
        let answer = tokio::time::timeout(PROMPT, answers.message()).await.expect("it is told why").unwrap();
        let outcome = answer.and_then(|answer| answer.outcome).expect("it is an answer");
        let v1::append_stream_response::Outcome::Error(why) = outcome else { panic!("{outcome:?}") };
        assert_eq!((why.reason(), why.outcome()), (Reason::PermissionDenied, v1::Outcome::NotAppended), "{why:?}");
        let over = tokio::time::timeout(PROMPT, end(answers)).await.expect("it ends");
        assert!(over.is_none(), "{over:?}");
    }
    let (_, _, read) = other;
    assert!(tokio::time::timeout(Duration::from_millis(100), end(read)).await.is_err(), "the other one goes on");
    for (watched, is_over) in watched.into_iter().zip([true, true, false]) {
        let within = if is_over { TAKEN_UP } else { Duration::from_millis(100) };
        assert_eq!(tokio::time::timeout(within, end(watched)).await.is_ok(), is_over);
    }
    served.node.stop().await;
}

/// Replaces the authority of the peers, and what the node shows.
fn replace_peers(identities: &mut Identities) {
    identities.renew();
    identities.trust(&[&identities.peers], &[&identities.clients]);
    identities.give_nodes(LIFE);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_authority_is_gone_says_nothing_more_on_what_it_has_open() {
    let mut served = Served::with(TlsMode::Required).await;
    let ours = &served.identities;
    let [node, controller] = [Role::Node, Role::Controller].map(|role| {
        let own = ours.peer(&ours.cluster.identity(role), LIFE);
        served.channel(Port::Peer, &ours.dial(Some(&own)))
    });
    let watch = ControlClient::new(controller.clone()).watch(v1::WatchRequest { detection_ms: 1000 }).await.unwrap();
    let (_sender, messages) = tokio::sync::mpsc::channel::<v1::LeaderMessage>(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let follow = ReplicationClient::new(node.clone()).follow(messages).await.unwrap();
    replace_peers(&mut served.identities);
    let why = tokio::time::timeout(PROMPT, end(watch.into_inner())).await.expect("it ends").expect("it is told why");
    assert_eq!(error_of(&why).map(|error| error.reason()), Some(Reason::Unauthenticated), "{why:?}");
    assert!(!is_let_in(&call(controller, "/zue.v1.Control/Status", None).await));
    // The leader's stream is told in its own words: at once, and not when its handshake is late.
    let mut follow = follow.into_inner();
    let told = tokio::time::timeout(Duration::from_secs(2), follow.message()).await.expect("it is told").unwrap();
    let Some(v1::follower_message::Message::Refused(refused)) = told.and_then(|told| told.message) else {
        panic!("it is refused")
    };
    assert_eq!(refused.error.map(|error| error.reason()), Some(Reason::Unauthenticated));
    assert!(!is_let_in(&call(node, "/zue.v1.Replication/Fetch", None).await));
    served.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_authority_is_replaced_during_the_handshake_opens_no_connection() {
    let mut served = Served::with(TlsMode::Required).await;
    let ours = &served.identities;
    let own = ours.peer(&ours.cluster.identity(Role::Controller), LIFE);
    let dial = ours.dial(Some(&own));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (way, node) = (listener.local_addr().unwrap(), served.node.addresses().peer);
    let (held, is_held) = tokio::sync::oneshot::channel();
    let (release, is_released) = tokio::sync::oneshot::channel::<()>();
    let passing = tokio::spawn(async move {
        let (caller, _) = listener.accept().await.unwrap();
        let (mut from, mut back) = caller.into_split();
        let (mut answers, mut to) = tokio::net::TcpStream::connect(node).await.unwrap().into_split();
        let answering = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        // The greeting passes; the certificate, which comes next, is held back.
        let mut bytes = vec![0; 1 << 16];
        let read = from.read(&mut bytes).await.unwrap();
        to.write_all(&bytes[..read]).await.unwrap();
        let read = from.read(&mut bytes).await.unwrap();
        held.send(()).unwrap();
        is_released.await.unwrap();
        to.write_all(&bytes[..read]).await.unwrap();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = answering.await;
    });
    let channel = zue_proto::net::channel(&format!("localhost:{}", way.port()), &dial).unwrap();
    let calling = tokio::spawn(async move { call(channel, "/zue.v1.Control/Status", None).await });
    is_held.await.unwrap();
    replace_peers(&mut served.identities);
    let ours = &served.identities;
    let newer = ours.dial(Some(&ours.peer(&ours.cluster.identity(Role::Controller), LIFE)));
    let newer = served.channel(Port::Peer, &newer);
    let taken_up = async || is_let_in(&call(newer.clone(), "/zue.v1.Control/Status", None).await).then_some(());
    eventually_async(SOON, taken_up, || "the new authority is taken up".to_owned()).await;
    let failed = || served.node.metrics().tls_failed_handshakes.with_label_values(&["peer"]).get();
    let before = failed();
    release.send(()).unwrap();
    let refused = calling.await.unwrap();
    assert!(!is_let_in(&refused) && error_of(&refused).is_none(), "no call is even answered: {refused:?}");
    assert_eq!(failed(), before + 1);
    passing.abort();
    served.node.stop().await;
}

/// Sends that much of a handshake, and waits until the node has done with it.
async fn begin_handshake(served: &Served, port: Port, bytes: &[u8]) {
    let mut stream = tokio::net::TcpStream::connect(served.address(port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_dies_in_a_handshake_is_not_counted_among_those_that_are_refused() {
    let served = Served::with(TlsMode::Required).await;
    let metrics = served.node.metrics();
    for (port, name) in [(Port::Client, "client"), (Port::Peer, "peer")] {
        let failed = || metrics.tls_failed_handshakes.with_label_values(&[name]).get();
        for _ in 0..5 {
            begin_handshake(&served, port, b"\x16\x03\x01\x02\x00\x01").await;
        }
        begin_handshake(&served, port, b"\x16\x03\x01\x00\x05hello").await;
        eventually_async(SOON, async || (failed() > 0).then_some(()), || "garbage is refused".to_owned()).await;
        assert_eq!(failed(), 1, "at the port of {name}s");
    }
    served.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_before_its_certificate_does_and_says_so() {
    let served = Served::with(TlsMode::Required).await;
    let ours = &served.identities;
    let life = Duration::from_secs(8);
    let begun = Instant::now();
    let channel = served.channel(Port::Client, &ours.dial(Some(&ours.client("shop", life))));
    let mut watching = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest::default();
    let mut watching = watching.watch(request).await.unwrap().into_inner();
    let over = async { while watching.message().await.is_ok_and(|message| message.is_some()) {} };
    tokio::time::timeout(life * 2, over).await.expect("it ends");
    let lasted = begun.elapsed();
    assert!(lasted > life / 2 && lasted < life + Duration::from_secs(2), "it lasted {lasted:?} of {life:?}");
    served.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_is_told_and_what_was_there_before_counts() {
    let served = Served::with(TlsMode::Required).await;
    let ours = &served.identities;
    ours.allow("clients: [{name: shop, rights: [read]}]\n");
    let shop = ours.dial(Some(&ours.client("shop", LIFE)));
    let controller = ours.dial(Some(&ours.peer(&ours.cluster.identity(Role::Controller), LIFE)));
    let may = async || is_let_in(&call(served.channel(Port::Client, &shop), "/zue.v1.Log/Describe", None).await);
    eventually_async(TAKEN_UP, async || may().await.then_some(()), || "the list is taken up".to_owned()).await;
    let status = async || {
        let channel = served.channel(Port::Peer, &controller);
        let mut control = zue_proto::v1::control_client::ControlClient::new(channel);
        control.status(zue_proto::v1::StatusRequest {}).await.unwrap().into_inner()
    };
    let before = status().await.tls.unwrap();
    assert_eq!((before.mode.as_str(), before.problem.as_str()), ("Required", ""));
    let certificate = std::fs::read_to_string(ours.node().join("tls.crt")).unwrap();
    let alien = Identities::of("theirs").cluster.identity(Role::Node);
    let alien = ours.peers.issue(&alien, &Names::default(), LIFE).unwrap();
    let key = std::fs::read_to_string(ours.node().join("tls.key")).unwrap();
    for (file, path, wrong, right, why) in [
        (
            "access.file",
            ours.access(),
            "clients: [{name: shop, rights: [all]}]\n",
            "clients: [{name: shop, rights: [read]}]\n",
            "unknown variant `all`",
        ),
        ("tls.crt", ours.node().join("tls.crt"), "", &certificate, "tls.crt: it holds no certificate"),
        ("tls.crt", ours.node().join("tls.key"), &alien.key, &key, "tls.key: its private key is not the one of"),
        (
            "client-ca.crt",
            ours.node().join("client-ca.crt"),
            ours.peers.certificate(),
            ours.clients.certificate(),
            "hold the same authority",
        ),
        (
            "peer-ca.crt",
            ours.node().join("peer-ca.crt"),
            ours.clients.certificate(),
            ours.peers.certificate(),
            "is not trusted by the authorities in",
        ),
    ] {
        write(&path, wrong);
        let told = async || Some(status().await).filter(|status| status.problem.contains(why));
        let status_then = eventually_async(TAKEN_UP, told, || format!("it says that {why}")).await;
        let tls = status_then.tls.unwrap();
        assert!(tls.problem.contains(why) && tls.peer_bundle_sha256 == before.peer_bundle_sha256, "{tls:?}");
        assert!(may().await, "what was there before counts");
        for one in ["tls.crt", "peer-ca.crt", "client-ca.crt", "access.file"] {
            let problem = served.node.metrics().tls_problem.with_label_values(&[one]).get();
            assert_eq!(problem, i64::from(one == file), "{one} while {path:?} is wrong");
        }
        write(&path, right);
        let is_well = async || status().await.problem.is_empty().then_some(());
        eventually_async(TAKEN_UP, is_well, || "it is well again".to_owned()).await;
        assert_eq!(served.node.metrics().tls_problem.with_label_values(&[file]).get(), 0);
    }
    // A node stays of its cluster, and what is not whole holds up no right that is taken away.
    write(&ours.node().join("tls.key"), &alien.key);
    write(&ours.node().join("tls.crt"), &alien.certificate);
    ours.allow("clients: []\n");
    let may_no_more = async || (!may().await).then_some(());
    eventually_async(TAKEN_UP, may_no_more, || "the list is taken up".to_owned()).await;
    let why = "is of a node of test/theirs, and this node is of test/ours";
    let told = async || Some(status().await.problem).filter(|problem| problem.contains(why)).map(drop);
    eventually_async(TAKEN_UP, told, || format!("it says that {why}")).await;
    assert_eq!(status().await.tls.unwrap().certificate_sha256, before.certificate_sha256);
    served.node.stop().await;
}

#[tokio::test]
async fn a_node_does_not_start_with_what_it_cannot_use_and_names_it() {
    let ours = Identities::of("ours");
    let data = tempfile::tempdir().unwrap();
    let start = async |change: &dyn Fn(&mut NodeConfig)| {
        let mut config =
            NodeConfig { name: "zue-0".to_owned(), data_dir: data.path().join("log"), ..NodeConfig::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen.client, config.listen.peer, config.listen.metrics) = (any, any, any);
        (config.tls.mode, config.tls.folder) = (TlsMode::Required, Some(ours.node()));
        config.access.file = Some(ours.access());
        change(&mut config);
        let error = Node::start(config).await.expect_err("it does not start");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    };
    let error = start(&|config| config.tls.folder = None).await;
    assert!(error.contains("tls.folder") && error.contains("--tls-folder"), "{error}");
    // Whoever gives certificates wants TLS.
    let error = start(&|config| (config.tls.mode, config.access.file) = (TlsMode::default(), None)).await;
    for told in ["tls.folder", "with tls.mode Off there is no TLS", "--tls-mode Required"] {
        assert!(error.contains(told), "{told}: {error}");
    }
    let error = start(&|config| config.tls.mode = TlsMode::Off).await;
    assert!(error.contains("access.file") && error.contains("--tls-mode"), "{error}");
    let error = start(&|config| config.access.file = Some("/nowhere/access.yaml".into())).await;
    assert!(error.contains("/nowhere/access.yaml cannot be read"), "{error}");
    let short = Duration::from_secs(1);
    ours.give_nodes(short);
    tokio::time::sleep(short * 2).await;
    let error = start(&|_| {}).await;
    assert!(error.contains("tls.crt is not trusted by the authorities in") && error.contains("it expired"), "{error}");
}
