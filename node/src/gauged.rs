//! A thing that is counted as long as it is there.

use prometheus::IntGauge;

/// A share of a gauge, as long as this is there.
#[derive(Debug)]
pub(crate) struct Gauged {
    gauge: IntGauge,
    by: i64,
}

impl Gauged {
    pub(crate) fn new(gauge: &IntGauge, by: i64) -> Self {
        gauge.add(by);
        Self { gauge: gauge.clone(), by }
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.gauge.sub(self.by);
    }
}
