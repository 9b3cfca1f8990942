//! What a node counts. Each node has a registry of its own, so that several run in one process.

use prometheus::core::{Collector, GenericGauge};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::tls::TlsMetrics;

/// Upper bounds of the buckets of all durations, seconds.
const DURATIONS: [f64; 15] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The metrics of one node.
#[derive(Debug)]
#[expect(missing_docs, reason = "each says it in its help text")]
pub struct Metrics {
    registry: Registry,
    pub is_leader: IntGauge,
    pub epoch: IntGauge,
    pub log_start: IntGauge,
    pub log_end: IntGauge,
    pub commit: IntGauge,
    pub log_size_bytes: IntGauge,
    pub segments: IntGauge,
    pub isr_size: IntGauge,
    pub isr_shrinks: IntCounter,
    pub isr_expands: IntCounter,
    pub append_records: IntCounter,
    pub append_bytes: IntCounter,
    pub append_duration: Histogram,
    pub commit_duration: Histogram,
    pub fsync_duration: Histogram,
    pub read_records: IntCounter,
    pub read_bytes: IntCounter,
    pub replication_lag_records: IntGaugeVec,
    pub repair_batches: IntCounter,
    pub repair_records: IntCounter,
    pub inline_catchups: IntCounter,
    pub crc_errors: IntCounter,
    pub scrub_bytes: IntCounter,
    pub corrupt_ranges: IntCounter,
    pub repaired_ranges: IntCounter,
    pub lost_ranges: IntGauge,
    pub compaction_bytes: IntCounter,
    pub upkeep_ended: IntGauge,
    pub clock_ahead_seconds: IntGauge,
    pub log_time_ahead_seconds: IntGauge,
    pub clock_steps: IntCounter,
    pub disk_available_bytes: IntGauge,
    pub disk_capacity_bytes: IntGauge,
    pub connections: IntGaugeVec,
    pub rejected_connections: IntCounterVec,
    pub lines_left_out: IntCounterVec,
    pub tls: TlsMetrics,
}

/// Registers what it makes.
pub(crate) struct Maker(Registry);

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> prometheus::Result<C> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(GenericGauge::new(name, help))
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(IntCounter::new(name, help))
    }

    pub(crate) fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn durations(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(DURATIONS.to_vec())))
    }
}

impl Metrics {
    /// Metrics that are all 0.
    ///
    /// # Errors
    /// When a name is used twice or is none.
    pub fn new() -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        make.gauges("zue_build_info", "Always 1; the label is the version.", "version")?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(Self {
            is_leader: make.gauge("zue_node_is_leader", "1 while this replica leads.")?,
            epoch: make.gauge("zue_node_epoch", "The newest epoch in the log.")?,
            log_start: make.gauge("zue_log_start_offset", "Where the log starts.")?,
            log_end: make.gauge("zue_log_end_offset", "Where the log ends.")?,
            commit: make.gauge("zue_commit_offset", "The end of what is known to be committed.")?,
            log_size_bytes: make.gauge("zue_log_size_bytes", "What the data directory's files occupy.")?,
            segments: make.gauge("zue_segments", "How many segments the log has.")?,
            isr_size: make.gauge("zue_node_isr_size", "Voters in sync, the leader included; 0 where none leads.")?,
            isr_shrinks: make.counter("zue_node_isr_shrinks_total", "Voters that fell out of sync while this led.")?,
            isr_expands: make.counter("zue_node_isr_expands_total", "Voters that came into sync while this led.")?,
            append_records: make.counter("zue_append_records_total", "Records appended here as the leader.")?,
            append_bytes: make.counter("zue_append_bytes_total", "Their bytes as they stand in the log.")?,
            append_duration: make
                .durations("zue_append_duration_seconds", "From an append's arrival to its answer.")?,
            commit_duration: make.durations("zue_commit_duration_seconds", "From an append's offset to its commit.")?,
            fsync_duration: make.durations("zue_fsync_duration_seconds", "How long a sync of the log takes.")?,
            read_records: make.counter("zue_read_records_total", "Records served to readers.")?,
            read_bytes: make.counter("zue_read_bytes_total", "Bytes of log read for them.")?,
            replication_lag_records: make.gauges(
                "zue_replication_lag_records",
                "How many records a follower lacks; on the leader.",
                "follower",
            )?,
            repair_batches: make.counter("zue_repair_batches_total", "Batches sent to followers from the disk.")?,
            repair_records: make.counter("zue_repair_records_total", "Records sent to followers from the disk.")?,
            inline_catchups: make.counter("zue_inline_catchups_total", "Followers caught up from memory.")?,
            crc_errors: make.counter("zue_crc_errors_total", "Frames refused for their CRC: read, or received.")?,
            scrub_bytes: make.counter(
                "zue_scrub_bytes_total",
                "Bytes of the log that were read again to see that they are whole.",
            )?,
            corrupt_ranges: make.counter("zue_corrupt_ranges_total", "Ranges of records that were found damaged.")?,
            repaired_ranges: make
                .counter("zue_repaired_ranges_total", "Damaged ranges that were fetched again from another replica.")?,
            lost_ranges: make.gauge("zue_lost_ranges", "Damaged ranges that no other replica has whole.")?,
            compaction_bytes: make
                .counter("zue_compaction_bytes_total", "Bytes read and written to compact the log.")?,
            upkeep_ended: make.gauge(
                "zue_upkeep_ended",
                "1 once nothing repairs, compacts or retains the log any more, for a fault of the program: restart it.",
            )?,
            clock_ahead_seconds: make.gauge(
                "zue_clock_ahead_seconds",
                "How far this node's clock is ahead of what a majority of the voters' have reached; less than 0: behind.",
            )?,
            log_time_ahead_seconds: make
                .gauge("zue_log_time_ahead_seconds", "How far the log's newest timestamp is ahead of the clocks.")?,
            clock_steps: make
                .counter("zue_clock_steps_total", "How often this node's clock was set by over a minute while it ran.")?,
            disk_available_bytes: make.gauge("zue_disk_available_bytes", "Free bytes on the data directory's disk.")?,
            disk_capacity_bytes: make.gauge("zue_disk_capacity_bytes", "Bytes of that disk.")?,
            connections: make.gauges("zue_node_connections", "Open connections.", "port")?,
            rejected_connections: make.counters(
                "zue_node_rejected_connections_total",
                "Connections closed at once, as there were too many.",
                "port",
            )?,
            lines_left_out: make.counters(
                "zue_node_log_lines_left_out_total",
                "Log lines that were not written, or that repeat others.",
                "why",
            )?,
            tls: TlsMetrics::new(&make)?,
            registry: make.0,
        })
    }

    /// All of them in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> prometheus::Result<String> {
        for (why, so_far) in zue_telemetry::left_out().by_reason() {
            let counter = self.lines_left_out.with_label_values(&[why]);
            counter.inc_by(so_far.saturating_sub(counter.get()));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_shown_from_the_start() {
        let text = Metrics::new().unwrap().render().unwrap();
        for name in [
            "zue_build_info",
            "zue_node_is_leader",
            "zue_fsync_duration_seconds_bucket",
            "zue_crc_errors_total",
            "zue_node_log_lines_left_out_total{why=\"unwritten\"} 0",
        ] {
            assert!(text.contains(name), "{name} is missing from {text}");
        }
    }
}
