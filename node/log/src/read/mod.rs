//! Reading, while the log is written.

pub(crate) mod read_view;
pub(crate) mod reader;
pub(crate) mod time;
