//! The command's dealings with a person or a script: words typed, lines printed, signals, and patience.

pub(crate) mod output;
pub(crate) mod stop;
pub(crate) mod times;
pub(crate) mod waiting;
