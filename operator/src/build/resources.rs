//! Resources of a node, where its owner does not say.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use zue_settings::{MemoryBound, NodeConfig, TlsSettings};

use crate::cluster::Cluster;
use crate::crd::security::TlsMode;

/// The requests of a node in little use. It takes more where there is more.
const CPU: &str = "100m";
const MEMORY: &str = "512Mi";
/// The limit is rounded up to a multiple of this.
const STEP_BYTES: u64 = 256 << 20;

/// The owner's wish, or else little, and a limit into which all fits that the node's own limits let it take.
pub(super) fn of(cluster: &Cluster) -> ResourceRequirements {
    cluster.spec.resources.clone().unwrap_or_else(|| {
        let limit = bound(cluster).div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES >> 20);
        ResourceRequirements {
            requests: Some(quantities([("cpu", CPU), ("memory", MEMORY)])),
            limits: Some(quantities([("memory", &format!("{limit}Mi"))])),
            claims: None,
        }
    })
}

/// The bound of memory. It counts TLS even where there is none, so that a change of the mode changes nothing else.
fn bound(cluster: &Cluster) -> u64 {
    let (replication, limits) = (cluster.spec.config.replication, cluster.spec.config.limits);
    let tls = TlsSettings { mode: zue_settings::TlsMode::Required, ..TlsSettings::default() };
    MemoryBound::of(&NodeConfig { replication, limits, tls, ..NodeConfig::default() }).bytes()
}

fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).collect()
}

/// Leaves plain pods that run without any, as all did once, without: they are not replaced for the sake of what nobody asked for.
pub fn leave_unlimited(cluster: &Cluster, found: Option<&StatefulSet>, wanted: &mut StatefulSet) {
    let is_unsaid = cluster.tls_mode == TlsMode::Off && cluster.spec.resources.is_none();
    let runs_without = |container: &Container| {
        container.resources.as_ref().is_none_or(|resources| *resources == ResourceRequirements::default())
    };
    let containers = found.and_then(|set| Some(&set.spec.as_ref()?.template.spec.as_ref()?.containers));
    if is_unsaid && containers.is_some_and(|containers| containers.iter().all(runs_without)) {
        let wanted = wanted.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        wanted.into_iter().flat_map(|pod| &mut pod.containers).for_each(|container| container.resources = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build;
    use crate::cluster::tests::cluster;

    fn resources(set: &StatefulSet) -> Option<ResourceRequirements> {
        set.spec.as_ref()?.template.spec.as_ref()?.containers[0].resources.clone()
    }

    #[test]
    fn all_that_the_limits_allow_fits_into_the_memory_and_an_owner_may_say_otherwise() {
        for limits in ["{}", "{config: {limits: {connectionsMax: 50}}}", "{config: {limits: {connectionsMax: 20000}}}"]
        {
            let cluster = cluster(limits);
            let limit = of(&cluster).limits.unwrap()["memory"].0.clone();
            let bytes = limit.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20;
            assert!((bound(&cluster)..bound(&cluster) + STEP_BYTES).contains(&bytes), "{limits}: {limit}");
        }
        assert_eq!(of(&cluster("resources: {}")), ResourceRequirements::default());
    }

    #[test]
    fn plain_pods_that_run_without_are_not_replaced_for_it() {
        let made = |mode| build::objects(&Cluster { tls_mode: mode, ..cluster("{}") }).stateful_set;
        let mut before = made(TlsMode::Off);
        before.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].resources = None;
        for (mode, found, is_limited) in [
            (TlsMode::Off, Some(&before), false),
            (TlsMode::Off, None, true),
            (TlsMode::Off, Some(&made(TlsMode::Off)), true),
            (TlsMode::Permissive, Some(&before), true),
        ] {
            let mut wanted = made(mode);
            leave_unlimited(&Cluster { tls_mode: mode, ..cluster("{}") }, found, &mut wanted);
            assert_eq!(resources(&wanted).is_some(), is_limited, "{mode:?}");
        }
    }
}
