//! The check that a message of a peer or a controller is meant for this replica and speaks its language.

use zue_proto::PROTOCOL_VERSION;
use zue_proto::v1::{Error, Reason};

use crate::driver::member::Identity;
use crate::server::caller::Caller;
use crate::services::errors::{error, invalid};

/// The addressee of such a message.
pub(crate) struct Target<'a> {
    pub(crate) protocol_version: u32,
    pub(crate) target: &'a [u8],
}

/// Refuses what is for another replica, or in another version of the protocol. The cluster is the replica's own to check. A caller
/// that names the right target counts as one of this cluster, where there is no better proof.
pub(crate) fn check(identity: &Identity, caller: Option<&Caller>, message: &Target<'_>) -> Result<(), Error> {
    let Target { protocol_version, target } = *message;
    if protocol_version != PROTOCOL_VERSION {
        let message =
            format!("protocol version {protocol_version} is not supported here; this node supports {PROTOCOL_VERSION}");
        return Err(error(Reason::WrongTarget, message));
    }
    let target = zue_proto::replica_id("target", target).map_err(invalid)?;
    if target == identity.id {
        if let Some(caller) = caller {
            caller.belongs_here();
        }
        return Ok(());
    }
    let message = format!("the message is for replica {target}; this is {}, replica {}", identity.name, identity.id);
    Err(error(Reason::WrongTarget, message))
}
