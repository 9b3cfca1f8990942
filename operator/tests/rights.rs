//! The operator's role has what its code calls, and nothing else: the calls are looked for in the sources. What cannot be seen there stands
//! in `UNSEEN`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use zue_operator::rbac;

/// A verb on a resource, as `group/resource`.
type Right = (String, &'static str);

/// Texts that are no calls of this code.
const UNSEEN: &[(&str, &str)] = &[
    // Owner references that block a deletion may need it.
    ("zue.io/zueclusters/finalizers", "update"),
];

const KINDS: &[(&str, &str)] = &[
    ("ZueCluster", "zue.io/zueclusters"),
    // A ZueCluster that may be invalid.
    ("Guarded", "zue.io/zueclusters"),
    ("ZueBackup", "zue.io/zuebackups"),
    ("GuardedBackup", "zue.io/zuebackups"),
    ("StatefulSet", "apps/statefulsets"),
    ("Service", "/services"),
    ("ConfigMap", "/configmaps"),
    ("ServiceAccount", "/serviceaccounts"),
    ("PodDisruptionBudget", "policy/poddisruptionbudgets"),
    ("NetworkPolicy", "networking.k8s.io/networkpolicies"),
    ("Pod", "/pods"),
    ("Node", "/nodes"),
    ("Secret", "/secrets"),
    ("PersistentVolumeClaim", "/persistentvolumeclaims"),
    ("Event", "events.k8s.io/events"),
    // In the operator's own namespace, by a role of its own.
    ("Lease", ""),
];

/// The methods of `Api` that are used, what of the resource they are about, and the verb. A new one has to be told here.
const METHODS: &[(&str, &str, &str)] = &[
    ("get", "", "get"),
    ("get_opt", "", "get"),
    ("list", "", "list"),
    ("create", "", "create"),
    ("patch", "", "patch"),
    ("delete", "", "delete"),
    ("patch_status", "/status", "patch"),
    ("replace_status", "/status", "update"),
];

fn resource(kind: &str, file: &str) -> &'static str {
    KINDS.iter().find(|known| known.0 == kind).unwrap_or_else(|| panic!("{file}: {kind} has no resource here")).1
}

/// The calls in a file: each variable and field is of the kind that was written behind its name last.
fn calls(file: &str, source: &str) -> BTreeSet<Right> {
    let source: String = source.split("#[cfg(test)]").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    let named_before = |at: usize| source[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
    let kind_behind = |at: usize| source[at..].split('>').next().unwrap();
    for (method, part, verb) in METHODS {
        for (at, _) in source.match_indices(&format!(".{method}(")) {
            let name = named_before(at);
            let typed = [format!(" {name}: Api<"), format!(" {name}: &Api<"), format!("({name}: &Api<")];
            let known = typed.iter().filter_map(|text| Some(source[..at].rfind(text)? + text.len())).max();
            let Some(kind) = known.map(kind_behind) else { continue };
            // The objects that are applied are of many kinds: see below.
            if kind != "K" && !resource(kind, file).is_empty() {
                found.insert((format!("{}{part}", resource(kind, file)), *verb));
            }
        }
    }
    for text in ["api::<", "pods(api: Api<"] {
        for (at, _) in source.match_indices(text) {
            let kind = kind_behind(at + text.len());
            found.extend(["list", "watch"].map(|verb| (resource(kind, file).to_owned(), verb)));
        }
    }
    for (at, text) in source.match_indices("apply(client, cluster, &") {
        let what = source[at + text.len()..].split([')', '(']).next().unwrap();
        let kind = match what {
            "service_account" => "ServiceAccount",
            "config_map" => "ConfigMap",
            "stateful_set" => "StatefulSet",
            "policy" => "NetworkPolicy",
            "build::disruption_budget" => "PodDisruptionBudget",
            other => panic!("{file}: {other} is applied, of which this test does not know the kind"),
        };
        // Applied on the server's side: it is made where it is not there.
        found.extend(["get", "create", "patch"].map(|verb| (resource(kind, file).to_owned(), verb)));
    }
    if source.contains("apply(client, cluster, service)") {
        found.extend(["get", "create", "patch"].map(|verb| ("/services".to_owned(), verb)));
    }
    found
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_role_has_what_the_code_calls_and_nothing_else() {
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let mut called: BTreeSet<(String, String)> = BTreeSet::new();
    for path in sources {
        let (name, source) = (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
        called.extend(calls(&name, &source).into_iter().map(|(resource, verb)| (resource, verb.to_owned())));
    }
    called.extend(UNSEEN.iter().map(|(resource, verb)| ((*resource).to_owned(), (*verb).to_owned())));
    let mut allowed = BTreeSet::new();
    for rule in rbac::rules() {
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                allowed.extend(rule.verbs.iter().map(|verb| (format!("{group}/{resource}"), verb.clone())));
            }
        }
    }
    let missing: Vec<_> = called.difference(&allowed).collect();
    let unused: Vec<_> = allowed.difference(&called).collect();
    assert!(missing.is_empty() && unused.is_empty(), "missing: {missing:?}\nunused: {unused:?}");
}
