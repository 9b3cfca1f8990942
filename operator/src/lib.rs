//! The operator of Zue: from ZueCluster resources to running, replicated logs.
//!
//! Pure, and tested without a cluster: [`crd`], [`cluster`], [`build`], [`owned`], [`view`], [`status`], [`labels`], [`rollout`], [`rolling`], [`scale`], [`homing`], [`budget`], [`isr`],
//! [`pods`], [`replace`], [`recover`], [`on_demand`], [`switchover`], [`metrics`], [`rbac`], [`domain`], the plans of [`identities`]. What speaks to Kubernetes: [`operator`] (one for all), [`task`] and [`reporter`] (one each for a cluster), [`apply`],
//! [`volumes`], [`zones`], [`identities`], [`secured`], [`store`], [`events`], [`lease`] (which of several operators acts), [`check`] (whether an installation works). Who leads is decided in `zue_core`, by way of `zue_controller`.

pub mod apply;
pub mod args;
pub mod build;
pub mod check;
pub mod cluster;
#[allow(unreachable_pub, reason = "the derive of KubeSchema declares hidden public structs inside functions")]
pub mod crd;
pub mod domain;
pub mod farewell;
pub mod identities;
pub mod metrics;
mod observe;
pub mod on_demand;
pub mod paused;
pub mod pods;
pub mod rbac;
pub mod recover;
pub mod replace;
mod run;
pub mod status;
pub mod stuck;

pub use apply::{budget, deeds, homing, labels, owned, recovered, rolling, rollout, scale, secured, switchover};
pub use observe::{backups, isr, view, volumes, watched, zones};
pub use run::{cluster_task, http, kubernetes, lease, operator, shared, store};
pub use status::{events, reporter};
