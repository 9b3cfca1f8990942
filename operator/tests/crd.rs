//! Resources that the API server takes and refuses, by the CRD itself: its rules are evaluated here, without a cluster.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use kube::core::cel;
use serde_json::{Value, json};
use zue_operator::cluster::Cluster;
use zue_operator::crd::bounds::BOUNDS;
use zue_operator::crd::on_demand::ZueBackup;
use zue_operator::crd::{ZueCluster, ZueClusterSpec, schema, schema_of_backups};

/// A resource as the API server would store it: with its defaults.
fn resource(spec: &str) -> Value {
    named("my-log", spec)
}

fn named(name: &str, spec: &str) -> Value {
    let spec: ZueClusterSpec = serde_yaml::from_str(spec).unwrap();
    serde_json::to_value(ZueCluster::new(name, spec)).unwrap()
}

fn refused(now: &Value, before: Option<&Value>) -> Vec<(String, String)> {
    match cel::Validator::new().validate(&schema(), now, before) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| (error.field_path.clone(), error.message.clone())).collect(),
    }
}

#[test]
fn what_makes_sense_is_taken() {
    for spec in [
        "{}",
        "replicas: 1",
        "{replicas: 4, quorum: 3}",
        "{replicas: 5, quorum: 5, leader: {ordinal: 4}}",
        "externalAccess: {addressTemplate: 'a:1', perReplicaServices: {type: LoadBalancer}}",
        "{tls: {mode: Required}, access: [{name: shop, rights: [append, read]}, {name: till, rights: [read], token: true}]}",
        "access: [{name: shop, rights: []}]",
        "{backup: {to: 's3://logs'}, bootstrap: {from: {backup: 's3://logs/old', until: {offset: 7}}}}",
        "externalAccess: {addressTemplate: 'a:1', perReplicaServices: {type: NodePort, firstNodePort: 30940}}",
    ] {
        assert_eq!(refused(&resource(spec), None), [], "{spec}");
    }
}

#[test]
fn invalid_values_are_refused_with_their_field() {
    let cases = [
        ("{replicas: 3, quorum: 1}", "spec.quorum", "more than half"),
        ("{replicas: 3, quorum: 4}", "spec.quorum", "no more than there are"),
        ("{replicas: 4, quorum: 2}", "spec.quorum", "more than half"),
        ("{leader: {ordinal: 3}}", "spec.leader.ordinal", "less than the number of replicas"),
        ("{tls: {secretName: a, clientCaSecretName: a}}", "spec.tls.clientCaSecretName", "name two Secrets"),
        ("{access: [{name: ca, rights: []}]}", "spec.access[0].name", "cannot be called ca"),
        ("bootstrap: {from: {backup: 's3://a', until: {}}}", "spec.bootstrap.from.until", "a time or an offset"),
        (
            "bootstrap: {from: {backup: 's3://a', until: {offset: 1, time: '2026-11-28T12:00:00Z'}}}",
            "spec.bootstrap.from.until",
            "not both",
        ),
        (
            "externalAccess: {addressTemplate: 'a:1', perReplicaServices: {type: NodePort}}",
            "spec.externalAccess.perReplicaServices.firstNodePort",
            "NodePort",
        ),
        (
            "externalAccess: {addressTemplate: 'a:1', perReplicaServices: {type: ClusterIP, firstNodePort: 30940}}",
            "spec.externalAccess.perReplicaServices.firstNodePort",
            "NodePort",
        ),
    ];
    for (spec, field, words) in cases {
        let refused = refused(&resource(spec), None);
        assert_eq!(refused.len(), 1, "{spec}: {refused:?}");
        assert_eq!(refused[0].0.replace("..", "."), field, "{spec}");
        assert!(refused[0].1.contains(words), "{spec}: {refused:?}");
    }
}

#[test]
fn a_name_that_fits_into_no_service_is_refused() {
    for name in ["9lives", "a.b", "a-name-of-forty-one-characters-is-too-long"] {
        assert!(refused(&named(name, "{}"), None)[0].1.contains("metadata.name"), "{name}");
    }
    for name in ["a", "log-1", "a-name-of-forty-characters-is-just-short"] {
        assert_eq!(refused(&named(name, "{}"), None), [], "{name}");
    }
}

#[test]
fn what_cannot_be_changed_is_refused_and_the_rest_may_be() {
    let cases = [
        ("storage: {storageClassName: a}", "storage: {storageClassName: b}", "can't be changed"),
        // A field that was not there, or is there no more, must not slip past the rule.
        ("{}", "storage: {storageClassName: b}", "can't be changed"),
        ("storage: {storageClassName: a}", "{}", "can't be changed"),
    ];
    for (before, now, words) in cases {
        let refused = refused(&resource(now), Some(&resource(before)));
        assert!(refused.len() == 1 && refused[0].1.contains(words), "{before} to {now}: {refused:?}");
    }
    for (before, now) in [
        ("replicas: 3", "replicas: 5"),
        ("replicas: 5", "replicas: 1"),
        ("storage: {size: 1Gi}", "storage: {size: 1024Mi}"),
        ("storage: {size: 1Gi}", "storage: {size: 2Gi}"),
        ("{}", "{quorum: 3, image: other, leader: {ordinal: 2}}"),
    ] {
        assert_eq!(refused(&resource(now), Some(&resource(before))), [], "{before} to {now}");
    }
}

#[test]
fn a_size_that_the_volumes_never_reached_may_go_back_and_none_below_theirs() {
    let with = |size: &str, has: Option<&str>| {
        let mut resource = resource(&format!("storage: {{size: {size}}}"));
        if let Some(has) = has {
            resource["status"] = json!({ "storageSize": has });
        }
        resource
    };
    let is_taken = |(before, has, now, has_now): (&str, Option<&str>, &str, Option<&str>)| {
        let refused = refused(&with(now, has_now), Some(&with(before, has)));
        assert!(refused.iter().all(|(_, why)| why.contains("can't shrink")), "{refused:?}");
        refused.is_empty()
    };
    let one = Some("1Gi");
    for (change, expected) in [
        (("2Gi", one, "1Gi", one), true),
        (("2Gi", one, "1500Mi", one), true),
        (("2Gi", one, "1023Mi", one), false),
        (("2Gi", Some("2Gi"), "1Gi", Some("2Gi")), false),
        (("1Gi", one, "2Gi", one), true),
        // Nothing is made yet.
        (("2Gi", None, "1Gi", None), true),
        // What somebody wrote into the status must not keep it from being corrected.
        (("1Gi", Some("99Gi"), "1Gi", one), true),
    ] {
        assert_eq!(is_taken(change), expected, "{change:?}");
    }
}

#[test]
fn what_a_log_began_with_cannot_be_changed() {
    let begun = |spec: &str| {
        let mut resource = resource(spec);
        resource["status"] = json!({ "clusterId": "00000000000000000000000000000007" });
        resource
    };
    let from = |offset: u64| format!("bootstrap: {{from: {{backup: 's3://a', until: {{offset: {offset}}}}}}}");
    for (before, now) in [(from(1), from(2)), (from(1), "{}".to_owned()), ("{}".to_owned(), from(1))] {
        let refused = refused(&begun(&now), Some(&begun(&before)));
        assert!(refused.len() == 1 && refused[0].1.contains("has begun"), "{before} to {now}: {refused:?}");
    }
    assert_eq!(refused(&begun(&from(1)), Some(&begun(&from(1)))), []);
    assert_eq!(refused(&begun(&from(2)), Some(&resource(&from(1)))), [], "it had not begun");
}

/// Visits our own fields, not those of the types that are Kubernetes' own.
fn visit(path: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
    let theirs = [
        "spec.resources",
        "spec.access[].from",
        "spec.monitoring.from",
        "spec.pod.affinity",
        "spec.pod.tolerations",
        "spec.pod.topologySpreadConstraints",
        "spec.pod.imagePullSecrets",
        "status.conditions",
    ];
    check(path, schema);
    if theirs.contains(&path) {
        return;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        visit(&path, field, check);
    }
    if let Some(items) = schema.get("items") {
        visit(&format!("{path}[]"), items, check);
    }
}

#[test]
fn a_backup_is_of_one_cluster_and_is_not_changed() {
    let of = |cluster: &str| {
        serde_json::to_value(ZueBackup::new("b", serde_json::from_value(json!({ "cluster": cluster })).unwrap()))
            .unwrap()
    };
    let refused = |now: &Value, before| cel::Validator::new().validate(&schema_of_backups(), now, before).is_err();
    let (orders, payments) = (of("orders"), of("payments"));
    assert!(!refused(&orders, None) && !refused(&orders, Some(&orders)));
    assert!(refused(&orders, Some(&payments)));
}

#[test]
fn every_field_is_documented_and_bounded() {
    let (clusters, backups) = (schema(), schema_of_backups());
    let mut seen = 0;
    for (schema, root) in [(&clusters, "spec"), (&clusters, "status"), (&backups, "spec"), (&backups, "status")] {
        visit(root, &schema["properties"][root], &mut |path, field| {
            seen += 1;
            if !path.ends_with("[]") {
                assert!(field["description"].as_str().is_some_and(|text| text.len() > 5), "{path} is not documented");
            }
            let bound = match field["type"].as_str() {
                Some("string") if field.get("enum").is_none() => "maxLength",
                Some("array") => "maxItems",
                Some("object") if field.get("additionalProperties").is_some() => "maxProperties",
                _ => return,
            };
            assert!(field.get(bound).is_some(), "{path} has no {bound}");
        });
    }
    assert!(seen > 60, "only {seen} fields were seen");
}

#[test]
fn the_schema_is_structural_and_without_warnings() {
    let text = format!("{}{}", schema(), schema_of_backups());
    for word in ["anyOf", "oneOf", "\"const\"", "uint", "\"nullable\"", "$ref"] {
        assert!(!text.contains(word), "{word}");
    }
    assert_eq!(
        schema()["properties"]["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"],
        json!(["type"])
    );
}

/// Sets a field of a resource, and those around it where they are missing.
fn set(resource: &mut Value, path: &str, value: &str) {
    let place = path.split('.').fold(&mut resource["spec"], |place, name| &mut place[name]);
    *place = value.into();
}

/// The operator's own judgement of it.
fn is_refused_by_the_operator(resource: &Value) -> bool {
    let parsed = serde_json::from_value::<ZueCluster>(resource.clone());
    parsed.is_ok_and(|mut parsed| {
        parsed.metadata.namespace = Some("shop".to_owned());
        parsed.metadata.uid = Some("u".to_owned());
        Cluster::new(&parsed, "image").is_err()
    })
}

#[test]
fn sizes_and_times_are_bounded_as_the_nodes_bound_them() {
    for bound in BOUNDS {
        let around = [bound.min.checked_sub(1), Some(bound.min), Some(bound.max), bound.max.checked_add(1)];
        for value in around.into_iter().flatten() {
            let mut resource =
                resource(if bound.path.starts_with("backup") { "backup: {to: 's3://logs'}" } else { "{}" });
            set(&mut resource, bound.path, &bound.text(value));
            let refused = refused(&resource, None);
            let is_outside = value < bound.min || value > bound.max;
            assert!(!is_outside || !refused.is_empty(), "{} {value} is taken", bound.path);
            // What no node can count is refused for its own sake.
            if bound.max < 1 << 40 || !is_outside {
                let by_operator = is_refused_by_the_operator(&resource);
                assert_eq!(!refused.is_empty(), by_operator, "{} {}: {refused:?}", bound.path, bound.text(value));
            }
        }
    }
}

#[test]
fn every_size_and_every_time_has_a_bound() {
    let mut unbounded = Vec::new();
    visit("spec", &schema()["properties"]["spec"], &mut |path, field| {
        let pattern = field["pattern"].as_str().unwrap_or_default();
        let is_bounded = BOUNDS.iter().any(|bound| path == format!("spec.{}", bound.path));
        if (pattern.contains("KiB") || pattern.contains("ms|")) && !is_bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, [""; 0]);
}

#[test]
fn fields_that_do_not_go_together_are_refused_by_their_names() {
    for (spec, field) in [
        ("{config: {replication: {heartbeatInterval: 600ms}}}", "spec.config.replication.lagTimeMax"),
        ("{config: {limits: {recordBytesMax: 8MiB}}}", "spec.config.limits.appendBytesMax"),
        ("{config: {limits: {appendsBytesMax: 7MiB}}}", "spec.config.limits.appendsBytesMax"),
        ("{config: {replication: {heartbeatInterval: 400ms}}}", "spec.leader.detectionTime"),
        ("{leader: {detectionTime: 100ms}}", "spec.leader.detectionTime"),
        (
            "{leader: {detectionTime: 500ms}, config: {replication: {lagTimeMax: 500ms}}}",
            "spec.config.replication.lagTimeMax",
        ),
        ("{config: {log: {segmentBytesMax: 1KiB}}}", "spec.config.log.segmentBytesMax"),
    ] {
        let refused = refused(&resource(spec), None);
        let fields: Vec<String> = refused.iter().map(|(field, _)| field.replace("..", ".")).collect();
        assert!(fields.iter().any(|found| found == field), "{spec}: {refused:?}");
        assert!(is_refused_by_the_operator(&resource(spec)), "{spec}");
    }
}

#[test]
fn times_that_hang_together_are_taken_and_refused_as_the_operator_takes_and_refuses_them() {
    let cases = [
        (200, 300, [399, 400, 401]),
        (200, 400, [533, 534, 535]),
        (200, 500, [666, 667, 668]),
        (200, 501, [667, 668, 669]),
        (200, 599, [798, 799, 800]),
        (200, 600, [399, 400, 401]),
        (199, 597, [795, 796, 797]),
        (201, 603, [803, 804, 805]),
    ];
    for (heartbeat, detection, lags) in cases {
        let taken = lags.map(|lag| {
            let spec = format!(
                "{{leader: {{detectionTime: {detection}ms}}, \
                 config: {{replication: {{heartbeatInterval: {heartbeat}ms, lagTimeMax: {lag}ms}}}}}}"
            );
            let resource = resource(&spec);
            let refused = refused(&resource, None);
            assert_eq!(!refused.is_empty(), is_refused_by_the_operator(&resource), "{spec}: {refused:?}");
            refused.is_empty()
        });
        assert!(taken[2] && !taken[0], "{heartbeat} {detection}: {taken:?}");
    }
}
