//! Volumes that grow, under load and when they are full. local-path cannot grow any: the volumes are filesystems in files of the machines,
//! of a class that allows expansion, and what a driver would do for them the test does. A filesystem that is in use is enlarged only by
//! who has all capabilities, which not every machine gives: what the volumes are to gain later is taken by a file until then.

use std::time::Duration;

use serde_json::json;
use zue_tests::replicas::eventually;

use crate::alone::machines;
use crate::changes::expect_members;
use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, run};

const IMAGE: &str = "/var/zue-e2e.img";
pub const MOUNT: &str = "/var/zue-e2e";
/// The file that takes the difference between the two sizes, beside the directory that is the volume.
const BALLAST: &str = "/var/zue-e2e/ballast";
pub const VOLUME: &str = "/var/zue-e2e/volume";
pub const SMALL: &str = "96Mi";
pub const LARGE: &str = "256Mi";
const DIFFERENCE: &str = "160M";

/// A filesystem on each worker as a static volume, taken away when this is dropped. Each test has a class of its own: a claim of
/// the test before that is not gone yet would take what is meant for this one.
pub struct Volumes {
    workers: Vec<String>,
    of: &'static str,
}

/// The class of the volumes of a test.
pub fn class(of: &str) -> String {
    format!("zue-e2e-{of}")
}

/// Runs a script on a machine.
pub fn on(machine: &str, script: &str) -> Result<String, String> {
    run("docker", &["exec", machine, "sh", "-euc", script])
}

impl Volumes {
    pub fn make(of: &'static str) -> Self {
        let workers: Vec<String> = machines().into_iter().filter(|name| !name.ends_with("control-plane")).collect();
        let volumes = Self { workers, of };
        volumes.remove();
        let name = class(of);
        let class = format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {name}}}\n\
             provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer\nallowVolumeExpansion: true\n"
        );
        apply("default", &class).expect("a class");
        for machine in &volumes.workers {
            // The devices of a container are those that were there when it was made.
            let script = format!(
                "truncate -s {} {IMAGE}; mkfs.ext4 -qF {IMAGE}; mkdir -p {MOUNT}
                 for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
                 mount -o loop {IMAGE} {MOUNT}; fallocate -l {DIFFERENCE} {BALLAST}; mkdir -m 0777 {VOLUME}",
                LARGE.trim_end_matches('i')
            );
            on(machine, &script).expect("a filesystem in a file");
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volumes.name(machine) },
                "spec": {
                    "capacity": { "storage": SMALL }, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                    "persistentVolumeReclaimPolicy": "Retain", "local": { "path": VOLUME },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                        { "key": "kubernetes.io/hostname", "operator": "In", "values": [machine] } ] }] } },
                },
            });
            apply("default", &volume.to_string()).expect("a volume");
        }
        volumes
    }

    /// A cluster on them, to which what is written is soon much.
    pub fn create(&self, namespace: &str, port: u16) -> Zue {
        let storage = format!("{{size: {SMALL}, storageClassName: {}}}", class(self.of));
        let spec = "  tls: {mode: \"Off\"}\n  config: {log: {segmentBytesMax: 8MiB}}\n";
        Zue::create_on(&storage, namespace, port, spec)
    }

    fn name(&self, machine: &str) -> String {
        format!("{}-{machine}", class(self.of))
    }

    /// Does what a driver does once a claim asks for more: there is more room, and the volume and the claim say so.
    pub fn grow(&self, namespace: &str) {
        for machine in &self.workers {
            on(machine, &format!("rm {BALLAST}")).expect("there is more room");
            let volume = json!({ "spec": { "capacity": { "storage": LARGE } } }).to_string();
            kubectl(&["patch", "pv", &self.name(machine), "--type=merge", "-p", &volume]);
        }
        for ordinal in 0..3 {
            let claim = json!({ "status": { "capacity": { "storage": LARGE } } }).to_string();
            let name = format!("data-{NAME}-{ordinal}");
            kubectl(&["patch", "pvc", "-n", namespace, &name, "--subresource=status", "--type=merge", "-p", &claim]);
        }
    }

    fn remove(&self) {
        for machine in &self.workers {
            let volume = self.name(machine);
            drop(run("kubectl", &["delete", "pv", &volume, "--ignore-not-found", "--wait=false"]));
            let forget = json!({ "metadata": { "finalizers": null } }).to_string();
            drop(run("kubectl", &["patch", "pv", &volume, "--type=merge", "-p", &forget]));
            drop(on(machine, &format!("umount -l {MOUNT} 2>/dev/null || true; rm -f {IMAGE}")));
        }
        drop(run("kubectl", &["delete", "storageclass", &class(self.of), "--ignore-not-found"]));
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The number of claims that ask for as much as there is to be.
pub fn asked(cluster: &Zue) -> Option<usize> {
    let claims = get(&["-n", &cluster.namespace, "pvc"]);
    let claims = claims["items"].as_array()?;
    Some(claims.iter().filter(|claim| claim["spec"]["resources"]["requests"]["storage"] == LARGE).count())
}

/// Waits until every claim does.
pub fn expect_asked(cluster: &Zue) {
    let all = || asked(cluster).filter(|count| *count == 3);
    eventually(PATIENCE, all, || format!("all claims ask for {LARGE}: {:#}", cluster.status()));
}

/// The same, and plays the driver.
fn expect_growth(cluster: &Zue, volumes: &Volumes) {
    expect_asked(cluster);
    volumes.grow(&cluster.namespace);
    let set = get(&["-n", &cluster.namespace, "statefulset", NAME]);
    let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(*template, LARGE, "further replicas get as much");
}

#[test]
fn volumes_grow_under_load_and_full_ones_take_appends_again() {
    let volumes = Volumes::make("grow");
    let cluster = volumes.create("e2e-grows", 31220);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    load.take_stall();
    let uids = cluster.uids();

    // Until they are full: 1 MiB of lines with each call.
    let lines = format!("{}\n", "x".repeat(1023)).repeat(1024);
    let mut full = None;
    for n in 0..200 {
        let output = cluster.zue(&["--deadline", "5s", "append"], lines.as_bytes());
        if !output.status.success() {
            full = Some((n, String::from_utf8_lossy(&output.stderr).into_owned()));
            break;
        }
    }
    let (appended, said) = full.expect("a volume of 96 MiB is full at last");
    println!("full after {appended} MiB: {said}");

    cluster.patch(&json!({ "storage": { "size": LARGE } }));
    expect_growth(&cluster, &volumes);
    cluster.zue_ok(&["--deadline", "120s", "append"], lines.as_bytes());
    load.expect_acks(200, PATIENCE);
    println!("appends stood still for {:?} on full disks", load.take_stall());
    // The load shares the log with what filled it: its acknowledgements must be there, each once.
    let acks = load.finish();
    assert!(acks.len() > 700, "{}", acks.len());
    let verified = || cluster.zue(&["verify"], b"").status.success().then_some(());
    eventually(PATIENCE, verified, || "all replicas hold the same".to_owned());

    let load = cluster.load_of("after");
    load.expect_acks(500, PATIENCE);
    // Nothing was restarted for it, and a smaller size is refused.
    assert_eq!(cluster.uids(), uids, "no pod was replaced");
    let smaller = json!({ "spec": { "storage": { "size": SMALL } } }).to_string();
    run("kubectl", &["patch", "-n", &cluster.namespace, "zue", NAME, "--type=merge", "-p", &smaller])
        .expect_err("it shrinks");
    std::thread::sleep(Duration::from_secs(1));
    load.finish();
    drop(cluster);
}
