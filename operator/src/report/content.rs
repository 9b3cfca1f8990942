//! News and deeds that a look at a cluster hands in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tracing::warn;
use zue_core::control::Recorded;

use crate::cluster::Cluster;
use crate::crd::ZueClusterStatus;
use crate::observe::view::ClusterView;
use crate::plan::event::ClusterEvent;
use crate::plan::switchover::Switchover;
use crate::status::{Fact, Workload};

/// The age beyond which a look takes no pod away: a call to the API server, or a turn, may have lasted.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// The report of one look.
#[derive(Clone, Debug)]
pub struct Report {
    /// The cluster as its resource says.
    pub cluster: Cluster,
    /// The look.
    pub view: ClusterView,
    /// The facts beside that.
    pub workload: Workload,
    /// The status that follows.
    pub facts: Vec<Fact>,
    /// The status that the resource shows, and its version.
    pub found: Option<(Option<String>, ZueClusterStatus)>,
    /// The parts that are written down.
    pub recorded: Recorded,
    /// The deeds to be done.
    pub asked: Asked,
}

/// The deeds that a look asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the look ended.
    pub seen_at: Instant,
    /// The replica that is to lead, by annotation, and the resource's version with it.
    pub switchover: Option<(Switchover, Option<String>)>,
    /// True if the annotation is there that gives a majority up.
    pub recovers: bool,
    /// True if the leader's pod may be deleted while it leads: it cannot hand over, or was waited for in vain.
    pub may_go: bool,
    /// The cluster's pods.
    pub pods: Vec<Arc<Pod>>,
}

impl Asked {
    pub(super) fn is_fresh(&self) -> bool {
        self.seen_at.elapsed() < FRESH_FOR
    }
}

/// Hands an Event in to be told, unless too many wait already.
pub(super) fn tell(events: &mpsc::Sender<ClusterEvent>, event: ClusterEvent) {
    if let Err(lost) = events.try_send(event) {
        warn!("too many Events wait for the API server; dropped: {}", lost.into_inner().note);
    }
}
