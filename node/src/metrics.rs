//! Metrics of a node, in one list. Each node has a registry of its own, so that several run in one process.

use prometheus::{Counter, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use zue_proto::v1::{self, Outcome, Reason};
use zue_telemetry::metrics::{Described, LinesLeftOut, Maker, closed, open};

use crate::replication::ended::Ended;
use crate::tls::File;

/// Upper bounds of the buckets of all durations of appends and of the disk, seconds.
const DURATIONS: [f64; 15] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The same of changes of the leader.
const CHANGES: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
const PORTS: [&str; 3] = ["client", "peer", "metrics"];
/// Those that may have TLS.
const TLS_PORTS: [&str; 2] = ["client", "peer"];
/// Why calls are refused at the door.
const REFUSALS: [Reason; 2] = [Reason::Unauthenticated, Reason::PermissionDenied];
/// Why appends can fail.
const FAILURES: [Reason; 18] = [
    Reason::Unspecified,
    Reason::NotLeader,
    Reason::NoQuorum,
    Reason::SteppedDown,
    Reason::Overloaded,
    Reason::TimedOut,
    Reason::TooLarge,
    Reason::Invalid,
    Reason::SequenceGap,
    Reason::UnknownProducer,
    Reason::Duplicate,
    Reason::StorageFailed,
    Reason::ShuttingDown,
    Reason::DiskFull,
    Reason::TooManyFiles,
    Reason::StorageRefused,
    Reason::Unauthenticated,
    Reason::PermissionDenied,
];
/// The fate of appends that failed.
const OUTCOMES: [Outcome; 3] = [Outcome::NotAppended, Outcome::Unknown, Outcome::Unspecified];
/// Why appends wait for the disk.
pub(crate) const STALLS: [Reason; 3] = [Reason::DiskFull, Reason::TooManyFiles, Reason::StorageRefused];
/// Why a leader was replaced that nobody had asked to go, as controllers name it.
pub(crate) const FAILOVERS: [v1::ElectionReason; 4] = [
    v1::ElectionReason::NoLeader,
    v1::ElectionReason::LeaderLost,
    v1::ElectionReason::QuorumLost,
    v1::ElectionReason::HigherPromise,
];

/// The list: each metric's field, its kind, and its name and help, which is all that there is to say of it.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $make:ident($($argument:expr),+ $(,)?);)+) => {
        /// The metrics of one node.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "each says it in its help text")]
        pub struct Metrics {
            registry: Registry,
            described: Vec<Described>,
            lines_left_out: LinesLeftOut,
            $(pub $field: $kind,)+
        }

        impl Metrics {
            /// Metrics that are all 0.
            ///
            /// # Errors
            /// When a name is used twice or is none.
            pub fn new() -> prometheus::Result<Self> {
                let mut make = Maker::default();
                let build = "Always 1: the label tells the version of this node.";
                make.gauges("zue_build_info", build, &[open("version")])?
                    .with_label_values(&[env!("CARGO_PKG_VERSION")])
                    .set(1);
                make.process()?;
                let lines_left_out = make.lines_left_out("zue_node_log_lines_left_out_total")?;
                $(let $field = make.$make($($argument),+)?;)+
                let (registry, described) = make.finish();
                Ok(Self { registry, described, lines_left_out, $($field,)+ })
            }
        }
    };
}

metrics! {
    // What the replica is.
    is_leader: IntGauge = gauge("zue_node_is_leader", "1 while this replica leads.");
    has_leader: IntGauge = gauge("zue_node_has_leader", "1 while this replica leads, or is fed by a leader.");
    failed: IntGauge = gauge(
        "zue_node_failed",
        "1 once the storage of this replica has failed: it serves what it can, and waits for a person.",
    );
    restored: IntGauge = gauge(
        "zue_node_disk_restored",
        "1 while this replica takes part in nothing, as its disk was restored from an older copy.",
    );
    has_problem: IntGauge = gauge("zue_node_has_problem", "1 while the status of this replica names a problem.");
    epoch: IntGauge = gauge("zue_node_epoch", "The newest epoch in the log of this replica.");
    // The log.
    log_start: IntGauge = gauge("zue_log_start_offset", "The offset at which the log of this replica starts.");
    log_end: IntGauge = gauge("zue_log_end_offset", "The offset at which the log of this replica ends.");
    commit: IntGauge = gauge("zue_commit_offset", "The end of what this replica knows to be committed, as an offset.");
    log_size_bytes: IntGauge = gauge("zue_log_size_bytes", "Size of the files in the data directory, in bytes.");
    segments: IntGauge = gauge("zue_segments", "Segments of this replica's log.");
    // Its leadership.
    voters: IntGauge = gauge(
        "zue_node_voters",
        "Voters, this leader included; 0 where this replica does not lead.",
    );
    quorum: IntGauge = gauge(
        "zue_node_quorum",
        "Voters that must hold a record before this leader acknowledges it; 0 where this replica does not lead.",
    );
    in_reach: IntGauge = gauge(
        "zue_node_voters_in_reach",
        "Voters that can write, by all that this leader knows, itself included; 0 where this replica does not lead.",
    );
    isr_size: IntGauge = gauge(
        "zue_node_isr_size",
        "Voters in sync, this leader included; 0 where this replica does not lead.",
    );
    isr_shrinks: IntCounter = counter("zue_isr_shrinks_total", "Voters that fell out of sync while this replica led.");
    isr_expands: IntCounter = counter("zue_isr_expands_total", "Voters that came into sync while this replica led.");
    failovers: IntCounterVec = counters(
        "zue_failovers_total",
        "Elections of this replica that nobody had planned, by what the former leader had come to.",
        &[closed("reason", &FAILOVERS.map(|reason| reason.as_str_name()))],
    );
    switchovers: IntCounter = counter(
        "zue_switchovers_total",
        "Elections of this replica after the former leader had handed over to it.",
    );
    failover_duration: Histogram = durations(
        "zue_failover_duration_seconds",
        "Time from the last word of the former leader to the first commit of this replica as the leader, where nobody had planned that.",
        &CHANGES,
    );
    switchover_duration: Histogram = durations(
        "zue_switchover_duration_seconds",
        "Time from the last word of the former leader to the first commit of this replica as the leader, after a hand-over.",
        &CHANGES,
    );
    without_leader: Counter = total(
        "zue_without_leader_seconds_total",
        "Time for which this replica neither led nor was fed by a leader, in seconds.",
    );
    without_quorum: Counter = total(
        "zue_without_quorum_seconds_total",
        "Time for which too few voters could write while this replica led, in seconds.",
    );
    // Backups.
    backup_interval: IntGauge =
        gauge("zue_backup_interval_seconds", "Interval of the backups of the log, in seconds; 0 where none are made.");
    backup_newest_time: IntGauge = gauge("zue_backup_newest_timestamp_seconds",
        "Time at which the newest backup in the store was made, as this replica last saw, in seconds since 1970; 0 while it knows of none.");
    backup_newest_end: IntGauge = gauge("zue_backup_newest_end_offset",
        "End offset of a log that is restored from the newest backup in the store, as this replica last saw.");
    backups: IntCounter = counter("zue_backups_total", "Backups that this replica has made.");
    backup_uploaded_bytes: IntCounter =
        counter("zue_backup_uploaded_bytes_total", "Bytes of log that this replica has uploaded for backups.");
    backup_failing: IntGauge = gauge("zue_backup_failing",
        "1 while the last attempt of this replica to make a backup, or to see whether one is due, has failed.");
    backup_failures: IntCounterVec = counters("zue_backup_failures_total",
        "Attempts of this replica to make a backup, or to see whether one is due, that failed.",
        &[closed("reason", &zue_backup::BackupError::REASONS)]);
    // Appends.
    append_records: IntCounter = counter(
        "zue_append_records_total",
        "Records that this replica took into its log as the leader.",
    );
    append_bytes: IntCounter = counter(
        "zue_append_bytes_total",
        "Bytes of log that this replica took in as the leader.",
    );
    append_failures: IntCounterVec = counters(
        "zue_append_failures_total",
        "Appends that this replica answered with an error, by the reason and by what is known of them: NOT_APPENDED, or UNKNOWN if they \
         may be in the log.",
        &[
            closed("reason", &FAILURES.map(|reason| reason.as_str_name())),
            closed("outcome", &OUTCOMES.map(|outcome| outcome.as_str_name())),
        ],
    );
    append_duration: Histogram = durations(
        "zue_append_duration_seconds",
        "Time from the arrival of an append to its answer.",
        &DURATIONS,
    );
    commit_duration: Histogram = durations(
        "zue_commit_duration_seconds",
        "Time from the moment that an append is given its offset to its commit.",
        &DURATIONS,
    );
    fsync_duration: Histogram = durations(
        "zue_fsync_duration_seconds",
        "Time that a sync of the log to the disk takes.",
        &DURATIONS,
    );
    appends_in_flight: IntGauge = gauge(
        "zue_appends_in_flight",
        "Appends that were taken on and are not answered yet.",
    );
    append_bytes_in_flight: IntGauge = gauge(
        "zue_appends_in_flight_bytes",
        "Bytes of log that the appends will take which are not answered yet.",
    );
    stalled: IntGaugeVec = gauges(
        "zue_appends_stalled",
        "1 while appends wait until the next file can be made, by what keeps it from being made.",
        &[closed("reason", &STALLS.map(|reason| reason.as_str_name()))],
    );
    producers: IntGauge = gauge(
        "zue_producers",
        "Producers whose appends this replica remembers, so that a retry is no duplicate.",
    );
    // Reads.
    readers: IntGauge = gauge("zue_readers", "Reads that go on.");
    read_records: IntCounter = counter("zue_read_records_total", "Records that were served to readers.");
    read_bytes: IntCounter = counter("zue_read_bytes_total", "Bytes of log that were read for readers.");
    // The followers of a leader.
    peer_connected: IntGaugeVec = gauges(
        "zue_peer_connected",
        "1 while this leader feeds that follower, 0 while it cannot; absent where this replica does not lead.",
        &[open("peer")],
    );
    peer_last_error: IntGaugeVec = gauges(
        "zue_peer_last_error",
        "1 for what ended the last stream to that follower, or kept it from being opened, while none is open; absent where this \
         replica does not lead.",
        &[open("peer"), closed("error", &Ended::NAMES)],
    );
    peer_failures: IntCounterVec = counters(
        "zue_peer_failures_total",
        "Streams to that follower that ended or could not be opened, by what was wrong, while this replica led.",
        &[open("peer"), closed("error", &Ended::NAMES)],
    );
    repair_batches: IntCounter = counter(
        "zue_repair_batches_total",
        "Batches that were read from the disk for followers far behind.",
    );
    repair_records: IntCounter = counter(
        "zue_repair_records_total",
        "Records that were read from the disk for followers far behind.",
    );
    inline_catchups: IntCounter = counter(
        "zue_inline_catchups_total",
        "Followers that came back so little behind that memory held what they lacked.",
    );
    // What becomes of the disk's data.
    crc_errors: IntCounter = counter(
        "zue_crc_errors_total",
        "Frames of the log whose checksum was wrong when they were read or received.",
    );
    scrub_bytes: IntCounter = counter(
        "zue_scrub_bytes_total",
        "Bytes of the log that were read again to see that they are whole.",
    );
    corrupt_ranges: IntCounter = counter(
        "zue_corrupt_ranges_total",
        "Ranges of records that were found damaged on this disk.",
    );
    repaired_ranges: IntCounter = counter(
        "zue_repaired_ranges_total",
        "Damaged ranges of records that were fetched again from another replica.",
    );
    damaged_ranges: IntGauge = gauge(
        "zue_damaged_ranges",
        "Ranges of records that are damaged on this disk and not repaired yet.",
    );
    lost_ranges: IntGauge = gauge(
        "zue_lost_ranges",
        "Ranges of records that are damaged on this disk and that no other replica has whole.",
    );
    compaction_bytes: IntCounter = counter(
        "zue_compaction_bytes_total",
        "Bytes that were read and written to compact the log.",
    );
    maintenance_ended: IntGauge = gauge(
        "zue_upkeep_ended",
        "1 once nothing repairs, compacts or retains the log any more, for a fault of the program: restart the node.",
    );
    disk_available_bytes: IntGauge = gauge("zue_disk_available_bytes", "Free bytes on the disk of the data directory.");
    disk_capacity_bytes: IntGauge = gauge(
        "zue_disk_capacity_bytes",
        "Bytes that the disk of the data directory has, free or not.",
    );
    // Clocks.
    clock_ahead_seconds: Gauge = measure(
        "zue_clock_ahead_seconds",
        "Lead of this node's clock over what a majority of the voters' clocks have reached, in seconds; less than 0 where it is behind, \
         0 while that is not known.",
    );
    log_time_ahead_seconds: Gauge = measure(
        "zue_log_time_ahead_seconds",
        "Lead of the newest timestamp of the log over the clocks, in seconds.",
    );
    clock_steps: IntCounter = counter(
        "zue_clock_steps_total",
        "Times that the clock of this node was set by over a minute while it ran.",
    );
    // Who gets in.
    connections: IntGaugeVec = gauges(
        "zue_node_connections",
        "Connections that are open at this port.",
        &[closed("port", &PORTS)],
    );
    rejected_connections: IntCounterVec = counters(
        "zue_node_rejected_connections_total",
        "Connections that were closed at once, as the port had too many.",
        &[closed("port", &PORTS)],
    );
    refused_calls: IntCounterVec = counters(
        "zue_node_refused_calls_total",
        "Calls that were refused, as the caller was unknown or had no right to them.",
        &[closed("why", &REFUSALS.map(|reason| reason.as_str_name()))],
    );
    tls_failed_handshakes: IntCounterVec = counters(
        "zue_node_tls_failed_handshakes_total",
        "Connections whose TLS handshake failed. One that the other end closed before is none of them.",
        &[closed("port", &TLS_PORTS)],
    );
    tls_plain_connections: IntCounterVec = counters(
        "zue_node_tls_plain_connections_total",
        "Connections that came without TLS to a port that has it.",
        &[closed("port", &TLS_PORTS)],
    );
    tls_plain_dials: IntCounter = counter(
        "zue_node_tls_plain_dials_total",
        "Connections to other nodes that had to be opened without TLS, as tls.mode Permissive lets them.",
    );
    tls_expires: IntGauge = gauge(
        "zue_node_tls_certificate_expiry_timestamp_seconds",
        "Time at which the certificate of this node expires, in seconds since the Unix epoch; 0 without TLS.",
    );
    tls_problem: IntGaugeVec = gauges(
        "zue_node_tls_problem",
        "1 while this file for TLS cannot be used, and what it said before counts.",
        &[closed("file", &File::ALL.map(File::name))],
    );
}

impl Metrics {
    /// All of them in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> prometheus::Result<String> {
        self.lines_left_out.look();
        zue_telemetry::metrics::text(&self.registry.gather())
    }

    /// The metrics with their descriptions.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// An append was answered with an error.
    pub(crate) fn append_failed(&self, error: &v1::Error) {
        let (reason, outcome) = (error.reason().as_str_name(), error.outcome().as_str_name());
        self.append_failures.with_label_values(&[reason, outcome]).inc();
    }

    /// Shows the metrics of a follower that is fed from now on, with no errors yet.
    pub(crate) fn feeds(&self, peer: &str) {
        self.peer_connected.with_label_values(&[peer]).set(0);
        for error in Ended::NAMES {
            self.peer_failures.with_label_values(&[peer, error]).inc_by(0);
            self.peer_last_error.with_label_values(&[peer, error]).set(0);
        }
    }

    /// Removes the metrics of a follower that is not fed any more, so that it is not taken for missing. Its errors stay counted.
    pub(crate) fn feeds_no_more(&self, peer: &str) {
        // There may be none.
        let _ = self.peer_connected.remove_label_values(&[peer]);
        for error in Ended::NAMES {
            let _ = self.peer_last_error.remove_label_values(&[peer, error]);
        }
    }

    /// A stream to this follower was opened; or ended, or was not opened, for that reason.
    pub(crate) fn peer_is(&self, peer: &str, ended: Option<&'static str>) {
        self.peer_connected.with_label_values(&[peer]).set(ended.is_none().into());
        for error in Ended::NAMES {
            self.peer_last_error.with_label_values(&[peer, error]).set((ended == Some(error)).into());
        }
        if let Some(error) = ended {
            self.peer_failures.with_label_values(&[peer, error]).inc();
        }
    }

    /// This replica feeds nobody any more. What has failed stays counted.
    pub(crate) fn feeds_nobody(&self) {
        self.peer_connected.reset();
        self.peer_last_error.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_a_closed_set_is_shown_from_the_start() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render().unwrap();
        let is_open = |one: &&Described| one.labels.iter().any(|label| label.values.is_empty());
        for one in metrics.described().iter().filter(|one| !is_open(one)) {
            assert!(text.contains(&format!("# HELP {} ", one.name)), "{} is missing from {text}", one.name);
        }
        for line in [
            "zue_node_log_lines_left_out_total{why=\"unwritten\"} 0",
            "zue_failovers_total{reason=\"QUORUM_LOST\"} 0",
            "zue_append_failures_total{outcome=\"UNKNOWN\",reason=\"NO_QUORUM\"} 0",
            "zue_node_rejected_connections_total{port=\"peer\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_last_went_wrong_with_a_follower_is_told_until_it_is_fed_again() {
        let metrics = Metrics::new().unwrap();
        let told = |peer: &str| {
            let error = |name: &&&str| metrics.peer_last_error.with_label_values(&[peer, name]).get() == 1;
            (metrics.peer_connected.with_label_values(&[peer]).get(), Ended::NAMES.iter().find(error).copied())
        };
        metrics.feeds("zue-1");
        assert_eq!(told("zue-1"), (0, None));
        metrics.peer_is("zue-1", Some("CONNECT"));
        metrics.peer_is("zue-1", Some("REFUSED"));
        assert_eq!(told("zue-1"), (0, Some("REFUSED")));
        metrics.peer_is("zue-1", None);
        assert_eq!(told("zue-1"), (1, None));
        metrics.feeds("zue-2");
        metrics.feeds_no_more("zue-1");
        let text = metrics.render().unwrap();
        assert!(
            text.contains("zue_peer_connected{peer=\"zue-2\"} 0")
                && !text.contains("zue_peer_connected{peer=\"zue-1\"}")
        );
        metrics.feeds_nobody();
        let text = metrics.render().unwrap();
        assert!(!text.contains("zue_peer_connected{"), "{text}");
        assert!(text.contains("zue_peer_failures_total{error=\"CONNECT\",peer=\"zue-1\"} 1"), "{text}");
    }
}
