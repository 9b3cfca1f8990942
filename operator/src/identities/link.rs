//! The way to the nodes of one cluster: with a certificate of its own, which is kept in memory alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use zue_tls::{Bundle, ClientConfig, Dial, Insecure, Leaf, Names, Role};

use super::authority;
use super::error::Error;
use super::plan::{DesiredCertificate, IssuedCertificate, LEAF_LIFETIME, issues};
use super::rotate::Rotate;
use super::signing::Signing;
use crate::crd::security::TlsMode;

/// The way to the nodes of a cluster.
#[derive(Debug)]
pub struct Link {
    dials: watch::Sender<Dial>,
    own: Mutex<Option<Own>>,
}

#[derive(Debug)]
struct Own {
    mode: TlsMode,
    leaf: Leaf,
    held: IssuedCertificate,
    bundle: String,
    configs: watch::Sender<Arc<ClientConfig>>,
}

impl Default for Link {
    /// Without TLS.
    fn default() -> Self {
        Self { dials: watch::Sender::new(Dial::plain()), own: Mutex::default() }
    }
}

impl Link {
    /// The way to them, now and later.
    pub fn dials(&self) -> watch::Receiver<Dial> {
        self.dials.subscribe()
    }

    /// They are reached without TLS.
    pub fn go_plain(&self) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.dials.send_if_modified(|dial| {
            let changes = !dial.is_plain();
            if changes {
                *dial = Dial::plain();
            }
            changes
        });
    }

    /// Gives the operator a certificate, if it needs another one, and has it believe whom the nodes believe.
    pub(super) fn give(
        &self,
        mode: TlsMode,
        who: &zue_tls::Cluster,
        peers: &Signing,
        rotate: Rotate,
        now: SystemTime,
    ) -> Result<(), Error> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = DesiredCertificate { authority: &peers.trust.signs, names: "", anew: rotate.certificates };
        let held = own.as_ref().map(|own| &own.held);
        // An operator that has just started has none. Where the key of the authority that signs is gone, one of the newest is believed soon.
        let is_due = held.is_none() || peers.signer().is_some() && issues(held, &wanted, now);
        let pem = peers.trust.pem();
        let kept = own.as_ref().filter(|_| !is_due);
        if kept.is_some_and(|own| own.mode == mode && own.bundle == pem) {
            return Ok(());
        }
        let (leaf, held) = match kept {
            Some(own) => (own.leaf.clone(), own.held.clone()),
            None => issue(who, peers)?,
        };
        let unusable = |why: String| Error::Unusable { name: "of the authorities".to_owned(), why };
        let bundle = Bundle::from_pem("what it holds", &pem).map_err(|error| unusable(error.to_string()))?;
        let config = Dial::peer_config(&leaf, &bundle).map_err(|error| unusable(error.to_string()))?;
        if let Some(own) = own.as_mut().filter(|own| own.mode == mode) {
            // Connections are opened anew one after the other, and what was heard on the old ones holds until then.
            own.configs.send_replace(config);
            (own.leaf, own.held, own.bundle) = (leaf, held, pem);
            return Ok(());
        }
        let insecure = if mode == TlsMode::Required { Insecure::Never } else { Insecure::IfNeeded };
        let configs = watch::Sender::new(config);
        self.dials.send_replace(Dial::following(configs.subscribe(), insecure));
        *own = Some(Own { mode, leaf, held, bundle: pem, configs });
        Ok(())
    }
}

fn issue(who: &zue_tls::Cluster, peers: &Signing) -> Result<(Leaf, IssuedCertificate), Error> {
    let signer = peers.signer().unwrap_or(&peers.known.newest);
    let issued = signer.issues(&who.identity(Role::Controller), &Names::default(), LEAF_LIFETIME)?;
    let unusable = |why: String| Error::Unusable { name: "of the authority of the peers".to_owned(), why };
    let leaf = Leaf::from_pem(("the operator's certificate", &issued.certificate), ("its key", &issued.key))
        .map_err(|error| unusable(error.to_string()))?;
    let (begun, ends) = authority::time_of(&issued.certificate)
        .ok_or_else(|| unusable("the issued certificate is malformed".to_owned()))?;
    let authority = signer.certificate.sha256.clone();
    Ok((leaf, IssuedCertificate { authority, names: String::new(), begun, ends }))
}
