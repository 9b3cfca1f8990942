//! Secrets, read and written by name: each is compared before it is replaced, and nothing of it is ever told.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PostParams, Preconditions};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use zue_tls::Kind;

use crate::build;
use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::kubernetes::manager;
use crate::kubernetes::{Error, FIELD_MANAGER, owned, within};

/// The keys of a Secret with a certificate, and with whom its holder believes.
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
pub(super) const CA: &str = "ca.crt";
pub(super) const TOKEN: &str = "token";
/// Those of the nodes' Secret beside these.
pub(super) const PEER_CA: &str = "peer-ca.crt";
pub(super) const CLIENT_CA: &str = "client-ca.crt";

/// Notes at a Secret: which authority has signed what it holds, and the names in that.
pub(super) const SIGNED_BY: &str = "zue.io/signed-by";
pub(super) const NAMES: &str = "zue.io/names";

/// The texts that a Secret is to hold, by key.
pub(super) type Texts = BTreeMap<String, String>;

/// Texts of keys and values.
pub(super) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Texts {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A Secret as it was found. What it holds is not shown by `Debug`.
#[derive(Clone, Default)]
pub(super) struct StoredSecret {
    /// Its content.
    pub(super) data: Texts,
    /// The operator's notes beside that.
    pub(super) notes: Texts,
    version: Option<String>,
    uid: Option<String>,
    is_owned: bool,
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSecret").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl StoredSecret {
    fn of(secret: Secret, uid: &str) -> Self {
        let is_owned = secret.owner_references().iter().any(|owner| owner.uid == uid);
        let text = |ByteString(bytes)| String::from_utf8(bytes).unwrap_or_default();
        Self {
            notes: secret.metadata.annotations.unwrap_or_default(),
            version: secret.metadata.resource_version,
            uid: secret.metadata.uid,
            data: secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, text(bytes))).collect(),
            is_owned,
        }
    }

    /// The text of a key; empty if there is none.
    pub(super) fn text(&self, key: &str) -> &str {
        self.data.get(key).map_or("", String::as_str)
    }

    /// The note under this name.
    pub(super) fn note(&self, name: &str) -> &str {
        self.notes.get(name).map_or("", String::as_str)
    }
}

/// The Secrets of a cluster.
pub(super) struct Secrets<'a> {
    api: Api<Secret>,
    cluster: &'a Cluster,
}

impl<'a> Secrets<'a> {
    /// Those of this cluster.
    pub(super) fn new(client: &Client, cluster: &'a Cluster) -> Self {
        Self { api: Api::namespaced(client.clone(), &cluster.namespace), cluster }
    }

    /// The Secret of an authority, and the field that names it if somebody else makes it.
    pub(super) fn authority(&self, kind: Kind) -> (String, Option<&'static str>) {
        let tls = &self.cluster.spec.tls;
        let (named, field, own) = match kind {
            Kind::Peer => (&tls.secret_name, "spec.tls.secretName", "peer-ca"),
            Kind::Client => (&tls.client_ca_secret_name, "spec.tls.clientCaSecretName", "client-ca"),
        };
        named.clone().map_or_else(|| (format!("{}-{own}", self.cluster.name), None), |name| (name, Some(field)))
    }

    /// A Secret that the operator makes. One that belongs to someone else is refused.
    pub(super) async fn own(&self, name: &str) -> Result<Option<StoredSecret>, Error> {
        let Some(found) = self.get(name).await? else { return Ok(None) };
        owned::check(&found, self.cluster)?;
        Ok(Some(StoredSecret::of(found, &self.cluster.uid)))
    }

    /// A Secret that somebody else makes. One that an operator made for another cluster is refused: otherwise anyone who may make a
    /// `ZueCluster` could use the certificates of that cluster.
    pub(super) async fn others(&self, name: &str) -> Result<Option<StoredSecret>, Error> {
        let Some(found) = self.get(name).await? else { return Ok(None) };
        let is_of_cluster =
            |owner: &OwnerReference| owner.kind == ZueCluster::kind(&()) && owner.uid != self.cluster.uid;
        if found.owner_references().iter().any(is_of_cluster) {
            return Err(Error::NotOurs { kind: "Secret".to_owned(), name: name.to_owned() });
        }
        Ok(Some(StoredSecret::of(found, &self.cluster.uid)))
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        within(format!("read Secret {name}"), self.api.get_opt(name)).await
    }

    /// Makes it hold this and nothing else. It is not written if it does so already, nor if another has written it meanwhile.
    pub(super) async fn write(
        &self,
        name: &str,
        before: Option<&StoredSecret>,
        data: Texts,
        notes: Texts,
    ) -> Result<bool, Error> {
        let Some(before) = before else {
            let mut metadata = build::meta(self.cluster, name);
            metadata.annotations = Some(notes);
            let secret = Secret { metadata, string_data: Some(data), ..Secret::default() };
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            within(format!("create Secret {name}"), self.api.create(&params, &secret)).await?;
            return Ok(true);
        };
        let has_notes = notes.iter().all(|(name, value)| before.notes.get(name) == Some(value));
        if before.data == data && has_notes && before.is_owned {
            return Ok(false);
        }
        let mut fields: BTreeMap<&str, Value> = before.data.keys().map(|key| (key.as_str(), Value::Null)).collect();
        let encoded = data.iter().map(|(key, text)| (key.as_str(), json!(ByteString(text.clone().into_bytes()))));
        fields.extend(encoded);
        let metadata = json!({
            "resourceVersion": before.version, "uid": before.uid, "annotations": notes,
            "labels": build::labels(self.cluster), "ownerReferences": [self.cluster.owner],
        });
        let patch = Patch::Merge(json!({ "metadata": metadata, "data": fields }));
        within(format!("write Secret {name}"), self.api.patch(name, &manager(), &patch)).await?;
        Ok(true)
    }

    /// Takes it away, if it is the cluster's.
    pub(super) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(found) = self.own(name).await? else { return Ok(()) };
        let preconditions = Some(Preconditions { uid: found.uid, resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        within(format!("delete Secret {name}"), self.api.delete(name, &params)).await.map(drop)
    }
}
