//! The operator of Zue: from ZueCluster resources to running, replicated logs.
//!
//! Pure, and tested without a cluster: [`crd`], [`cluster`], [`domain`], [`build`] (the objects), [`observe`] (what is seen, as one view),
//! [`plan`] (what follows from it), [`status`], [`metrics`], [`rbac`], the plans of [`identities`]. What speaks to Kubernetes: [`kubernetes`]
//! (calls, the Lease, the record), [`apply`], [`identities`], [`report`] (what is told and done beside the turns), [`run`] (one loop for all
//! clusters and a task for each), [`check`] (whether an installation works). Who leads is decided in `zue_core`, by way of `zue_controller`.

pub mod apply;
pub mod args;
pub mod build;
pub mod check;
pub mod cluster;
#[allow(unreachable_pub, reason = "the derive of KubeSchema declares hidden public structs inside functions")]
pub mod crd;
pub mod domain;
pub mod identities;
pub mod kubernetes;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod rbac;
pub mod report;
pub mod run;
pub mod status;
