//! A node as a process: from its directory and ports to a running node, and to its end.

pub(crate) mod built;
pub(crate) mod node;
pub(crate) mod open;
pub(crate) mod open_files;
pub(crate) mod patience;
pub(crate) mod port_holder;
pub(crate) mod vital;
