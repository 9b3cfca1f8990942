//! Looking after an open log: compaction, retention, scrubbing and repair.

pub(crate) mod compaction;
pub(crate) mod fetch_plan;
pub(crate) mod repair;
pub(crate) mod retention;
pub(crate) mod rewrite;
pub(crate) mod scrub;
