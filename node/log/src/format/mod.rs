//! Bytes: frames and the blocks at the head of files, to and from what they mean. Reads no file.

pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod compacted_range;
pub(crate) mod crcs;
pub(crate) mod encode;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod layout;
pub(crate) mod limits;
pub(crate) mod local;
pub(crate) mod producer;
pub(crate) mod salvage;
pub(crate) mod sequence;
