//! Facts of a cluster beside its nodes: the outcome of the last reconciliation, and what its task adds to that.

use std::sync::{Arc, Mutex};

use crate::crd::security::TlsMode;
use crate::crd::status::Recovery;
use crate::identities::plan::NodeTls;
use crate::observe::pods::{Sets, Zones};
use crate::plan::recover::{Recover, Stage};
use crate::plan::replace::Replace;
use crate::plan::scale::Spare;

/// Facts beside the nodes and pods themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Workload {
    /// The generation of the resource that was applied last.
    pub generation: Option<i64>,
    /// The pods.
    pub pods: PodFacts,
    /// Their volumes.
    pub volumes: VolumeFacts,
    /// The error that stood in the way of applying the objects.
    pub problem: Option<String>,
    /// The error that stood in the way of the disruption budget.
    pub budget_problem: Option<String>,
    /// The number of times that the objects were applied: what the task keeps of them is looked at again each time.
    pub rounds: u64,
    /// The replica or majority that is given up.
    pub given_up: GivenUp,
    /// Its task's news for reconciliations.
    pub news: TaskNews,
    /// In which mode of TLS the cluster is, once that is settled.
    pub tls_mode: Option<TlsMode>,
    /// Why the resource as it is now can't be followed; the cluster goes on as it was.
    pub invalid: Option<InvalidResource>,
}

/// News that reconciliations and the task of a cluster leave behind for each other.
pub type SharedWorkload = Arc<Mutex<Workload>>;

/// Pods, beside what is seen of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodFacts {
    /// The number of pods that the StatefulSet has, as far as it is known.
    pub count: Option<i32>,
    /// The revision that the StatefulSet gives new pods, once it has taken note of its newest template.
    pub revision: Option<String>,
    /// The number of pods of an older revision.
    pub stale: usize,
    /// The pods that are the cluster's own.
    pub sets: Sets,
    /// The pods of its name that are not: those of a ZueCluster that was deleted.
    pub foreign: Vec<String>,
    /// The places of the pods.
    pub pod_zones: PodZones,
}

/// Volumes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VolumeFacts {
    /// The size that all of them have at least.
    pub size: Option<String>,
    /// Why they are not as large as they are to be, if they are not.
    pub growth_refused: Option<String>,
}

/// The findings of a cluster's task, for reconciliations and reports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskNews {
    /// True if the cluster can spare a pod.
    pub may_evict: bool,
    /// The pods that nothing depends on any more.
    pub spare: Option<Spare>,
    /// The TLS that each node shows, by ordinal; none of those that do not answer.
    pub shown: Vec<Option<NodeTls>>,
}

/// In which zone each pod is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodZones {
    /// As far as it was asked for and is known.
    pub zones: Zones,
    /// The error that stood in the way of knowing it.
    pub problem: Option<String>,
}

/// Replicas that a person gives up for good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenUp {
    /// The replica that is to be replaced, or why that cannot be.
    pub replica: Option<Replace>,
    /// The majority that is to be given up, and what that means.
    pub majority: Option<Recover>,
    /// The progress of that.
    pub stage: Option<Stage>,
    /// The part of it that the objects were applied by.
    pub applied: Option<Recovery>,
}

/// An invalid resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InvalidResource {
    /// Its generation.
    pub generation: Option<i64>,
    /// Its fault.
    pub message: String,
}
