//! Certificates and their holders, with a real client, on an API server that keeps Secrets in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::ByteString;
use kube::{Client, Config};
use serde_json::{Value, json};
use zue_operator::cluster::Cluster;
use zue_operator::crd::ZueCluster;
use zue_operator::crd::security::TlsMode;
use zue_operator::identities::plan::{FORMER_FOR, NodeTls, TOLD_FOR};
use zue_operator::identities::rotate::Rotate;
use zue_operator::identities::{Error, Input, Link, Settled, listen, settle};
use zue_tls::{Authority, Bundle, Kind, Leaf, Usage};

const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Default)]
struct Api(Arc<Mutex<(BTreeMap<String, Value>, usize)>>);

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut kept = api.0.lock().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let named = uri.path().rsplit('/').next().unwrap().to_owned();
    let name = if method == Method::POST { body["metadata"]["name"].as_str().unwrap().to_owned() } else { named };
    kept.1 += usize::from(method != Method::GET);
    let mut object = kept.0.get(&name).cloned();
    match method {
        Method::GET => {}
        Method::DELETE => object = kept.0.remove(&name),
        Method::POST => {
            let mut made = body.clone();
            made["metadata"]["uid"] = format!("{name}-uid").into();
            for (key, text) in body["stringData"].as_object().unwrap() {
                let encoded = ByteString(text.as_str().unwrap().as_bytes().to_vec());
                made["data"][key] = serde_json::to_value(encoded).unwrap();
            }
            object = Some(made);
        }
        _ => {
            let found = object.as_mut().unwrap();
            for (part, fields) in [("metadata", &body["metadata"]), ("data", &body["data"])] {
                for (name, value) in fields.as_object().unwrap() {
                    found[part][name] = value.clone();
                }
                found[part].as_object_mut().unwrap().retain(|_, value| !value.is_null());
            }
        }
    }
    let Some(object) = object else {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404 });
        return (StatusCode::NOT_FOUND, status.to_string()).into_response();
    };
    if method != Method::DELETE {
        kept.0.insert(name, object.clone());
    }
    object.to_string().into_response()
}

struct Made {
    api: Api,
    client: Client,
    link: Link,
    now: SystemTime,
    shown: Vec<Option<NodeTls>>,
}

impl Made {
    async fn new() -> Self {
        let api = Api::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        Self { api, client, link: Link::default(), now: SystemTime::now(), shown: Vec::new() }
    }

    async fn settle(&self, spec: &str, rotate: Rotate) -> Result<Settled, Error> {
        let input = Input { shown: &self.shown, rotate, services_suffix: ".svc.cluster.local", now: self.now };
        Box::pin(settle(&self.client, &cluster(spec), &self.link, input)).await
    }

    async fn settled(&self, spec: &str) -> Settled {
        self.settle(spec, Rotate::default()).await.unwrap()
    }

    fn text(&self, secret: &str, key: &str) -> String {
        let found = self.api.0.lock().unwrap().0[secret]["data"][key].clone();
        String::from_utf8(serde_json::from_value::<ByteString>(found).unwrap().0).unwrap()
    }

    fn holds(&self, secret: &str, key: &str) -> bool {
        !self.api.0.lock().unwrap().0[secret]["data"][key].is_null()
    }

    /// Somebody else's Secret takes the place of one that may be there.
    fn insert(&self, name: &str, owner: Option<Value>, data: &[(&str, &str)]) {
        let encoded = |text: &str| serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
        let data: BTreeMap<_, _> = data.iter().map(|(key, text)| (*key, encoded(text))).collect();
        let owners: Vec<Value> = owner.into_iter().collect();
        let secret = json!({ "metadata": { "name": name, "uid": "x", "ownerReferences": owners }, "data": data });
        self.api.0.lock().unwrap().0.insert(name.to_owned(), secret);
    }

    fn names(&self) -> Vec<String> {
        self.api.0.lock().unwrap().0.keys().cloned().collect()
    }

    fn writes(&self) -> usize {
        std::mem::take(&mut self.api.0.lock().unwrap().1)
    }

    fn bundle(&self, file: &str) -> Bundle {
        Bundle::from_pem(file, &self.text("orders-tls", file)).unwrap()
    }

    /// All three nodes have read what is in the Secret.
    fn read_by_nodes(&mut self) {
        let (peers, clients) = (self.bundle("peer-ca.crt").sha256, self.bundle("client-ca.crt").sha256);
        let certificate = self.leaf("orders-tls").sha256;
        self.shown =
            vec![Some(NodeTls { mode: TlsMode::Required, peers, clients, certificate, has_problem: false }); 3];
    }

    fn leaf(&self, secret: &str) -> Leaf {
        let (certificate, key) = (self.text(secret, "tls.crt"), self.text(secret, "tls.key"));
        Leaf::from_pem((secret, &certificate), ("its key", &key)).unwrap()
    }
}

fn cluster(spec: &str) -> Cluster {
    let mut resource = ZueCluster::new("orders", serde_yaml::from_str(spec).unwrap());
    resource.metadata.namespace = Some("shop".to_owned());
    resource.metadata.uid = Some("u-1".to_owned());
    let cluster = Cluster::new(&resource, "zue-node:test").unwrap();
    Cluster { tls_mode: TlsMode::Required, ..cluster }
}

const SPEC: &str = "access: [{name: till, rights: [append]}, {name: shop, rights: [read], token: true}]";

#[tokio::test]
async fn everybody_gets_what_they_show_and_what_is_as_it_should_be_is_not_written_again() {
    let made = Made::new().await;
    assert!(made.settled(SPEC).await.again.is_none());
    let all = ["client-ca", "client-pods.zue.io", "client-shop", "client-till", "peer-ca", "tls"];
    assert_eq!(made.names(), all.map(|name| format!("orders-{name}")));
    made.leaf("orders-tls").check(&made.bundle("peer-ca.crt"), &[Usage::Server, Usage::Client]).unwrap();
    for client in ["orders-client-till", "orders-client-pods.zue.io"] {
        made.leaf(client).check(&made.bundle("client-ca.crt"), &[Usage::Client]).unwrap();
        made.leaf(client).check(&made.bundle("peer-ca.crt"), &[Usage::Client]).unwrap_err();
    }
    assert_eq!(made.leaf("orders-client-till").identity.to_string(), "spiffe://zue.io/shop/orders/client/till");
    let (access, token) = (made.text("orders-tls", "access.yaml"), made.text("orders-client-shop", "token"));
    let hash = zue_tls::hex(&zue_tls::sha256(token.as_bytes()));
    assert!(access.contains(&hash) && !access.contains(&token) && access.contains("till"), "{access}");
    assert!(!made.link.dials().borrow().may_be_plain());
    made.writes();
    made.settled(SPEC).await;
    assert_eq!(made.writes(), 0);
}

#[tokio::test]
async fn who_has_no_access_any_more_loses_it_and_what_they_showed() {
    let made = Made::new().await;
    made.settled(SPEC).await;
    made.settled("access: [{name: till, rights: [append]}]").await;
    assert!(!made.names().contains(&"orders-client-shop".to_owned()));
    assert!(!made.text("orders-tls", "access.yaml").contains("shop"));
}

#[tokio::test]
async fn certificates_are_replaced_in_time_and_when_asked() {
    let mut made = Made::new().await;
    made.settled(SPEC).await;
    let first = made.leaf("orders-tls").sha256;
    made.now += DAY * 59;
    assert_eq!(made.settled(SPEC).await.news.len(), 0);
    made.now += DAY * 2;
    assert_eq!(made.settled(SPEC).await.news, ["the certificate of the nodes"]);
    let second = made.leaf("orders-tls").sha256;
    assert_ne!(first, second);
    made.now -= DAY * 61;
    made.settle(SPEC, Rotate { certificates: true, ..Rotate::default() }).await.unwrap();
    assert_ne!(made.leaf("orders-tls").sha256, second);
}

#[tokio::test]
async fn a_new_authority_signs_only_once_every_node_believes_it() {
    let mut made = Made::new().await;
    made.settled(SPEC).await;
    made.read_by_nodes();
    let old = made.bundle("peer-ca.crt");
    let both = Rotate { peer_ca: true, client_ca: true, ..Rotate::default() };
    assert!(made.settle(SPEC, both).await.unwrap().again.is_some());
    assert_eq!(made.text("orders-tls", "peer-ca.crt").matches("BEGIN").count(), 2);
    assert_eq!(made.text("orders-client-till", "ca.crt"), made.text("orders-tls", "peer-ca.crt"));
    made.settled(SPEC).await;
    made.leaf("orders-tls").check(&old, &[Usage::Server]).expect("not all have said that they believe the new one");
    made.read_by_nodes();
    made.settled(SPEC).await;
    made.leaf("orders-tls").check(&old, &[Usage::Server]).expect("clients read it later than nodes do");
    // Until then the one before signs, also for whoever comes meanwhile.
    let three = SPEC.replace("access: [", "access: [{name: late, rights: [read]}, ");
    made.settled(&three).await;
    let from_before = made.leaf("orders-client-till");
    made.leaf("orders-client-late").check(&made.bundle("client-ca.crt"), &[Usage::Client]).unwrap();
    made.now += TOLD_FOR;
    made.settled(&three).await;
    assert_ne!(made.leaf("orders-client-till").sha256, from_before.sha256);
    made.settled(SPEC).await;
    assert_eq!(made.text("orders-peer-ca", "tls.crt").matches("BEGIN").count(), 1);
    assert!(!made.holds("orders-peer-ca", "former.key"), "nobody needs the former's key any more");
    made.leaf("orders-tls").check(&old, &[Usage::Server]).unwrap_err();
    made.leaf("orders-tls").check(&made.bundle("peer-ca.crt"), &[Usage::Server]).unwrap();
    made.leaf("orders-client-till").check(&made.bundle("client-ca.crt"), &[Usage::Client]).unwrap();
    made.now += FORMER_FOR * 2;
    made.settled(SPEC).await;
    assert_eq!(made.text("orders-tls", "peer-ca.crt").matches("BEGIN").count(), 2, "no node shows the new one's yet");
    made.read_by_nodes();
    made.settled(SPEC).await;
    assert_eq!(made.text("orders-tls", "peer-ca.crt").matches("BEGIN").count(), 1);
    made.leaf("orders-client-till").check(&made.bundle("client-ca.crt"), &[Usage::Client]).unwrap();
}

#[tokio::test]
async fn an_operator_that_only_listens_has_a_certificate_as_soon_as_there_is_what_signs_it_and_writes_nothing() {
    let made = Made::new().await;
    let link = Link::default();
    listen(&made.client, &cluster(SPEC), &link, made.now).await.unwrap();
    assert!(link.dials().borrow().is_plain(), "there is nothing yet");
    made.settled(SPEC).await;
    made.writes();
    listen(&made.client, &cluster(SPEC), &link, made.now).await.unwrap();
    assert!(!link.dials().borrow().may_be_plain());
    let off = Cluster { tls_mode: TlsMode::Off, ..cluster("{}") };
    listen(&made.client, &off, &link, made.now).await.unwrap();
    assert!(link.dials().borrow().is_plain());
    assert_eq!(made.writes(), 0);
}

#[tokio::test]
async fn what_others_are_to_make_is_named_where_it_is_missing_or_of_no_use() {
    let made = Made::new().await;
    let said = made.settle("tls: {secretName: ours}", Rotate::default()).await.unwrap_err().to_string();
    assert_eq!(said, "Secret ours is missing: spec.tls.secretName names it");
    let theirs = json!({ "metadata": { "name": "ours", "uid": "x" }, "data": { "tls.crt": "" } });
    made.api.0.lock().unwrap().0.insert("ours".to_owned(), theirs);
    let said = made.settle("tls: {secretName: ours}", Rotate::default()).await.unwrap_err().to_string();
    assert_eq!(said, "Secret ours: tls.crt holds no certificate in PEM");
}

#[tokio::test]
async fn who_has_no_access_any_more_loses_it_whatever_else_is_wrong() {
    let made = Made::new().await;
    made.settled(SPEC).await;
    // Both were made by hand: one that is gone from the list, and one that stays in it.
    made.insert("orders-client-shop", None, &[]);
    made.insert("orders-client-till", None, &[]);
    let said = made.settle("access: [{name: till, rights: [read]}]", Rotate::default()).await.unwrap_err().to_string();
    assert_eq!(
        said,
        "Secret orders-client-till does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
    );
    let access = made.text("orders-tls", "access.yaml");
    assert!(!access.contains("shop") && access.contains("till"), "{access}");
    assert!(!made.link.dials().borrow().may_be_plain(), "the operator reaches the nodes all the same");
}

#[tokio::test]
async fn no_client_takes_the_place_of_an_authority() {
    let made = Made::new().await;
    let spec = "access: [{name: ca, rights: [read], token: true}]";
    let said = made.settle(spec, Rotate::default()).await.unwrap_err().to_string();
    assert!(said.starts_with("Secret orders-client-ca: spec.access names a client \"ca\""), "{said}");
    let before = made.text("orders-client-ca", "tls.crt");
    assert!(made.settle(spec, Rotate::default()).await.is_err());
    assert_eq!(made.text("orders-client-ca", "tls.crt"), before);
    made.settled("{}").await;
    assert_eq!(made.text("orders-client-ca", "tls.crt"), before);
}

#[tokio::test]
async fn an_authority_that_was_asked_for_and_does_not_sign_yet_is_not_replaced_again() {
    let mut made = Made::new().await;
    made.settled(SPEC).await;
    made.read_by_nodes();
    let asked = Rotate { peer_ca: true, ..Rotate::default() };
    made.settle(SPEC, asked).await.unwrap();
    let first = made.text("orders-peer-ca", "tls.crt");
    made.settle(SPEC, asked).await.unwrap();
    assert_eq!(made.text("orders-peer-ca", "tls.crt"), first);
    assert_eq!(made.text("orders-tls", "peer-ca.crt").matches("BEGIN").count(), 2);
}

#[tokio::test]
async fn authorities_made_elsewhere_are_taken_only_if_they_are_fit_and_nobody_elses() {
    let mut made = Made::new().await;
    let who = zue_tls::Cluster::new("shop", "orders").unwrap();
    let ours = Authority::new(Kind::Peer, &who, DAY).unwrap();
    let data = [("tls.crt", ours.certificate().to_owned()), ("tls.key", ours.key())];
    let data = [(data[0].0, data[0].1.as_str()), (data[1].0, data[1].1.as_str())];
    made.insert("one", None, &data);
    made.insert("other", None, &data);
    let said = made.settle("tls: {secretName: one, clientCaSecretName: other}", Rotate::default()).await;
    let said = said.unwrap_err().to_string();
    assert!(said.starts_with("Secret other: other and one hold the same authority"), "{said}");
    assert!(!made.names().contains(&"orders-tls".to_owned()), "no node is told of it");

    let owner = json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "name": "bills", "uid": "u-2" });
    made.insert("bills-peer-ca", Some(owner), &data);
    let said = made.settle("tls: {secretName: bills-peer-ca}", Rotate::default()).await.unwrap_err().to_string();
    assert_eq!(
        said,
        "Secret bills-peer-ca does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
    );

    made.settled("tls: {secretName: one}").await;
    made.now += DAY * 2;
    let said = made.settle("tls: {secretName: one}", Rotate::default()).await.unwrap_err().to_string();
    assert_eq!(said, "Secret one: its certificate has expired: put another authority into it");
    // The one that is put there signs at once: nobody believes the other any more.
    let next = Authority::new(Kind::Peer, &who, DAY * 365).unwrap();
    made.insert("one", None, &[("tls.crt", next.certificate()), ("tls.key", &next.key())]);
    made.settled("tls: {secretName: one}").await;
    made.leaf("orders-tls").check(&made.bundle("peer-ca.crt"), &[Usage::Server]).unwrap();
    assert_eq!(made.text("orders-tls", "peer-ca.crt").matches("BEGIN").count(), 1);
}

#[tokio::test]
async fn a_certificate_whose_key_is_another_is_replaced() {
    let made = Made::new().await;
    made.settled(SPEC).await;
    let key = made.text("orders-client-till", "tls.key");
    let changed = serde_json::to_value(ByteString(key.into_bytes())).unwrap();
    made.api.0.lock().unwrap().0.get_mut("orders-tls").unwrap()["data"]["tls.key"] = changed;
    made.settled(SPEC).await;
    made.leaf("orders-tls").check(&made.bundle("peer-ca.crt"), &[Usage::Server]).unwrap();
}
