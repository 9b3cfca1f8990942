//! An operator that stands by before nodes that have lost their leader: it listens, does nothing, and acts at once when it is its turn.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};
use zue_operator::metrics::Metrics;
use zue_operator::run::operator::{self, Settings};
use zue_proto::v1::control_server::{Control, ControlServer};
use zue_proto::{id_bytes, v1};

const PATIENCE: Duration = Duration::from_secs(20);

/// An API server with one cluster and its pods, which answers no more once it is told to hang.
#[derive(Clone, Default)]
struct Api {
    hangs: Arc<AtomicBool>,
    writes: Arc<AtomicUsize>,
}

/// An address of this machine that no other test has.
fn ip(ordinal: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + ordinal, high, low).into()
}

fn pod(ordinal: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("orders-{ordinal}"), "namespace": "shop", "uid": format!("p-{ordinal}"),
            "labels": { "app.kubernetes.io/instance": "orders", "app.kubernetes.io/managed-by": "zue-operator" } },
        "status": { "podIP": ip(ordinal) },
    })
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri) -> Response {
    if method != Method::GET {
        api.writes.fetch_add(1, Ordering::Relaxed);
    }
    let never_ends = uri.query().is_some_and(|query| query.contains("watch"));
    if never_ends || api.hangs.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    let cluster = json!({
        "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": {},
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1", "generation": 1, "resourceVersion": "7" },
        "status": { "epoch": 4, "replicas": 3, "clusterId": format!("{:032x}", 9) },
    });
    let items = match uri.path() {
        path if path.ends_with("/zueclusters") => json!([cluster]),
        path if path.ends_with("/pods") => json!([pod(0), pod(1), pod(2)]),
        _ => json!([]),
    };
    json!({ "metadata": { "resourceVersion": "9" }, "items": items }).to_string().into_response()
}

/// A replica whose leader is gone, and that promises nothing.
struct Node {
    ordinal: u8,
    heard: Arc<AtomicUsize>,
    sealed: mpsc::UnboundedSender<u8>,
}

impl Node {
    fn says(&self) -> v1::StatusResponse {
        let start = v1::EpochStart {
            epoch: 4,
            leader: id_bytes(1),
            voters: [1, 2, 3].map(id_bytes).to_vec(),
            quorum: 2,
            ..Default::default()
        };
        v1::StatusResponse {
            name: format!("orders-{}", self.ordinal),
            replica_id: id_bytes(u128::from(self.ordinal) + 1),
            cluster_id: id_bytes(9),
            role: v1::Role::Idle.into(),
            leader_silence_ms: Some(60_000),
            promised: 4,
            last_epoch_start: Some(start),
            durable: Some(v1::Tail { epoch: 4, end: 0 }),
            ..Default::default()
        }
    }
}

type Answer<T> = Result<tonic::Response<T>, Status>;

fn refused<T>() -> Answer<T> {
    Err(Status::unavailable("nothing is done here"))
}

#[tonic::async_trait]
impl Control for Node {
    type WatchStream = stream::BoxStream<'static, Result<v1::StatusResponse, Status>>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(tonic::Response::new(self.says()))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        self.heard.fetch_add(1, Ordering::Relaxed);
        let says = self.says();
        let heartbeat = stream::unfold(true, move |is_first| {
            let says = says.clone();
            async move {
                if !is_first {
                    sleep(Duration::from_millis(500)).await;
                }
                Some((Ok(says), false))
            }
        });
        Ok(tonic::Response::new(heartbeat.boxed()))
    }

    async fn seal(&self, _: Request<v1::SealRequest>) -> Answer<v1::SealResponse> {
        self.sealed.send(self.ordinal).unwrap();
        refused()
    }

    async fn appoint(&self, _: Request<v1::AppointRequest>) -> Answer<v1::AppointResponse> {
        panic!("nobody has promised anything")
    }

    async fn learners(&self, _: Request<v1::LearnersRequest>) -> Answer<v1::LearnersResponse> {
        refused()
    }

    async fn handover(&self, _: Request<v1::HandoverRequest>) -> Answer<v1::HandoverResponse> {
        refused()
    }

    async fn back_up(&self, _: Request<v1::BackUpRequest>) -> Answer<v1::AskedBackup> {
        refused()
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn an_operator_that_stands_by_listens_and_acts_at_once_on_its_turn_whatever_the_api_server_does() {
    let (heard, (sealed, mut seals)) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    // The first one led, and is gone.
    for ordinal in [1, 2] {
        let listener = TcpListener::bind((ip(ordinal), 9441)).await.unwrap();
        let node = Node { ordinal, heard: Arc::clone(&heard), sealed: sealed.clone() };
        let server = tonic::transport::Server::builder().add_service(ControlServer::new(node));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    }
    let api = Api::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(api.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let settings = Settings {
        default_image: "zue-node:test".to_owned(),
        instance: "operator-b".to_owned(),
        services_suffix: String::new(),
    };
    let (acts, its_turn) = watch::channel(false);
    let is_ready = Arc::new(AtomicBool::new(false));
    let ready = Arc::clone(&is_ready);
    let seen = move || ready.store(true, Ordering::Relaxed);
    tokio::spawn(operator::run(client, None, settings, Arc::new(Metrics::new().unwrap()), its_turn, seen));

    let listens = || heard.load(Ordering::Relaxed) == 2 && is_ready.load(Ordering::Relaxed);
    until("it listens to both nodes, and has seen everything", listens).await;
    // Ten turns of one that acts.
    assert!(timeout(Duration::from_secs(1), seals.recv()).await.is_err(), "it acts while it stands by");
    assert_eq!(api.writes.load(Ordering::Relaxed), 0);

    api.hangs.store(true, Ordering::Relaxed);
    acts.send_replace(true);
    let mut asked = [0; 2];
    for asked in &mut asked {
        *asked = timeout(Duration::from_secs(4), seals.recv()).await.expect("it elects").unwrap();
    }
    asked.sort_unstable();
    assert_eq!(asked, [1, 2]);

    acts.send_replace(false);
    // What was under way comes to an end.
    while timeout(Duration::from_millis(200), seals.recv()).await.is_ok() {}
    assert!(timeout(Duration::from_secs(3), seals.recv()).await.is_err(), "it acts though it has lost the Lease");
    assert_eq!(heard.load(Ordering::Relaxed), 2, "each node is heard on one stream all the time");
}
