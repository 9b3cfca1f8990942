//! Sees to each ZueBackup: asks a node of its cluster for it, looks how far it has come, and says so. It is asked again by the same name until
//! it is over, so that an operator that takes over goes on, and none is made twice unless its node was restarted.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tracing::{debug, info, warn};
use zue_controller::NodeAddress;
use zue_proto::place::Place;
use zue_proto::v1::control_client::ControlClient;
use zue_proto::{net, v1};
use zue_tls::Dial;

use crate::cluster::{Cluster, is_paused};
use crate::crd::on_demand::{Phase, ZueBackup, ZueBackupStatus};
use crate::kubernetes::{Error, within};
use crate::plan::on_demand::{choose, failed, patch, told, waits};
use crate::run::shared::Shared;

/// A ZueBackup, or why it can't be read.
pub(super) type GuardedBackup = DeserializeGuard<ZueBackup>;

/// The pause between two looks at one that is not over, and at all while another operator acts.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The pause after the API server did not take a status.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The time that a node may take to answer, the connection included.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The way to the nodes of the cluster of that uid.
pub(super) type Dials = Box<dyn Fn(&str) -> Dial + Send + Sync>;

struct Context {
    shared: Shared,
    dials: Dials,
}

/// Sees to them until it is dropped, while this operator acts. Where Kubernetes does not know them, it looks for them now and then.
pub(super) async fn run(api: Api<GuardedBackup>, shared: Shared, dials: Dials) {
    let (backups, writer) = reflector::store();
    let changed = watcher(api, watcher::Config::default()).default_backoff().reflect(writer).applied_objects();
    let context = Arc::new(Context { shared, dials });
    Controller::for_stream(changed, backups)
        .run(see_to, |_, _, _| Action::requeue(AGAIN_AFTER_FAILURE), context)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                debug!("ZueBackups: {error}");
            }
        })
        .await;
}

async fn see_to(resource: Arc<GuardedBackup>, context: Arc<Context>) -> Result<Action, Error> {
    let backup = match &resource.0 {
        Ok(backup) => backup,
        Err(invalid) => {
            warn!("a ZueBackup cannot be read: {}", invalid.error);
            return Ok(Action::await_change());
        }
    };
    let before = backup.status.clone().unwrap_or_default();
    if before.phase.is_over() || backup.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !*context.shared.acts.borrow() {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let now = context.ask(backup, &before).await;
    if now != before {
        write(&context.shared.client, backup, &now).await?;
    }
    Ok(if now.phase.is_over() { Action::await_change() } else { Action::requeue(LOOK_AGAIN) })
}

async fn write(client: &Client, backup: &ZueBackup, now: &ZueBackupStatus) -> Result<(), Error> {
    let (name, namespace) = (backup.name_any(), backup.namespace().unwrap_or_default());
    let api: Api<ZueBackup> = Api::namespaced(client.clone(), &namespace);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch(now)));
    within(format!("report on ZueBackup {name}"), api.patch_status(&name, &params, &patch)).await?;
    if now.phase.is_over() {
        let ZueBackupStatus { phase, message, .. } = now;
        info!(
            namespace,
            name,
            message,
            "the backup that was asked for is {}",
            if *phase == Phase::Done { "made" } else { "not made" }
        );
    }
    Ok(())
}

impl Context {
    /// Looks how far a backup has come; it is asked for, if it was not.
    async fn ask(&self, backup: &ZueBackup, before: &ZueBackupStatus) -> ZueBackupStatus {
        let (name, namespace) = (&backup.spec.cluster, backup.namespace().unwrap_or_default());
        let found = self.shared.clusters.get(&ObjectRef::new(name).within(&namespace));
        let Some(found) = found else { return waits(before, &format!("there is no ZueCluster {name} in {namespace}")) };
        let Ok(resource) = &found.0 else { return waits(before, &format!("ZueCluster {name} cannot be read")) };
        let cluster = match Cluster::new(resource, &self.shared.default_image) {
            Ok(cluster) => cluster,
            Err(invalid) => {
                return waits(
                    before,
                    &format!(
                        "the spec of ZueCluster {name} is invalid: {invalid}. The backup is made once that is mended"
                    ),
                );
            }
        };
        if cluster.spec.backup.is_none() {
            return failed(None, &format!("spec.backup of ZueCluster {name} names no store"));
        }
        if is_paused(resource) {
            return waits(before, &format!("ZueCluster {name} is paused"));
        }
        let dial = (self.dials)(&cluster.uid);
        let nodes: Vec<Node> =
            self.shared.addresses_of(&cluster).into_iter().map(|address| Node::new(&address, &dial)).collect();
        let statuses = join_all(nodes.iter().map(Node::status)).await;
        let asked_before = nodes.iter().position(|node| Some(&node.name) == before.pod.as_ref());
        let ordinal = match choose(&statuses, asked_before) {
            Ok(ordinal) => ordinal,
            Err(why) => return waits(before, &why),
        };
        let (Some(node), Some(Ok(status))) = (nodes.get(ordinal), statuses.get(ordinal)) else {
            return waits(before, "no replica answers");
        };
        match node.back_up(status, backup.uid().unwrap_or_default()).await {
            Ok(asked) => told(node.name.clone(), asked),
            Err(why) => waits(before, &format!("{}: {why}", node.name)),
        }
    }
}

/// A node, for a few calls.
struct Node {
    name: String,
    client: Result<ControlClient<tonic::transport::Channel>, String>,
}

impl Node {
    fn new(address: &NodeAddress, dial: &Dial) -> Self {
        let place = Place::new(&address.peer_address, dial);
        if let Some(at) = address.last_address {
            place.told(at);
        }
        let client = net::channel_to(&place).map(ControlClient::new).map_err(|bad| bad.to_string());
        Self { name: address.name.clone(), client }
    }

    async fn status(&self) -> Result<v1::StatusResponse, String> {
        let mut client = self.client.clone()?;
        let status = answer(client.status(v1::StatusRequest {})).await?;
        // An address may be another's by now.
        if status.name == self.name { Ok(status) } else { Err(format!("{} answers there", status.name)) }
    }

    async fn back_up(&self, status: &v1::StatusResponse, name: String) -> Result<v1::AskedBackup, String> {
        let mut client = self.client.clone()?;
        let request = v1::BackUpRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: status.cluster_id.clone(),
            target: status.replica_id.clone(),
            name,
        };
        answer(client.back_up(request)).await
    }
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::why(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
    }
}
