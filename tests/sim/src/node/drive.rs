//! Inputs of a machine's driver, and what follows: the network, the disk and the checks in the place of a node's.

mod acts;

use crate::node::appends::Append;

/// The engine's driver, and what it asks for.
pub(crate) type Driver = zue_engine::driver::Driver<Append>;
