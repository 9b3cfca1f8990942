//! The Kubernetes that KUBECONFIG names, through kubectl and helm: the same tools that users have.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use zue_tests::acks::Acks;
use zue_tests::load::Load;
use zue_tests::programs;
use zue_tests::replicas::{check_replicas_with, eventually, read_lines_with};

use crate::PACE;
use crate::mounted::Mounted;

/// Pulling, scheduling and starting, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Runs a program to its end; gives its output, or what it said of its failure.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(args).output().map_err(|error| format!("{program} does not start: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs kubectl, which must succeed.
pub fn kubectl(args: &[&str]) -> String {
    run("kubectl", args).unwrap_or_else(|said| panic!("kubectl {args:?} failed: {said}"))
}

/// An object as JSON.
pub fn get(args: &[&str]) -> Value {
    let json = kubectl(&[&["get", "-o", "json"], args].concat());
    serde_json::from_str(&json).expect("kubectl writes JSON")
}

/// Applies a manifest; gives what the API server said of a refusal.
pub fn apply(namespace: &str, manifest: &str) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().expect("a file for the manifest");
    std::fs::write(file.path(), manifest).expect("the file can be written");
    run("kubectl", &["apply", "-n", namespace, "-f", file.path().to_str().expect("a path of text")])
}

/// Makes a namespace, in place of what an earlier run may have left of it.
pub fn renew_namespace(namespace: &str) {
    kubectl(&["delete", "namespace", namespace, "--ignore-not-found"]);
    kubectl(&["create", "namespace", namespace]);
}

/// The project's folder.
pub fn root() -> String {
    format!("{}/..", env!("CARGO_MANIFEST_DIR"))
}

/// The image that a variable names, or the default: its repository and its tag.
pub fn image(variable: &str, default: &str) -> (String, String) {
    let image = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let (repository, tag) = image.rsplit_once(':').expect("an image has a tag");
    (repository.to_owned(), tag.to_owned())
}

/// Installs the operator's chart, once for all tests.
pub fn operator() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let (operator, operator_tag) = image("ZUE_OPERATOR_IMAGE", "zue-operator:test");
        let (node, node_tag) = image("ZUE_NODE_IMAGE", "zue-node:test");
        let chart = format!("{}/charts/zue-operator", root());
        let set = format!(
            "image.repository={operator},image.tag={operator_tag},nodeImage.repository={node},nodeImage.tag={node_tag}"
        );
        let args = ["upgrade", "--install", "zue-operator", &chart, "-n", "zue-system", "--create-namespace", "--wait"];
        let timeout = format!("{}s", PATIENCE.as_secs());
        run("helm", &[&args[..], &["--timeout", &timeout, "--set", &set]].concat())
            .unwrap_or_else(|said| panic!("helm failed: {said}"));
    });
}

/// A ZueCluster in a namespace of its own, reachable from this machine by node ports.
pub struct Zue {
    pub namespace: String,
    pub servers: String,
    /// The certificate that the tests show to it, where it asks for one.
    pub mounted: Option<Mounted>,
    /// By what it was made.
    pub manifest: String,
}

/// The name of each test's cluster.
pub const NAME: &str = "events";

/// The client that the tests are, and who collects the metrics.
pub const OPEN_TO_TESTS: &str = "  access: [{name: test, rights: [append, read, admin]}]
  monitoring: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: zue-monitoring}}}]}
";

impl Zue {
    /// Creates one as it is by default, closed, and waits until it is Ready. `port` is its first node port, a multiple of ten.
    pub fn create(namespace: &str, port: u16) -> Self {
        let mut zue = Self::create_with(namespace, port, OPEN_TO_TESTS);
        zue.mounted = Some(Mounted::of(namespace, NAME, "test"));
        zue
    }

    /// The same, with these further lines of its spec.
    pub fn create_with(namespace: &str, port: u16, spec: &str) -> Self {
        Self::create_on("{size: 1Gi}", namespace, port, spec)
    }

    /// The same, on this storage.
    pub fn create_on(storage: &str, namespace: &str, port: u16, spec: &str) -> Self {
        renew_namespace(namespace);
        Self::create_in(storage, namespace, port, spec)
    }

    /// The same, in a namespace that there is.
    pub fn create_in(storage: &str, namespace: &str, port: u16, spec: &str) -> Self {
        operator();
        let nodes = get(&["nodes"]);
        let address = nodes["items"][0]["status"]["addresses"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["type"] == "InternalIP"))
            .and_then(|one| one["address"].as_str())
            .expect("a node has an address")
            .to_owned();
        let manifest = format!(
            "apiVersion: zue.io/v1alpha1\nkind: ZueCluster\nmetadata: {{name: {NAME}}}\nspec:\n  replicas: 3\n  \
             storage: {storage}\n  externalAccess:\n    addressTemplate: \
             \"{address}:{}{{ordinal}}\"\n    perReplicaServices: {{type: NodePort, firstNodePort: {port}}}\n{spec}",
            port / 10
        );
        apply(namespace, &manifest).expect("the manifest is right");
        let servers = (0..3).map(|n| format!("{address}:{}", port + n)).collect::<Vec<_>>().join(",");
        let zue = Self { namespace: namespace.to_owned(), servers, mounted: None, manifest };
        zue.expect_ready();
        zue
    }

    /// The flags that a command needs to get in.
    pub fn flags(&self) -> Vec<String> {
        self.mounted.as_ref().map(Mounted::flags).unwrap_or_default()
    }

    fn with_flags<'a>(flags: &'a [String], args: &[&'a str]) -> Vec<&'a str> {
        flags.iter().map(String::as_str).chain(args.iter().copied()).collect()
    }

    /// Runs `zue` to its end, as the client that the tests are.
    pub fn zue(&self, args: &[&str], input: &[u8]) -> Output {
        programs::zue(&self.servers, &Self::with_flags(&self.flags(), args), input)
    }

    /// The same, which must succeed; gives its standard output.
    pub fn zue_ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        programs::zue_ok(&self.servers, &Self::with_flags(&self.flags(), args), input)
    }

    /// All values of a pod's replica, one a line, once it holds at least `lines` of them.
    pub fn read_lines(&self, pod: &str, lines: usize) -> Vec<u8> {
        let flags = self.flags();
        read_lines_with(&self.servers, &Self::with_flags(&flags, &[]), pod, lines, PATIENCE)
    }

    /// A producer that goes on while things break.
    pub fn load(&self) -> Load {
        self.load_of("load")
    }

    /// The same, of this name.
    pub fn load_of(&self, name: &str) -> Load {
        Load::start_with(&self.servers, &self.flags(), name, PACE)
    }

    /// Ends it, and checks that every replica holds all that was acknowledged.
    pub fn check(&self, load: Load) -> Acks {
        let (acks, flags) = (load.finish(), self.flags());
        check_replicas_with(&self.servers, &Self::with_flags(&flags, &[]), &pods(), &acks, PATIENCE);
        acks
    }

    /// Waits until it is Ready.
    pub fn expect_ready(&self) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        kubectl(&["wait", "-n", &self.namespace, "--for=condition=Ready", &format!("zue/{NAME}"), &timeout]);
    }

    pub fn status(&self) -> Value {
        get(&["-n", &self.namespace, "zue", NAME])["status"].clone()
    }

    /// Writes an annotation of the resource.
    pub fn annotate(&self, annotation: &str) {
        kubectl(&["annotate", "--overwrite", "-n", &self.namespace, "zue", NAME, annotation]);
    }

    /// Changes its spec, by a merge patch.
    pub fn patch(&self, spec: &Value) {
        let patch = serde_json::json!({ "spec": spec }).to_string();
        kubectl(&["patch", "-n", &self.namespace, "zue", NAME, "--type=merge", "-p", &patch]);
    }

    /// A condition; null while there is none of that type.
    pub fn condition(&self, type_: &str) -> Value {
        let conditions = self.status()["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }

    /// The id of each pod, by name: a pod that was replaced has another.
    pub fn uids(&self) -> BTreeMap<String, String> {
        let pods = get(&["-n", &self.namespace, "pods", "-l", "app.kubernetes.io/name=zue"]);
        let of = |pod: &Value| {
            Some((pod["metadata"]["name"].as_str()?.to_owned(), pod["metadata"]["uid"].as_str()?.to_owned()))
        };
        pods["items"].as_array().expect("a list").iter().filter_map(of).collect()
    }

    /// The pod that leads.
    pub fn leader(&self) -> String {
        self.status()["leader"].as_str().expect("a leader").to_owned()
    }

    /// The name of the node on which a pod runs.
    pub fn node_of(&self, pod: &str) -> String {
        let pod = get(&["-n", &self.namespace, "pod", pod]);
        pod["spec"]["nodeName"].as_str().expect("the pod is scheduled").to_owned()
    }

    /// Forwards a port of a pod to this machine.
    pub fn forward(&self, pod: &str, port: u16) -> Forward {
        let mut command = Command::new("kubectl");
        command.args(["port-forward", "-n", &self.namespace, &format!("pod/{pod}"), &format!(":{port}")]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        output.read_line(&mut line).expect("it says where it listens");
        // Forwarding from 127.0.0.1:34567 -> 9441
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("no address in {line:?}"));
        Forward { address: address.to_owned(), child, _output: output }
    }

    /// Deletes a pod and keeps it from coming back until the guard is dropped: its volume ties it to a node that takes no pods.
    pub fn hold_down(&self, pod: &str) -> Cordon {
        let node = self.node_of(pod);
        kubectl(&["cordon", &node]);
        let cordon = Cordon(node);
        kubectl(&["delete", "pod", "-n", &self.namespace, pod, "--grace-period=1"]);
        cordon
    }

    /// Kills every node process of this cluster with SIGKILL, all at once.
    pub fn kill_all(&self) {
        let restarts = || -> Vec<u64> { pods().iter().map(|pod| self.restarts(pod)).collect() };
        let before = restarts();
        let nodes: Vec<_> = pods().iter().map(|pod| self.node_of(pod)).collect();
        // Stopped first, so that none sees another die.
        for which in ["-STOP", "-KILL"] {
            std::thread::scope(|scope| {
                for node in &nodes {
                    scope.spawn(move || signal(node, which));
                }
            });
        }
        let all_restarted = || restarts().iter().zip(&before).all(|(now, before)| now > before).then_some(());
        eventually(PATIENCE, all_restarted, || "every container has restarted".to_owned());
    }

    /// Kills the node process of a pod with SIGKILL, and those that share its machine.
    pub fn kill(&self, pod: &str) {
        signal(&self.node_of(pod), "-KILL");
    }

    fn restarts(&self, pod: &str) -> u64 {
        let pod = get(&["-n", &self.namespace, "pod", pod]);
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
    }
}

impl Drop for Zue {
    /// Leaves what failed for a look.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell_of_failure(&self.namespace);
        } else {
            drop(run("kubectl", &["delete", "namespace", &self.namespace, "--wait=false"]));
        }
    }
}

/// Prints what says why a test may have failed: how busy the machine and the API server are, the pods, and the operators' last words.
fn tell_of_failure(namespace: &str) {
    for resource in ["cpu", "io"] {
        let pressure = std::fs::read_to_string(format!("/proc/pressure/{resource}")).unwrap_or_default();
        println!("{resource} pressure: {}", pressure.lines().next().unwrap_or_default());
    }
    let asked = Instant::now();
    let pods = run("kubectl", &["get", "pods", "-A", "-o", "wide"]);
    println!("the API server took {:?}", asked.elapsed());
    let operators = ["logs", "-n", "zue-system", "-l", "app.kubernetes.io/name=zue-operator", "--prefix", "--tail=25"];
    let events = ["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"];
    for said in [pods, run("kubectl", &operators), run("kubectl", &events)] {
        println!("{}", said.unwrap_or_else(|refused| refused));
    }
}

/// Sends a signal to the node processes on a machine.
fn signal(machine: &str, which: &str) {
    run("docker", &["exec", machine, "pkill", which, "-x", "zue-node"]).expect("the signal arrives");
}

/// The names of its pods.
pub fn pods() -> Vec<String> {
    (0..3).map(|n| format!("{NAME}-{n}")).collect()
}

/// A forwarded port, until this is dropped.
pub struct Forward {
    pub address: String,
    child: Child,
    /// Kept open: it ends when it cannot say what it does.
    _output: BufReader<ChildStdout>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A node that takes no pods until this is dropped.
pub struct Cordon(String);

impl Drop for Cordon {
    fn drop(&mut self) {
        drop(run("kubectl", &["uncordon", &self.0]));
    }
}
