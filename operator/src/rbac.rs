//! Rights that the operator needs, and nothing else.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The role, under the name that the chart gives it when it is installed as `zue-operator`.
pub fn cluster_role() -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta { name: Some("zue-operator".to_owned()), ..Default::default() },
        rules: Some(rules()),
        aggregation_rule: None,
    }
}

/// The rules. Each line is used: watching, server-side apply (get, create, patch), and what is deleted or replaced.
pub fn rules() -> Vec<PolicyRule> {
    let applied = &["get", "list", "watch", "create", "patch"];
    let applied_and_deleted = &["get", "list", "watch", "create", "patch", "delete"];
    vec![
        // To take an annotation away that was obeyed.
        rule("zue.io", &["zueclusters"], &["get", "list", "watch", "patch"]),
        rule("zue.io", &["zueclusters/status"], &["update", "patch"]),
        // Backups that are asked for.
        rule("zue.io", &["zuebackups"], &["list", "watch"]),
        rule("zue.io", &["zuebackups/status"], &["patch"]),
        // Where owner references that block a deletion must be permitted.
        rule("zue.io", &["zueclusters/finalizers"], &["update"]),
        rule("apps", &["statefulsets"], applied_and_deleted),
        rule("", &["services"], applied_and_deleted),
        rule("networking.k8s.io", &["networkpolicies"], applied_and_deleted),
        rule("", &["configmaps", "serviceaccounts"], applied),
        rule("policy", &["poddisruptionbudgets"], applied),
        // Role labels, and the replacement of pods one by one.
        rule("", &["pods"], &["list", "watch", "patch", "delete"]),
        // In which zone a leader is, where a pod does not say.
        rule("", &["nodes"], &["get"]),
        // Certificates and tokens, each read by its name: Secrets are neither listed nor watched.
        rule("", &["secrets"], &["get", "create", "patch", "delete"]),
        // Volumes that grow, and those of replicas that a person gives up.
        rule("", &["persistentvolumeclaims"], &["get", "patch", "delete"]),
        rule("events.k8s.io", &["events"], &["create"]),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..Default::default()
    }
}
