//! The wire of Zue: gRPC services, and the one place where wire input is checked.

mod convert;
mod error;
mod lookups;
pub mod net;
pub mod place;
pub mod shape;
mod shared;
pub mod status;

/// Generated from `zue/v1/*.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::as_conversions, clippy::indexing_slicing)]
pub mod v1 {
    tonic::include_proto!("zue.v1");
}

/// The encoded descriptors of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zue.bin"));

/// The version of the peer and control protocol that this build speaks; others are refused.
pub const PROTOCOL_VERSION: u32 = 1;

pub use convert::{
    Malformed, cluster_id, epoch_start, history, id_bytes, lineage, members, offset, origin, replica_id, replica_ids,
    runs, runs_to_wire, tail,
};
pub use error::{MESSAGE_BYTES_MAX, cut, error_of, status_of, status_with};
pub use shared::append_stream;
