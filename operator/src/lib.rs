//! The operator of Zue: from ZueCluster resources to running, replicated logs.
//!
//! Pure, and tested without a cluster: [`crd`], [`cluster`], [`build`], [`owned`], [`view`], [`status`], [`labels`], [`rollout`], [`budget`], [`isr`],
//! [`pods`], [`replace`], [`switchover`], [`metrics`], [`rbac`], [`domain`], the plans of [`identities`]. What speaks to Kubernetes: [`operator`] (one for all), [`caretaker`] and [`reporter`] (one each for a cluster), [`apply`],
//! [`volumes`], [`identities`], [`secured`], [`store`], [`events`], [`lease`] (which of several operators acts), [`check`] (whether an installation works). Who leads is decided in `zue_core`, by way of `zue_controller`.

pub mod apply;
pub mod args;
pub mod budget;
pub mod build;
pub mod caretaker;
pub mod check;
pub mod cluster;
#[allow(unreachable_pub, reason = "the derive of KubeSchema declares hidden public structs inside functions")]
pub mod crd;
pub mod deeds;
pub mod domain;
pub mod events;
pub mod farewell;
pub mod http;
pub mod identities;
pub mod isr;
pub mod kubernetes;
pub mod labels;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod owned;
pub mod paused;
pub mod pods;
pub mod rbac;
pub mod replace;
pub mod reporter;
pub mod rollout;
pub mod secured;
pub mod status;
pub mod store;
pub mod stuck;
pub mod switchover;
pub mod view;
pub mod volumes;
pub mod watched;
