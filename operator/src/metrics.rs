//! Metrics of the operator, in one list. The series of clusters are made anew for every scrape from their last samples, so that those of
//! a deleted cluster are gone with it; only what counts the operator's own work lasts. What happened to a cluster is counted by its nodes:
//! another operator that acts would begin anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{GaugeVec, Histogram, IntCounter, IntGauge, IntGaugeVec, Registry};
use zue_telemetry::metrics::{Described, Label, LinesLeftOut, Maker, open, text};

use crate::crd::status::MemberRole;
use crate::observe::view::ClusterView;
use crate::status::Fact;

/// A cluster: its namespace and name.
pub type Key = (String, String);

/// Upper bounds of the buckets of reconciliations, seconds.
const RECONCILIATIONS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The sample of a look at a cluster.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its nodes and pods.
    pub view: ClusterView,
    /// Its conditions.
    pub facts: Vec<Fact>,
    /// The number of pods still to be replaced.
    pub stale_pods: usize,
    /// True if its volumes could not be grown.
    pub is_growth_refused: bool,
}

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    own: Registry,
    described: Vec<Described>,
    reconciles: IntCounter,
    reconcile_errors: IntCounter,
    reconcile_seconds: Histogram,
    is_leader: IntGauge,
    lines_left_out: LinesLeftOut,
    clusters: Mutex<BTreeMap<Key, Sample>>,
}

impl Metrics {
    /// No cluster yet.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut make = Maker::default();
        make.gauges(
            "zue_operator_build_info",
            "Always 1: the label tells the version of this operator.",
            &[open("version")],
        )?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        make.process()?;
        let lines_left_out = make.lines_left_out("zue_operator_log_lines_left_out_total")?;
        let is_leader = make.gauge("zue_operator_is_leader", "1 while this operator is the one that acts.")?;
        let reconciles =
            make.counter("zue_operator_reconcile_total", "Reconciliations of ZueClusters that this operator made.")?;
        let reconcile_errors = make.counter(
            "zue_operator_reconcile_errors_total",
            "Reconciliations of ZueClusters that failed at least in part.",
        )?;
        let took = "Time that a reconciliation of a ZueCluster takes.";
        let reconcile_seconds = make.durations("zue_operator_reconcile_duration_seconds", took, &RECONCILIATIONS)?;
        let (own, mut described) = make.finish();
        described.extend(Series::new()?.1.1);
        let clusters = Mutex::default();
        Ok(Self {
            own,
            described,
            reconciles,
            reconcile_errors,
            reconcile_seconds,
            is_leader,
            lines_left_out,
            clusters,
        })
    }

    /// The metrics with their descriptions.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Tells whether this operator acts. One that does not knows nothing of the clusters.
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
    pub fn saw(&self, key: &Key, sample: Sample) {
        self.clusters().insert(key.clone(), sample);
    }

    /// A cluster is gone.
    pub fn forget(&self, key: &Key) {
        self.clusters().remove(key);
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let (series, (of_clusters, _)) = Series::new()?;
        for ((namespace, name), sample) in self.clusters().iter() {
            series.fill([namespace, name], sample);
        }
        self.lines_left_out.look();
        let mut families = self.own.gather();
        families.extend(of_clusters.gather());
        text(&families)
    }

    fn clusters(&self) -> MutexGuard<'_, BTreeMap<Key, Sample>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CLUSTER: [Label; 2] = [open("namespace"), open("cluster")];
const CONDITION: [Label; 3] = [open("namespace"), open("cluster"), open("condition")];
const REPLICA: [Label; 3] = [open("namespace"), open("cluster"), open("pod")];

/// The list of what is told of clusters: each metric's field, its kind, name, help and labels.
macro_rules! series {
    ($($field:ident: $kind:ty = $make:ident($name:literal, $help:expr, $labels:expr $(,)?);)+) => {
        /// One scrape's series of all clusters.
        struct Series {
            $($field: $kind,)+
        }

        impl Series {
            /// None yet, and where they are.
            fn new() -> Result<(Self, (Registry, Vec<Described>)), prometheus::Error> {
                let mut make = Maker::default();
                $(let $field = make.$make($name, $help, $labels)?;)+
                Ok((Self { $($field,)+ }, make.finish()))
            }
        }
    };
}

series! {
    replicas: IntGaugeVec = gauges(
        "zue_cluster_replicas",
        "Replicas that the ZueCluster is to have, those included that are still to go.",
        &CLUSTER,
    );
    ready: IntGaugeVec = gauges("zue_cluster_ready_replicas", "Pods of the ZueCluster that are ready.", &CLUSTER);
    isr: IntGaugeVec = gauges(
        "zue_cluster_isr_size",
        "Replicas of the ZueCluster that are in sync, the leader included.",
        &CLUSTER,
    );
    quorum: IntGaugeVec = gauges(
        "zue_cluster_quorum",
        "Replicas that must hold a record before the ZueCluster acknowledges it.",
        &CLUSTER,
    );
    under_replicated: IntGaugeVec = gauges(
        "zue_cluster_under_replicated",
        "1 while not all replicas of the ZueCluster are in sync.",
        &CLUSTER,
    );
    below_quorum: IntGaugeVec = gauges(
        "zue_cluster_below_quorum",
        "1 while too few replicas of the ZueCluster are in sync to append.",
        &CLUSTER,
    );
    offline: IntGaugeVec = gauges("zue_cluster_offline", "1 while nobody leads the ZueCluster.", &CLUSTER);
    epoch: IntGaugeVec = gauges(
        "zue_cluster_epoch",
        "The greatest epoch that was ever reserved for the ZueCluster.",
        &CLUSTER,
    );
    stale_pods: IntGaugeVec = gauges(
        "zue_cluster_stale_pods",
        "Pods of the ZueCluster that are still to be replaced, as they are of an older revision.",
        &CLUSTER,
    );
    growth_refused: IntGaugeVec = gauges(
        "zue_cluster_volume_growth_refused",
        "1 while the volumes of the ZueCluster are to be larger and cannot be made so.",
        &CLUSTER,
    );
    condition: IntGaugeVec = gauges(
        "zue_cluster_condition",
        "1 while this condition of the ZueCluster is True, 0 while it is False.",
        &CONDITION,
    );
    leader: IntGaugeVec = gauges(
        "zue_cluster_leader",
        "1 for the pod that leads the ZueCluster, 0 for its others.",
        &REPLICA,
    );
    in_sync: IntGaugeVec = gauges("zue_replica_in_sync", "1 while the replica in this pod is in sync.", &REPLICA);
    lag_records: IntGaugeVec = gauges(
        "zue_replica_lag_records",
        "Records that the replica in this pod is behind the leader; absent while nobody knows: without a leader, or before the leader has \
         reached it.",
        &REPLICA,
    );
    lag_seconds: GaugeVec = measures(
        "zue_replica_lag_seconds",
        "Time since the replica in this pod had all that its leader then had, in seconds; absent without a leader, or if it never had.",
        &REPLICA,
    );
}

impl Series {
    fn fill(&self, cluster: [&str; 2], sample: &Sample) {
        let Sample { view, facts, stale_pods, is_growth_refused } = sample;
        let [namespace, name] = cluster;
        let set = |gauge: &IntGaugeVec, value: u64| gauge.with_label_values(&cluster).set(signed(value));
        set(&self.replicas, view.size().into());
        set(&self.ready, view.ready().into());
        set(&self.isr, view.isr_size().into());
        set(&self.quorum, view.quorum.into());
        set(&self.under_replicated, (view.isr_size() < view.size()).into());
        set(&self.below_quorum, (view.committing < view.quorum).into());
        set(&self.offline, view.leader.is_none().into());
        set(&self.epoch, view.epoch);
        set(&self.stale_pods, u64::try_from(*stale_pods).unwrap_or(u64::MAX));
        set(&self.growth_refused, (*is_growth_refused).into());
        for fact in facts {
            self.condition.with_label_values(&[namespace, name, fact.type_]).set(fact.holds.into());
        }
        for replica in &view.replicas {
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
    use crate::observe::view::tests::{follower, healthy, leader, look, silent};

    fn key(name: &str) -> Key {
        ("shop".to_owned(), name.to_owned())
    }

    fn sample(view: ClusterView) -> Sample {
        let facts =
            crate::status::facts(&crate::cluster::tests::cluster("{}"), &view, &crate::status::Workload::default());
        Sample { view, facts, stale_pods: 0, is_growth_refused: false }
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
        metrics.saw(&key("orders"), Sample { stale_pods: 2, is_growth_refused: true, ..sample(view) });
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
                r#"zue_cluster_stale_pods{cluster="orders",namespace="shop"} 2"#,
                r#"zue_cluster_volume_growth_refused{cluster="orders",namespace="shop"} 1"#,
                r#"zue_cluster_condition{cluster="orders",condition="Degraded",namespace="shop"} 1"#,
                r#"zue_cluster_condition{cluster="orders",condition="Reconciled",namespace="shop"} 1"#,
                "zue_operator_reconcile_total 1",
                "zue_operator_reconcile_errors_total 1",
                "zue_operator_reconcile_duration_seconds_count 1",
                r#"zue_operator_log_lines_left_out_total{why="unwritten"} 0"#,
                r#"zue_operator_log_lines_left_out_total{why="repeated"} 0"#,
            ],
        );
    }

    #[test]
    fn a_deleted_clusters_series_go_away_and_others_stay() {
        let metrics = Metrics::new().unwrap();
        metrics.saw(&key("orders"), sample(healthy()));
        metrics.saw(&key("bills"), sample(healthy()));
        metrics.forget(&key("orders"));
        let text = metrics.text().unwrap();
        assert!(!text.contains("orders\","), "{text}");
        has(&text, &[r#"zue_cluster_isr_size{cluster="bills",namespace="shop"} 3"#]);
    }

    #[test]
    fn without_a_leader_lag_is_not_known_and_the_cluster_is_offline() {
        let metrics = Metrics::new().unwrap();
        let view = look(&[silent(), follower(2), follower(3)], &Step::Nothing, &[]);
        metrics.saw(&key("orders"), sample(view));
        let text = metrics.text().unwrap();
        has(&text, &[r#"zue_cluster_offline{cluster="orders",namespace="shop"} 1"#]);
        assert!(!text.contains("zue_replica_lag_records{"), "{text}");
    }
}
