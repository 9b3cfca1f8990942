//! What Prometheus is told. The series of clusters are made anew for every scrape from their last samples, so that those of a deleted
//! cluster are gone with it; only the operator's own counters last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use zue_core::control::Reason;

use crate::crd::status::MemberRole;
use crate::view::View;

/// A cluster: its namespace and name.
pub type Key = (String, String);

/// How often what happened to a cluster, since the operator started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Elections that were not planned, by reason.
    pub failovers: BTreeMap<&'static str, u64>,
    /// Planned changes of the leader.
    pub switchovers: u64,
    /// Replicas that fell out of sync.
    pub isr_shrinks: u64,
    /// Replicas that came back in sync.
    pub isr_expands: u64,
}

impl Default for Counts {
    /// Every reason is there from the beginning: what is born with 1 is no increase.
    fn default() -> Self {
        let failovers = [Reason::NoLeader, Reason::LeaderLost, Reason::HigherPromise];
        let failovers = failovers.into_iter().filter_map(unplanned).map(|reason| (reason, 0)).collect();
        Self { failovers, switchovers: 0, isr_shrinks: 0, isr_expands: 0 }
    }
}

/// The reason of an election that nobody planned, as a label.
pub const fn unplanned(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Bootstrap | Reason::HandOver | Reason::VotersChange | Reason::VotersSettled | Reason::QuorumChange => {
            None
        }
        Reason::NoLeader => Some("NoLeader"),
        Reason::LeaderLost => Some("LeaderLost"),
        Reason::QuorumLost => Some("QuorumLost"),
        Reason::HigherPromise | Reason::FarPromise => Some("HigherPromise"),
    }
}

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    own: Registry,
    reconciles: IntCounter,
    reconcile_errors: IntCounter,
    reconcile_seconds: Histogram,
    is_leader: IntGauge,
    lines_left_out: IntCounterVec,
    clusters: Mutex<BTreeMap<Key, (View, Counts)>>,
}

impl Metrics {
    /// No cluster yet.
    pub fn new() -> Result<Self, prometheus::Error> {
        let own = Registry::new();
        let reconciles = IntCounter::new("zue_operator_reconcile_total", "Reconciliations of ZueClusters.")?;
        let reconcile_errors =
            IntCounter::new("zue_operator_reconcile_errors_total", "Reconciliations that failed at least in part.")?;
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let reconcile_seconds = Histogram::with_opts(
            HistogramOpts::new("zue_operator_reconcile_duration_seconds", "How long reconciliations take.")
                .buckets(buckets),
        )?;
        let build = IntGaugeVec::new(Opts::new("zue_operator_build_info", "Always 1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let is_leader = IntGauge::new("zue_operator_is_leader", "Whether this operator is the one that acts.")?;
        let (name, help) = ("zue_operator_log_lines_left_out_total", "Log lines not written, or that repeat others.");
        let lines_left_out = IntCounterVec::new(Opts::new(name, help), &["why"])?;
        own.register(Box::new(lines_left_out.clone()))?;
        own.register(Box::new(is_leader.clone()))?;
        own.register(Box::new(reconciles.clone()))?;
        own.register(Box::new(reconcile_errors.clone()))?;
        own.register(Box::new(reconcile_seconds.clone()))?;
        own.register(Box::new(build))?;
        let clusters = Mutex::default();
        Ok(Self { own, reconciles, reconcile_errors, reconcile_seconds, is_leader, lines_left_out, clusters })
    }

    /// Whether this operator acts. One that does not knows nothing of the clusters.
    pub fn acts(&self, acts: bool) {
        self.is_leader.set(acts.into());
        if !acts {
            self.clusters().clear();
        }
    }

    /// A reconciliation ended.
    pub fn reconciled(&self, took: Duration, failed: bool) {
        self.reconciles.inc();
        if failed {
            self.reconcile_errors.inc();
        }
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// The last look at a cluster.
    pub fn saw(&self, key: &Key, view: View, counts: Counts) {
        self.clusters().insert(key.clone(), (view, counts));
    }

    /// A cluster is gone.
    pub fn forget(&self, key: &Key) {
        self.clusters().remove(key);
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let of_clusters = Registry::new();
        let series = Series::new(&of_clusters)?;
        for ((namespace, name), (view, counts)) in self.clusters().iter() {
            series.fill([namespace, name], view, counts);
        }
        for (why, so_far) in zue_telemetry::left_out().by_reason() {
            let counter = self.lines_left_out.with_label_values(&[why]);
            counter.inc_by(so_far.saturating_sub(counter.get()));
        }
        let mut families = self.own.gather();
        families.extend(of_clusters.gather());
        let mut text = Vec::new();
        prometheus::TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn clusters(&self) -> MutexGuard<'_, BTreeMap<Key, (View, Counts)>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One scrape's series of all clusters.
struct Series {
    replicas: IntGaugeVec,
    ready: IntGaugeVec,
    isr: IntGaugeVec,
    quorum: IntGaugeVec,
    under_replicated: IntGaugeVec,
    below_quorum: IntGaugeVec,
    offline: IntGaugeVec,
    epoch: IntGaugeVec,
    leader: IntGaugeVec,
    in_sync: IntGaugeVec,
    lag_records: IntGaugeVec,
    lag_seconds: GaugeVec,
    failovers: IntCounterVec,
    switchovers: IntCounterVec,
    shrinks: IntCounterVec,
    expands: IntCounterVec,
}

const CLUSTER: [&str; 2] = ["namespace", "cluster"];
const REPLICA: [&str; 3] = ["namespace", "cluster", "pod"];

impl Series {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |labels: &[&str], name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |labels: &[&str], name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let lag_seconds = GaugeVec::new(
            Opts::new(
                "zue_replica_lag_seconds",
                "How long ago the replica was last caught up; absent without a leader, or if it never was.",
            ),
            &REPLICA,
        )?;
        registry.register(Box::new(lag_seconds.clone()))?;
        let behind = "Records that the replica is behind the leader; absent without a leader.";
        Ok(Self {
            replicas: gauge(&CLUSTER, "zue_cluster_replicas", "Replicas there are to be.")?,
            ready: gauge(&CLUSTER, "zue_cluster_ready_replicas", "Pods that are ready.")?,
            isr: gauge(&CLUSTER, "zue_cluster_isr_size", "Replicas in sync, the leader included.")?,
            quorum: gauge(
                &CLUSTER,
                "zue_cluster_quorum",
                "Replicas that must hold a record before it is acknowledged.",
            )?,
            under_replicated: gauge(&CLUSTER, "zue_cluster_under_replicated", "1 if not all replicas are in sync.")?,
            below_quorum: gauge(&CLUSTER, "zue_cluster_below_quorum", "1 if too few are in sync to append.")?,
            offline: gauge(&CLUSTER, "zue_cluster_offline", "1 if nobody leads.")?,
            epoch: gauge(&CLUSTER, "zue_cluster_epoch", "The greatest epoch ever reserved.")?,
            leader: gauge(&REPLICA, "zue_cluster_leader", "1 for the pod that leads.")?,
            in_sync: gauge(&REPLICA, "zue_replica_in_sync", "1 if the replica is in sync.")?,
            lag_records: gauge(&REPLICA, "zue_replica_lag_records", behind)?,
            lag_seconds,
            failovers: counter(
                &["namespace", "cluster", "reason"],
                "zue_failovers_total",
                "Leaders elected unplanned.",
            )?,
            switchovers: counter(&CLUSTER, "zue_switchovers_total", "Leaders changed as planned.")?,
            shrinks: counter(&CLUSTER, "zue_isr_shrinks_total", "Replicas that fell out of sync.")?,
            expands: counter(&CLUSTER, "zue_isr_expands_total", "Replicas that came in sync.")?,
        })
    }

    fn fill(&self, cluster: [&str; 2], view: &View, counts: &Counts) {
        let set = |gauge: &IntGaugeVec, value: u64| gauge.with_label_values(&cluster).set(signed(value));
        set(&self.replicas, view.size().into());
        set(&self.ready, view.ready().into());
        set(&self.isr, view.isr_size().into());
        set(&self.quorum, view.quorum.into());
        set(&self.under_replicated, (view.isr_size() < view.size()).into());
        set(&self.below_quorum, (view.committing < view.quorum).into());
        set(&self.offline, view.leader.is_none().into());
        set(&self.epoch, view.epoch);
        for replica in &view.replicas {
            let [namespace, name] = cluster;
            let labels = [namespace, name, replica.pod.as_str()];
            self.leader.with_label_values(&labels).set((replica.role == MemberRole::Leader).into());
            self.in_sync.with_label_values(&labels).set(replica.in_sync.into());
            if let Some(lag) = replica.lag_records {
                self.lag_records.with_label_values(&labels).set(signed(lag));
            }
            if let Some(ms) = replica.lag_ms {
                self.lag_seconds.with_label_values(&labels).set(Duration::from_millis(ms).as_secs_f64());
            }
        }
        let [namespace, name] = cluster;
        for (reason, count) in &counts.failovers {
            self.failovers.with_label_values(&[namespace, name, reason]).inc_by(*count);
        }
        self.switchovers.with_label_values(&cluster).inc_by(counts.switchovers);
        self.shrinks.with_label_values(&cluster).inc_by(counts.isr_shrinks);
        self.expands.with_label_values(&cluster).inc_by(counts.isr_expands);
    }
}

/// Prometheus' integers are signed; no log reaches the difference.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use zue_core::control::Step;

    use super::*;
    use crate::view::tests::{follower, healthy, leader, look, silent};

    fn key(name: &str) -> Key {
        ("shop".to_owned(), name.to_owned())
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_cluster_with_a_follower_down_is_told_in_numbers() {
        let metrics = Metrics::new().unwrap();
        let view = look(&[leader(1, 4, &[1, 3], &[(2, 70), (3, 0)]), silent(), follower(3)], &Step::Nothing, &[]);
        let failovers = [("NoLeader", 2)].into();
        metrics.saw(&key("orders"), view, Counts { isr_shrinks: 3, isr_expands: 2, failovers, switchovers: 1 });
        metrics.reconciled(Duration::from_millis(30), true);
        has(
            &metrics.text().unwrap(),
            &[
                r#"zue_cluster_replicas{cluster="orders",namespace="shop"} 3"#,
                r#"zue_cluster_isr_size{cluster="orders",namespace="shop"} 2"#,
                r#"zue_cluster_quorum{cluster="orders",namespace="shop"} 2"#,
                r#"zue_cluster_under_replicated{cluster="orders",namespace="shop"} 1"#,
                r#"zue_cluster_below_quorum{cluster="orders",namespace="shop"} 0"#,
                r#"zue_cluster_offline{cluster="orders",namespace="shop"} 0"#,
                r#"zue_cluster_leader{cluster="orders",namespace="shop",pod="orders-0"} 1"#,
                r#"zue_cluster_leader{cluster="orders",namespace="shop",pod="orders-1"} 0"#,
                r#"zue_cluster_epoch{cluster="orders",namespace="shop"} 4"#,
                r#"zue_replica_in_sync{cluster="orders",namespace="shop",pod="orders-1"} 0"#,
                r#"zue_replica_lag_records{cluster="orders",namespace="shop",pod="orders-1"} 70"#,
                r#"zue_replica_lag_seconds{cluster="orders",namespace="shop",pod="orders-1"} 0.07"#,
                r#"zue_failovers_total{cluster="orders",namespace="shop",reason="NoLeader"} 2"#,
                r#"zue_switchovers_total{cluster="orders",namespace="shop"} 1"#,
                r#"zue_isr_shrinks_total{cluster="orders",namespace="shop"} 3"#,
                r#"zue_isr_expands_total{cluster="orders",namespace="shop"} 2"#,
                "zue_operator_reconcile_total 1",
                "zue_operator_reconcile_errors_total 1",
                "zue_operator_reconcile_duration_seconds_count 1",
                r#"zue_operator_log_lines_left_out_total{why="unwritten"} 0"#,
                r#"zue_operator_log_lines_left_out_total{why="repeated"} 0"#,
            ],
        );
    }

    #[test]
    fn every_reason_of_a_failover_is_told_before_there_is_one() {
        let metrics = Metrics::new().unwrap();
        metrics.saw(&key("orders"), healthy(), Counts::default());
        let text = metrics.text().unwrap();
        for reason in ["NoLeader", "LeaderLost", "HigherPromise"] {
            let line = format!(r#"zue_failovers_total{{cluster="orders",namespace="shop",reason="{reason}"}} 0"#);
            has(&text, &[&line]);
        }
    }

    #[test]
    fn a_deleted_clusters_series_go_away_and_others_stay() {
        let metrics = Metrics::new().unwrap();
        metrics.saw(&key("orders"), healthy(), Counts::default());
        metrics.saw(&key("bills"), healthy(), Counts::default());
        metrics.forget(&key("orders"));
        let text = metrics.text().unwrap();
        assert!(!text.contains("orders\","), "{text}");
        has(&text, &[r#"zue_cluster_isr_size{cluster="bills",namespace="shop"} 3"#]);
    }

    #[test]
    fn without_a_leader_lag_is_not_known_and_the_cluster_is_offline() {
        let metrics = Metrics::new().unwrap();
        metrics.saw(
            &key("orders"),
            look(&[silent(), follower(2), follower(3)], &Step::Nothing, &[]),
            Counts::default(),
        );
        let text = metrics.text().unwrap();
        has(&text, &[r#"zue_cluster_offline{cluster="orders",namespace="shop"} 1"#]);
        assert!(!text.contains("zue_replica_lag_records{"), "{text}");
    }
}
