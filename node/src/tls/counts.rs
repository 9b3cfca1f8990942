//! What a node counts of who gets in.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::Maker;

/// The metrics of TLS and rights.
#[derive(Debug)]
#[expect(missing_docs, reason = "each says it in its help text")]
pub struct TlsMetrics {
    pub failed_handshakes: IntCounterVec,
    pub plain_connections: IntCounterVec,
    pub plain_dials: IntCounter,
    pub refused_calls: IntCounterVec,
    pub expires: IntGauge,
    pub problem: IntGaugeVec,
}

impl TlsMetrics {
    pub(crate) fn new(make: &Maker) -> prometheus::Result<Self> {
        Ok(Self {
            failed_handshakes: make.counters(
                "zue_node_tls_failed_handshakes_total",
                "Connections that came to no terms of TLS.",
                "port",
            )?,
            plain_connections: make.counters(
                "zue_node_tls_plain_connections_total",
                "Connections that came without TLS where there is TLS.",
                "port",
            )?,
            plain_dials: make.counter(
                "zue_node_tls_plain_dials_total",
                "Connections to peers that had to be opened without TLS, as tls.mode Permissive lets them.",
            )?,
            refused_calls: make.counters(
                "zue_node_refused_calls_total",
                "Calls of somebody unknown, or without the right to them.",
                "why",
            )?,
            expires: make.gauge(
                "zue_node_tls_certificate_expires_seconds",
                "When this node's certificate expires, seconds since the Unix epoch; 0 without TLS.",
            )?,
            problem: make.gauges(
                "zue_node_tls_problem",
                "1 while this file for TLS cannot be used, and what it said before counts.",
                "file",
            )?,
        })
    }
}
