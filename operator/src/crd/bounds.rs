//! The bounds of sizes and times, as rules that the API server checks. The types that the node shares say what is a size; how large it may
//! be, the node's own checks say, and a test holds these rules against them.

use serde_json::{Value, json};

/// The field that is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes, as `"64MiB"`.
    Size,
    /// Milliseconds, as `"500ms"`.
    Time,
}

/// A field of the spec, and from where to where it may go, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Its path below `spec`.
    pub path: &'static str,
    /// In what it is counted.
    pub unit: Unit,
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// More than any log takes. Beyond, some of those who read the resource cannot count.
const SIZE_MAX: u64 = 1 << 62;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// A hundred years.
const TIME_MAX: u64 = 876_000 * HOUR;

const fn size(path: &'static str, min: u64, max: u64) -> Bound {
    Bound { path, unit: Unit::Size, min, max }
}

const fn time(path: &'static str, min: u64, max: u64) -> Bound {
    Bound { path, unit: Unit::Time, min, max }
}

/// All sizes and times.
pub const BOUNDS: [Bound; 32] = [
    size("backup.bytesPerSecond", 0, SIZE_MAX),
    time("backup.interval", SECOND, 24 * HOUR),
    time("backup.keep", HOUR, TIME_MAX),
    size("config.log.segmentBytesMax", 32 * KIB, 4 * GIB),
    size("config.log.indexIntervalBytes", 256, MIB),
    size("config.log.retentionBytes", 32 * KIB, SIZE_MAX),
    size("config.log.compactionBytesPerSecond", 64 * KIB, SIZE_MAX),
    size("config.log.scrubBytesPerSecond", 0, SIZE_MAX),
    size("config.replication.inlineCatchupBytes", 64 * KIB, 4 * GIB),
    size("config.replication.repairBatchBytes", 4 * KIB, 8 * MIB),
    size("config.replication.inflightBytesMax", 64 * KIB, GIB),
    size("config.limits.recordBytesMax", 1, 32 * MIB),
    size("config.limits.keyBytesMax", 1, 32 * MIB),
    size("config.limits.headerNameBytesMax", 1, 65_535),
    size("config.limits.headerValueBytesMax", 1, 32 * MIB),
    size("config.limits.appendBytesMax", 4 * KIB + 1, 64 * MIB),
    size("config.limits.appendsBytesMax", 4 * KIB + 1, 4 * GIB - 1),
    size("config.limits.readBytesMax", 4 * KIB, 16 * MIB),
    time("config.log.syncInterval", 1, MINUTE),
    time("config.log.retentionAge", SECOND, TIME_MAX),
    time("config.log.trimDelay", 0, 365 * 24 * HOUR),
    time("config.log.deleteRetention", 0, TIME_MAX),
    time("config.log.scrubInterval", 100, TIME_MAX),
    time("config.replication.heartbeatInterval", 10, 10 * SECOND),
    time("config.replication.lagTimeMax", 40, 10 * MINUTE),
    time("config.limits.appendDeadline", 1, 10 * MINUTE),
    time("config.limits.appendDeadlineMax", 1, 10 * MINUTE),
    time("config.limits.startWaitMax", 0, 10 * MINUTE),
    time("config.limits.receiveDeadline", 100, 10 * MINUTE),
    time("config.limits.stallDeadline", 100, 10 * MINUTE),
    time("leader.detectionTime", 300, MINUTE),
    time("leader.standbyAfter", 200, HOUR),
];

/// A rule for fields side by side: where, which of them is told, the rule, and the rule in words. A heartbeat of 200ms is not held
/// against others: where it is the default, nodes shorten it.
const TOGETHER: [(&str, &str, &str, &str); 5] = [
    (
        "config.replication",
        ".lagTimeMax",
        "self.heartbeatInterval == '200ms' && duration(self.lagTimeMax) >= duration('400ms') || \
         duration(self.lagTimeMax) >= duration(self.heartbeatInterval) + duration(self.heartbeatInterval) + \
         duration(self.heartbeatInterval) + duration(self.heartbeatInterval)",
        "lagTimeMax must be at least four times heartbeatInterval",
    ),
    (
        "config.limits",
        ".appendBytesMax",
        "quantity(self.appendBytesMax.replace('B', '')).compareTo(\
         quantity(self.recordBytesMax.replace('B', '')).add(quantity('4Ki'))) >= 0",
        "appendBytesMax must be at least recordBytesMax and 4KiB",
    ),
    (
        "config.limits",
        ".appendsBytesMax",
        "quantity(self.appendsBytesMax.replace('B', '')).compareTo(\
         quantity(self.appendBytesMax.replace('B', ''))) >= 0",
        "appendsBytesMax must be at least appendBytesMax",
    ),
    (
        "",
        ".leader.detectionTime",
        "self.config.replication.heartbeatInterval == '200ms' || duration(self.leader.detectionTime) >= \
         duration(self.config.replication.heartbeatInterval) + duration(self.config.replication.heartbeatInterval) + \
         duration(self.config.replication.heartbeatInterval)",
        "detectionTime must be at least three times config.replication.heartbeatInterval",
    ),
    // A short detection time shortens a heartbeat that is left at its default to its third.
    (
        "",
        ".config.replication.lagTimeMax",
        "self.config.replication.heartbeatInterval != '200ms' || \
         duration(self.leader.detectionTime) >= duration('600ms') || \
         duration(self.config.replication.lagTimeMax) + duration(self.config.replication.lagTimeMax) + \
         duration(self.config.replication.lagTimeMax) >= duration(self.leader.detectionTime) + \
         duration(self.leader.detectionTime) + duration(self.leader.detectionTime) + \
         duration(self.leader.detectionTime)",
        "lagTimeMax must be at least four thirds of a leader.detectionTime below 600ms",
    ),
];

impl Bound {
    /// A number of its unit as text.
    pub fn text(&self, value: u64) -> String {
        match self.unit {
            Unit::Size => zue_settings::ByteSize(value).to_string(),
            Unit::Time => zue_settings::Time::from_millis(value).to_string(),
        }
    }

    fn rule(&self) -> Value {
        let (min, max) = (self.text(self.min), self.text(self.max));
        // Kubernetes' quantities have these units without the B, and its durations are written as ours.
        let rule = match self.unit {
            Unit::Size => {
                let quantity = |text: &str| format!("quantity('{}')", text.replace('B', ""));
                let value = "quantity(self.replace('B', ''))";
                format!("{value}.compareTo({}) >= 0 && {value}.compareTo({}) <= 0", quantity(&min), quantity(&max))
            }
            Unit::Time => format!("duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"),
        };
        json!({ "rule": rule, "message": format!("must be from {min} to {max}") })
    }
}

/// Adds the rules to the schema of the spec.
pub(super) fn add(spec: &mut Value) {
    for bound in &BOUNDS {
        push(at(spec, bound.path), bound.rule());
    }
    for (path, field, rule, message) in TOGETHER {
        push(at(spec, path), json!({ "rule": rule, "message": message, "fieldPath": field }));
    }
}

fn at<'a>(spec: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.')
        .filter(|name| !name.is_empty())
        .try_fold(spec, |schema, name| schema.get_mut("properties")?.get_mut(name))
}

fn push(schema: Option<&mut Value>, rule: Value) {
    let Some(Value::Object(schema)) = schema else { return };
    if let Value::Array(rules) = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([])) {
        rules.push(rule);
    }
}
