//! Callers that get into a closed cluster and those that do not, and that neither new certificates nor a change of the mode is felt by who
//! appends.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zue_proto::v1;
use zue_tests::identities::dial_as;
use zue_tests::programs::zue;
use zue_tests::replicas::{check_replicas_with, eventually};
use zue_tls::{Dial, Role};

use crate::kubernetes::{NAME, PATIENCE, Zue, get, kubectl, pods, run};
use crate::mounted::{Mounted, secret};
use crate::ports;

/// The time in which what is mounted reaches a pod: a minute or two, twice for an authority.
const ROTATED: Duration = Duration::from_mins(10);

#[test]
fn a_pod_of_another_namespace_is_refused_at_every_port_whatever_it_shows() {
    let ours = Zue::create("e2e-closed", 31130);
    let theirs = Zue::create("e2e-strangers", 31140);
    ours.zue_ok(&["append", "ours"], b"");
    let (own, other) = (ours.mounted.as_ref().expect("closed"), theirs.mounted.as_ref().expect("closed"));
    let file = |folder: &Path, file: &str| folder.join(file).display().to_string();
    let ca = ["--ca".to_owned(), file(own.path(), "ca.crt")];
    let shown =
        [("--cert", "tls.crt"), ("--key", "tls.key")].map(|(flag, name)| [flag.to_owned(), file(other.path(), name)]);
    let service = format!("{NAME}.e2e-closed.svc:9440");
    for command in
        [&["append", "theirs"][..], &["read", "--from", "0", "--max", "1"], &["status"], &["trim", "--before", "1"]]
    {
        for flags in [vec![], ca.to_vec(), [&ca[..], &shown.concat()].concat()] {
            let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--deadline", "5s"]).collect();
            let refused = zue(&ours.servers, &[&flags[..], command].concat(), b"");
            assert!(!refused.status.success(), "{flags:?} {command:?}: {}", String::from_utf8_lossy(&refused.stdout));
        }
        // It shows what its own cluster takes.
        let pod = [
            "exec",
            "-n",
            &theirs.namespace,
            &format!("{NAME}-0"),
            "--",
            "zue",
            "--servers",
            &service,
            "--deadline",
            "5s",
        ];
        run("kubectl", &[&pod[..], command].concat()).expect_err("a pod of another namespace");
    }
    strangers_at_the_peer_port(&ours, &theirs, own.path());
    assert_eq!(ours.zue_ok(&["read", "--from", "0", "--max", "9", "--raw"], b""), b"ours\n");
}

fn strangers_at_the_peer_port(ours: &Zue, theirs: &Zue, own: &Path) {
    // A new one for each: kubectl forwards no more once the other end has broken off.
    let forward = || ours.forward(&format!("{NAME}-1"), 9441);
    let bundle = own.join("ca.crt");
    let of = |namespace: &str, role| ports::issued(namespace, &ports::identity(namespace, role));
    let client = ports::read(own);
    let strangers = [
        ("without TLS", Dial::plain()),
        ("without a certificate", dial_as(&bundle, None)),
        ("a client", dial_as(&bundle, Some(&client))),
        ("another cluster's node", dial_as(&bundle, Some(&of(&theirs.namespace, Role::Node)))),
        ("another cluster's controller", dial_as(&bundle, Some(&of(&theirs.namespace, Role::Controller)))),
        ("of another cluster, by our authority", {
            dial_as(
                &bundle,
                Some(&ports::issued(&ours.namespace, &ports::identity(&theirs.namespace, Role::Controller))),
            )
        }),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for (who, dial) in strangers {
            let forward = forward();
            let mut control = ports::control(&forward.address, &dial);
            let said = tokio::time::timeout(PATIENCE, control.status(v1::StatusRequest {})).await.expect("an answer");
            let refused = said.expect_err(who).to_string();
            println!("{who}: {refused}");
            assert!(!refused.contains("Connection refused"), "{who} reached nobody: {refused}");
        }
        let forward = forward();
        let mut control = ports::control(&forward.address, &ports::controller(&ours.namespace));
        control.status(v1::StatusRequest {}).await.expect("the controller is let in");
    });
}

/// The certificates that everybody shows, what signs them, and which authorities are the ones that sign.
fn shown(namespace: &str) -> Vec<String> {
    let of = [
        ("peer-ca", "tls.crt"),
        ("client-ca", "tls.crt"),
        ("tls", "tls.crt"),
        ("client-test", "tls.crt"),
        ("client-pods.zue.io", "tls.crt"),
    ];
    let shown = of.map(|(of, key)| secret(namespace, &format!("{NAME}-{of}"), key).expect("it is there"));
    let notes = get(&["-n", namespace, "secret", &format!("{NAME}-tls")])["metadata"]["annotations"].clone();
    let signs = ["zue.io/peer-authority", "zue.io/client-authority"].map(|note| notes[note].to_string());
    [&shown[..], &signs].concat()
}

fn annotate(namespace: &str, annotation: &str) {
    kubectl(&["annotate", "-n", namespace, "zue", NAME, annotation]);
}

#[test]
fn certificates_and_both_authorities_are_replaced_three_times_under_load_and_nobody_notices() {
    let cluster = Zue::create("e2e-rotated", 31150);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let leads = || (cluster.status()["leader"].clone(), cluster.status()["epoch"].clone());
    let before = leads();
    for round in 1..=3 {
        let old = shown(&cluster.namespace);
        annotate(&cluster.namespace, "zue.io/rotate=certificates,peer-ca,client-ca");
        let replaced = || {
            // As a kubelet would.
            cluster.mounted.as_ref().expect("closed").refresh();
            shown(&cluster.namespace).iter().zip(&old).all(|(now, old)| now != old).then_some(())
        };
        eventually(ROTATED, replaced, || format!("all is replaced, {round}: {:#}", cluster.status()));
        println!("replaced {round} times, {} records", load.acked());
        load.expect_acks(500, PATIENCE);
    }
    cluster.check(load);
    assert_eq!(leads(), before);
}

/// Asks for a mode, and waits until the cluster is in it and every pod runs so.
fn move_to(cluster: &Zue, mode: &str) {
    let spec =
        json!({ "spec": { "tls": { "mode": mode }, "access": [{ "name": "test", "rights": ["append", "read"] }] } });
    kubectl(&["patch", "-n", &cluster.namespace, "zue", NAME, "--type=merge", "-p", &spec.to_string()]);
    let wanted = json!(format!("--tls-mode={mode}"));
    let runs_so =
        |pod: &Value| pod["spec"]["containers"][0]["args"].as_array().is_some_and(|args| args.contains(&wanted));
    let is_there = || {
        let status = cluster.status();
        let pods = get(&["-n", &cluster.namespace, "pods"])["items"].as_array()?.clone();
        let is_whole = status["isr"].as_array()?.len() == 3 && status["readyReplicas"] == 3;
        (is_whole && status["tlsMode"] == mode && pods.len() == 3 && pods.iter().all(runs_so)).then_some(())
    };
    eventually(ROTATED, is_there, || format!("{mode}: {:#}", cluster.status()));
}

#[test]
fn a_running_cluster_is_moved_from_off_to_required_without_a_failed_append() {
    let mut cluster = Zue::create_with("e2e-moved", 31160, "  tls: {mode: \"Off\"}\n");
    let plain = cluster.load_of("plain");
    plain.expect_acks(500, PATIENCE);
    move_to(&cluster, "Permissive");
    plain.expect_acks(200, PATIENCE);
    // With Permissive those who append go over, in their own time.
    cluster.mounted = Some(Mounted::of(&cluster.namespace, NAME, "test"));
    let closed = cluster.load_of("closed");
    closed.expect_acks(200, PATIENCE);
    let mut acks = plain.finish();
    move_to(&cluster, "Required");
    closed.expect_acks(200, PATIENCE);
    acks.add(closed.finish());
    let flags = cluster.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    check_replicas_with(&cluster.servers, &flags, &pods(), &acks, PATIENCE);
    assert!(!zue(&cluster.servers, &["--deadline", "5s", "append", "plain"], b"").status.success(), "it is closed");
}

/// As the version before left it: nothing of TLS in the resource, and nothing reserved for the pods.
#[test]
fn an_operator_that_finds_a_plain_cluster_leaves_it_as_it_is() {
    let cluster = Zue::create_with("e2e-adopted", 31170, "  tls: {mode: \"Off\"}\n  resources: {}\n");
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let scale = |replicas: u32| {
        kubectl(&["scale", "-n", "zue-system", "deployment/zue-operator", &format!("--replicas={replicas}")]);
        let there =
            || (get(&["-n", "zue-system", "pods"])["items"].as_array()?.len() == replicas as usize).then_some(());
        eventually(PATIENCE, there, || format!("{replicas} operators"));
    };
    scale(0);
    let patch = |part: &[&str], patch: Value| {
        let patch = patch.to_string();
        kubectl(&[&["patch", "-n", &cluster.namespace, "zue", NAME, "--type=json", "-p", &patch][..], part].concat());
    };
    patch(&[], json!([{ "op": "remove", "path": "/spec/tls" }, { "op": "remove", "path": "/spec/resources" }]));
    patch(&["--subresource=status"], json!([{ "op": "remove", "path": "/status/tlsMode" }]));
    let pods = || -> Vec<Value> {
        let pods = get(&["-n", &cluster.namespace, "pods"])["items"].as_array().cloned().unwrap_or_default();
        pods.iter()
            .map(|pod| json!([pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]]))
            .collect()
    };
    let set = || get(&["-n", &cluster.namespace, "statefulset", NAME])["status"]["updateRevision"].clone();
    let before = (pods(), set());
    scale(2);
    let adopted = || {
        let resource = get(&["-n", &cluster.namespace, "zue", NAME]);
        let status = &resource["status"];
        let is_done = status["observedGeneration"] == resource["metadata"]["generation"] && status["tlsMode"] == "Off";
        is_done.then_some(())
    };
    eventually(PATIENCE, adopted, || format!("it is taken care of: {:#}", cluster.status()));
    load.expect_acks(500, PATIENCE);
    assert_eq!((pods(), set()), before);
    for kind in ["secrets", "networkpolicies"] {
        assert_eq!(get(&["-n", &cluster.namespace, kind])["items"], json!([]), "{kind}");
    }
    cluster.check(load);
}
