//! Operators that die, all of them at once, as soon as anything that they do shows: the API server is watched, and whatever is written there
//! for a cluster for the first time kills them. So each step of what is asked for is taken by another than the one before it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alone::machines;
use crate::cut_off::machine_of_the_acting_operator;
use crate::kubernetes::{PATIENCE, Zue, run};

/// So often at most they die of one thing that is asked for: it is to come to its end.
const KILLS_MAX: usize = 40;
/// Nothing new for so long, and what there is already has been told.
const SETTLED: Duration = Duration::from_secs(2);

/// The steps that an object tells of.
type Steps = fn(&Value) -> Vec<String>;

/// The watched paths below the namespace.
const WATCHED: [(&str, &str, Steps); 4] = [
    ("apis/zue.io/v1alpha1", "zueclusters", of_resource),
    ("apis/apps/v1", "statefulsets", of_set),
    ("api/v1", "pods", of_pod),
    ("api/v1", "persistentvolumeclaims", of_claim),
];

fn of_resource(resource: &Value) -> Vec<String> {
    let (metadata, status) = (&resource["metadata"], &resource["status"]);
    let asked = metadata["annotations"].as_object().into_iter().flatten();
    let asked = asked.filter(|(key, _)| key.starts_with("zue.io/")).map(|(key, value)| format!("{key}={value}"));
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions = conditions.map(|one| format!("{} is {}, {}", one["type"], one["status"], one["reason"]));
    let members = status["members"].as_array().into_iter().flatten();
    let members = members.map(|one| format!("{} is {}, in sync: {}", one["pod"], one["role"], one["inSync"]));
    let fields = ["epoch", "leader", "clusterId", "recovery", "observedGeneration", "storageSize", "replicas"];
    let fields = fields.iter().map(|field| format!("{field} is {}", status[*field]));
    let own = format!("resource {} of generation {}", metadata["uid"], metadata["generation"]);
    asked.chain(conditions).chain(members).chain(fields).chain([own]).collect()
}

fn of_set(set: &Value) -> Vec<String> {
    let (metadata, spec) = (&set["metadata"], &set["spec"]);
    let size = &spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    let is_gone = metadata["deletionTimestamp"].is_string();
    let (uid, generation) = (&metadata["uid"], &metadata["generation"]);
    vec![format!("set {uid} of generation {generation}: {} of {size}, gone: {is_gone}", spec["replicas"])]
}

fn of_pod(pod: &Value) -> Vec<String> {
    let metadata = &pod["metadata"];
    let is_leaving = metadata["deletionTimestamp"].is_string();
    let role = &metadata["labels"]["zue.io/role"];
    let named = |what: &str| format!("pod {} {}: {what}", metadata["name"], metadata["uid"]);
    vec![named(&format!("leaving: {is_leaving}")), named(&format!("labelled {role}"))]
}

fn of_claim(claim: &Value) -> Vec<String> {
    let metadata = &claim["metadata"];
    let asks = &claim["spec"]["resources"]["requests"]["storage"];
    let is_leaving = metadata["deletionTimestamp"].is_string();
    vec![format!("claim {} {} asks for {asks}, leaving: {is_leaving}", metadata["name"], metadata["uid"])]
}

/// The steps of a cluster as they show, and those that were seen before.
pub struct Deaths {
    watches: Vec<Child>,
    steps: Receiver<String>,
    seen: BTreeSet<String>,
    workers: Vec<String>,
}

impl Deaths {
    /// Watches what is done for a cluster.
    pub fn of(cluster: &Zue) -> Self {
        let (tell, steps) = channel();
        let watch = |(api, kind, of): &(&str, &str, Steps)| {
            let path = format!("/{api}/namespaces/{}/{kind}?watch=true", cluster.namespace);
            let mut command = Command::new("kubectl");
            command.args(["get", "--raw", &path]).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().expect("kubectl starts");
            let said = BufReader::new(child.stdout.take().expect("its output is piped"));
            let (tell, of) = (tell.clone(), *of);
            std::thread::spawn(move || read(said, of, &tell));
            child
        };
        let watches = WATCHED.iter().map(watch).collect();
        let workers = machines().into_iter().filter(|name| !name.ends_with("control-plane")).collect();
        Self { watches, steps, seen: BTreeSet::new(), workers }
    }

    /// Asks for something, and kills all operators at every step towards it, until it is done. How often, and how long it took.
    pub fn at_each_step_of(&mut self, what: &str, ask: impl FnOnce(), is_done: impl Fn() -> bool) {
        // Those of the step before may still be away.
        machine_of_the_acting_operator();
        while let Ok(step) = self.steps.recv_timeout(SETTLED) {
            self.seen.insert(step);
        }
        let (begun, mut killed) = (Instant::now(), Vec::new());
        ask();
        loop {
            assert!(begun.elapsed() < 4 * PATIENCE, "{what} does not come to its end; operators died at {killed:#?}");
            match self.steps.recv_timeout(Duration::from_millis(200)) {
                Ok(step) if self.seen.contains(&step) => {}
                Ok(step) => {
                    if killed.len() < KILLS_MAX && self.kill() {
                        killed.push(step.clone());
                    }
                    self.seen.insert(step);
                }
                Err(_) if is_done() => break,
                Err(_) => {}
            }
        }
        println!("{what}: done after {:?}; operators died at {} steps: {killed:#?}", begun.elapsed(), killed.len());
        assert!(!killed.is_empty(), "{what}: no step was seen");
    }

    /// Kills every operator that runs; false if none does.
    fn kill(&self) -> bool {
        let kill = |worker: &String| run("docker", &["exec", worker, "pkill", "-KILL", "-x", "zue-operator"]).is_ok();
        std::thread::scope(|scope| {
            let all: Vec<_> = self.workers.iter().map(|worker| scope.spawn(move || kill(worker))).collect();
            all.into_iter().map(|one| one.join().expect("it is tried")).filter(|died| *died).count() > 0
        })
    }
}

impl Drop for Deaths {
    fn drop(&mut self) {
        for watch in &mut self.watches {
            drop(watch.kill());
            drop(watch.wait());
        }
    }
}

/// Tells of the steps in what a watch says: a line an event.
fn read(said: impl BufRead, of: Steps, tell: &Sender<String>) {
    for line in said.lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).expect("the API server writes JSON");
        let is_gone = event["type"] == "DELETED";
        let gone = is_gone.then(|| format!("gone: {} {}", event["object"]["kind"], event["object"]["metadata"]["uid"]));
        for step in of(&event["object"]).into_iter().chain(gone) {
            if tell.send(step).is_err() {
                return;
            }
        }
    }
}
