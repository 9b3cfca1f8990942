//! The control port of a pod, through `kubectl port-forward`, for somebody who shows one certificate or another.

use std::time::Duration;

use tonic::transport::Channel;
use zue_proto::net;
use zue_proto::v1::control_client::ControlClient;
use zue_tls::{Authority, Bundle, Cluster, Dial, Identity, Issued, Kind, Leaf, Names, Role};

use crate::kubernetes::NAME;
use crate::mounted::secret;

fn text(namespace: &str, of: &str, key: &str) -> String {
    secret(namespace, &format!("{NAME}-{of}"), key).unwrap_or_else(|| panic!("no {key} in {NAME}-{of}"))
}

/// A certificate by the peer authority of a namespace's cluster.
pub fn issued(namespace: &str, identity: &Identity) -> Issued {
    let (certificate, key) = (text(namespace, "peer-ca", "tls.crt"), text(namespace, "peer-ca", "tls.key"));
    let authority = Authority::load(Kind::Peer, &certificate, &key).expect("the authority is whole");
    authority.issue(identity, &Names::default(), Duration::from_hours(1)).expect("it signs")
}

/// Reads what is mounted in a folder.
#[cfg(feature = "e2e-full")]
pub fn read(folder: &std::path::Path) -> Issued {
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).expect("it is mounted");
    Issued { certificate: text("tls.crt"), key: text("tls.key") }
}

/// The identity of a node or controller of a namespace's cluster.
pub fn identity(namespace: &str, role: Role) -> Identity {
    Cluster::new(namespace, NAME).expect("it is a name").identity(role)
}

/// The way of a cluster's controller to its nodes.
pub fn controller(namespace: &str) -> Dial {
    let issued = issued(namespace, &identity(namespace, Role::Controller));
    let leaf = Leaf::from_pem(("what was issued", &issued.certificate), ("its key", &issued.key)).expect("it is whole");
    let bundle = Bundle::from_pem("the authorities", &text(namespace, "tls", "peer-ca.crt")).expect("it is whole");
    Dial::with(Dial::peer_config(&leaf, &bundle).expect("they go together"))
}

/// The control port at an address.
pub fn control(address: &str, dial: &Dial) -> ControlClient<Channel> {
    ControlClient::new(net::channel(address, dial).expect("it is an address"))
}
