//! The services of the two ports: each checks what it is asked, hands it on, and waits for the answer.

pub(crate) mod append;
pub(crate) mod aside;
pub(crate) mod control;
pub(crate) mod errors;
pub(crate) mod log_service;
pub(crate) mod newcomers;
pub(crate) mod read;
pub(crate) mod status;
pub(crate) mod target;
pub(crate) mod watch;
