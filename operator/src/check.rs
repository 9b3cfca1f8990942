//! `zue-operator check`: whether an installation works, asked from within it with the operator's own rights. `helm test` runs it.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::sleep;

use crate::args::Check;
use crate::kubernetes::{Error, within};
use crate::observe::watched::Guarded;

const LOOK: Duration = Duration::from_secs(1);

/// The fault.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Kubernetes does not know the resource.
    #[error("Kubernetes knows no ZueCluster: install the CRD (crds.create, or zue-operator crd | kubectl apply -f -)")]
    NoCrd,
    /// A call was refused or not answered.
    #[error(transparent)]
    Call(#[from] Error),
    /// Nobody renews the Lease.
    #[error("no operator acts: nobody has renewed the Lease {lease} for {} s", .within.as_secs())]
    NobodyActs {
        /// Its name.
        lease: String,
        /// The time for which it was looked at.
        within: Duration,
    },
}

/// Looks at the resource, the rights to it, and at the Lease until it is renewed; gives what was found, a line each.
///
/// # Errors
/// When something does not work.
pub async fn run(client: &Client, Check { namespaces, lease, within: patience }: &Check) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    let first = ListParams::default().limit(1);
    let all = [None];
    let named: Vec<_> = namespaces.iter().map(|namespace| Some(namespace.as_str())).collect();
    for namespace in if named.is_empty() { &all[..] } else { &named[..] } {
        let clusters: Api<Guarded> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        match within("list ZueClusters", clusters.list(&first)).await {
            Ok(_) => found.push(format!("ZueClusters may be read in {}", namespace.unwrap_or("all namespaces"))),
            Err(error) if error.code() == Some(404) => return Err(Fault::NoCrd),
            Err(error) => return Err(error.into()),
        }
    }
    found.push(format!("{} acts", acting(client, lease, Duration::from_secs(*patience)).await?));
    Ok(found)
}

/// The holder of the Lease, once it was seen to be renewed. No clocks are compared.
async fn acting(client: &Client, name: &str, patience: Duration) -> Result<String, Fault> {
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let begun = Instant::now();
    let mut before = None;
    while begun.elapsed() < patience {
        let spec = within(format!("read Lease {name}"), leases.get_opt(name)).await?.and_then(|lease| lease.spec);
        let holder = spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
        if let (Some(holder), Some(now)) = (holder, spec.and_then(|spec| spec.renew_time)) {
            if before.as_ref().is_some_and(|before| *before != now) {
                return Ok(holder);
            }
            before = Some(now);
        }
        sleep(LOOK).await;
    }
    Err(Fault::NobodyActs { lease: name.to_owned(), within: patience })
}
