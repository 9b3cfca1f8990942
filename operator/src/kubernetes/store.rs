//! The record that controllers write before they act, in the status of the ZueCluster: replaced by compare-and-swap on its version.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use zue_controller::Store;
use zue_core::control::Recorded;
use zue_core::{ClusterId, Epoch, ReplicaId};

use crate::cluster::Cluster;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::kubernetes::{FIELD_MANAGER, within};

/// So often a swap is tried while other parts of the resource change.
const ATTEMPTS: u32 = 5;

/// The status of one ZueCluster as a store.
///
/// The version that was read or written last is remembered, so that a cluster at rest is not asked for again and again. That may be stale, and
/// does no harm: a swap compares with what is really there.
#[derive(Debug)]
pub struct StatusStore {
    api: Api<ZueCluster>,
    name: String,
    uid: String,
    known: Mutex<Option<Recorded>>,
}

/// Why the status could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused, or was not reached.
    #[error(transparent)]
    Kubernetes(#[from] crate::kubernetes::Error),
    /// The resource was deleted, perhaps made anew: what is written there is another's.
    #[error("the ZueCluster was deleted")]
    Gone,
    /// A field that no controller wrote so.
    #[error("status.{field} is {value:?}: not the 32 hexadecimal digits of an id")]
    Malformed {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl StatusStore {
    /// The store of a cluster.
    pub fn new(client: Client, cluster: &Cluster) -> Self {
        Self::knowing(client, cluster, None)
    }

    /// The same, with what a watch has seen of it.
    pub fn knowing(client: Client, cluster: &Cluster, known: Option<Recorded>) -> Self {
        Self {
            api: Api::namespaced(client, &cluster.namespace),
            name: cluster.name.clone(),
            uid: cluster.uid.clone(),
            known: Mutex::new(known),
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Recorded>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self) -> Result<ZueCluster, StoreError> {
        let found = within("read the status", self.api.get_opt(&self.name)).await?;
        found.filter(|found| found.uid().as_ref() == Some(&self.uid)).ok_or(StoreError::Gone)
    }
}

impl Store for StatusStore {
    type Error = StoreError;

    async fn load(&self) -> Result<Recorded, StoreError> {
        let known = self.known().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let recorded = recorded(self.get().await?.status.as_ref())?;
        *self.known() = Some(recorded.clone());
        Ok(recorded)
    }

    async fn swap(&self, from: &Recorded, to: &Recorded) -> Result<bool, StoreError> {
        // Until it is known that it was written, nothing is.
        *self.known() = None;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        for _ in 0..ATTEMPTS {
            let mut resource = self.get().await?;
            if recorded(resource.status.as_ref())? != *from {
                return Ok(false);
            }
            write(resource.status.get_or_insert_default(), to);
            match within("write the status", self.api.replace_status(&self.name, &params, &resource)).await {
                Ok(_) => {
                    *self.known() = Some(to.clone());
                    return Ok(true);
                }
                // Something of the resource was changed meanwhile: not what is compared, perhaps, but a report or an annotation.
                Err(error) if error.code() == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

/// The record in a status.
pub fn recorded(status: Option<&ZueClusterStatus>) -> Result<Recorded, StoreError> {
    let Some(status) = status else { return Ok(Recorded::default()) };
    Ok(Recorded {
        epoch: Epoch(status.epoch.unwrap_or_default()),
        leader: id("recordedLeader", status.recorded_leader.as_deref())?.map(ReplicaId),
        cluster: id("clusterId", status.cluster_id.as_deref())?.map(ClusterId),
    })
}

fn write(status: &mut ZueClusterStatus, recorded: &Recorded) {
    let Recorded { epoch, leader, cluster } = recorded;
    status.epoch = Some(epoch.0);
    status.recorded_leader = leader.map(|id| id.to_string());
    status.cluster_id = cluster.map(|id| id.to_string());
}

fn id(field: &'static str, value: Option<&str>) -> Result<Option<u128>, StoreError> {
    let Some(value) = value else { return Ok(None) };
    let malformed = || StoreError::Malformed { field, value: value.to_owned() };
    let id = u128::from_str_radix(value, 16).ok().filter(|id| *id != 0 && value.len() == 32);
    id.map(Some).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let all = Recorded { epoch: Epoch(7), leader: Some(ReplicaId(0xab)), cluster: Some(ClusterId(u128::MAX)) };
        for expected in [Recorded::default(), all] {
            let mut status = ZueClusterStatus::default();
            write(&mut status, &expected);
            assert_eq!(recorded(Some(&status)).unwrap(), expected);
        }
        assert_eq!(recorded(None).unwrap(), Recorded::default());
    }

    #[test]
    fn an_id_that_nobody_wrote_is_refused_with_its_field() {
        for value in ["", "0", "xyz", "00000000000000000000000000000000", "+0000000000000000000000000000001f"] {
            let status = ZueClusterStatus { cluster_id: Some(value.to_owned()), ..Default::default() };
            assert!(recorded(Some(&status)).unwrap_err().to_string().contains("status.clusterId"), "{value}");
        }
    }
}
