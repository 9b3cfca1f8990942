//! The charts as people use them: a log by charts/zue-cluster, `helm test` of both, what the API server says to all that they render, and a
//! second release of the operator.

use zue_tests::replicas::eventually;

use crate::kubernetes::{PATIENCE, get, image, kubectl, operator, renew_namespace, root, run};

fn helm(args: &[&str]) -> String {
    run("helm", args).unwrap_or_else(|said| panic!("helm {args:?} failed: {said}"))
}

#[test]
fn a_log_is_installed_tested_upgraded_and_found_again_by_its_chart() {
    operator();
    renew_namespace("e2e-chart");
    let (repository, tag) = image("ZUE_NODE_IMAGE", "zue-node:test");
    let (chart, tested) = (format!("{}/charts/zue-cluster", root()), format!("helmTest.image={repository}:{tag}"));
    let install = |more: &[&str]| {
        let args = [
            "upgrade",
            "--install",
            "my-log",
            &chart,
            "-n",
            "e2e-chart",
            "--set",
            "storage.size=1Gi",
            "--set",
            &tested,
        ];
        helm(&[&args[..], more].concat());
        kubectl(&["wait", "-n", "e2e-chart", "zue/my-log", "--for=condition=Ready", "--timeout=180s"]);
    };
    install(&[]);
    helm(&["test", "my-log", "-n", "e2e-chart"]);
    helm(&["test", "zue-operator", "-n", "zue-system"]);
    install(&["--set", "replicas=1"]);
    let one = || (get(&["-n", "e2e-chart", "zue", "my-log"])["status"]["replicas"] == 1).then_some(());
    eventually(PATIENCE, one, || "one replica is left".to_owned());
    helm(&["uninstall", "my-log", "-n", "e2e-chart", "--wait"]);
    let gone = || {
        let pods = get(&["-n", "e2e-chart", "pods", "-l", "app.kubernetes.io/name=zue"]);
        pods["items"].as_array()?.is_empty().then_some(())
    };
    eventually(PATIENCE, gone, || "its pods are gone".to_owned());
    install(&["--set", "replicas=1"]);
    let read =
        kubectl(&["exec", "-n", "e2e-chart", "my-log-0", "--", "zue", "read", "--from", "0", "--max", "1", "--raw"]);
    assert!(read.starts_with("helm test of my-log"), "{read}");
    kubectl(&["delete", "namespace", "e2e-chart", "--wait=false"]);
}

#[test]
fn the_api_server_takes_all_that_the_charts_render_and_a_second_release_stands_beside_the_first() {
    operator();
    renew_namespace("e2e-second");
    for (chart, values) in [("zue-operator", ""), ("zue-cluster", ""), ("zue-cluster", "ci/full-values.yaml")] {
        let folder = format!("{}/charts/{chart}", root());
        let values = if values.is_empty() { vec![] } else { vec!["-f".to_owned(), format!("{folder}/{values}")] };
        let mut args = vec!["template", "dry", folder.as_str(), "-n", "e2e-second", "--kube-version", "1.34.0"];
        // Their pods are of a ServiceAccount that is not there; they are run below.
        args.push("--skip-tests");
        args.extend(values.iter().map(String::as_str));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), helm(&args)).expect("it can be written");
        let path = file.path().to_str().expect("a path of text");
        // The CRD is the first release's.
        kubectl(&["apply", "--dry-run=server", "--server-side", "--force-conflicts", "-n", "e2e-second", "-f", path]);
    }
    let (repository, tag) = image("ZUE_OPERATOR_IMAGE", "zue-operator:test");
    let set = format!(
        "image.repository={repository},image.tag={tag},crds.create=false,watchNamespaces={{e2e-second}},replicas=1"
    );
    let chart = format!("{}/charts/zue-operator", root());
    let timeout = format!("{}s", PATIENCE.as_secs());
    helm(&[
        "upgrade",
        "--install",
        "second",
        &chart,
        "-n",
        "e2e-second",
        "--set",
        &set,
        "--wait",
        "--timeout",
        &timeout,
    ]);
    helm(&["test", "second", "-n", "e2e-second"]);
    helm(&["uninstall", "second", "-n", "e2e-second"]);
    // The first one's definition is not touched.
    kubectl(&["get", "crd", "zueclusters.zue.io"]);
    kubectl(&["delete", "namespace", "e2e-second", "--wait=false"]);
}
