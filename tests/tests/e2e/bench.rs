//! `make bench-kind`: what each fault and each change of a cluster costs who appends, in a table beside that of the run before. Every
//! acknowledged record is looked for in the end.
//!
//! `ROWS=name,name` runs these alone; `TIMES=n` does what is repeated so often.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use zue_tests::load::Load;
use zue_tests::replicas::eventually;

use crate::alone::{Outage, machines, signal};
use crate::changes::{acting_operator, expect_members, follower, switch_over};
use crate::cut_off::{CutOff, machine_of_the_acting_operator};
use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, operator, renew_namespace, root, run};

/// The time that one time of a row took.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// The longest time without an acknowledgement.
    stall: Option<Duration>,
    /// Until it was done, where that is something else.
    done: Option<Duration>,
}

/// One time of a row.
type Once = fn(&Bench) -> Took;

/// The cluster and its load.
struct Bench {
    cluster: Zue,
    load: Load,
}

/// The number of times that what is cheap is repeated, and the rows of the table: a name, a number of times, and what is done.
const TIMES: usize = 5;
const ROWS: &[(&str, usize, Once)] = &[
    ("leader's pod deleted by force", TIMES, deleted_by_force),
    ("leader killed", TIMES, killed),
    ("leader's machine frozen", 2, frozen),
    ("leader's machine cut off, with the acting operator", 2, cut_off),
    ("switchover", TIMES, switched),
    ("roll by config", 1, rolled),
    ("restart", 1, restarted),
    ("operator upgraded", 1, upgraded),
    ("API server frozen for 40 s", 1, api_frozen),
    ("API server frozen, leader killed", 1, api_frozen_killed),
    ("operators at 0, leader's pod deleted", 1, without_operators),
    ("each worker drained", 3, drained),
    ("3 to 5 replicas", 1, |bench| scaled(bench, 5)),
    ("5 to 3 replicas", 1, |bench| scaled(bench, 3)),
    ("3 to 1 replica", 1, |bench| scaled(bench, 1)),
    ("1 to 3 replicas", 1, |bench| scaled(bench, 3)),
];
/// The number of clusters that stand beside each other in the last row.
const MANY: usize = 30;

impl Bench {
    /// Does something that takes the leader away, and gives how long appends stood still. Then waits until all is well.
    fn stall(&self, act: impl FnOnce()) -> Took {
        self.rest();
        self.load.take_stall();
        act();
        self.load.expect_acks(300, PATIENCE);
        let stall = Some(self.load.take_stall());
        self.rest();
        Took { stall, done: None }
    }

    /// Does something, and waits until it is done; gives how long that took, and the longest stall meanwhile.
    fn change(&self, act: impl FnOnce(), is_done: impl Fn() -> bool) -> Took {
        self.rest();
        self.load.take_stall();
        let begun = Instant::now();
        act();
        eventually(3 * PATIENCE, || is_done().then_some(()), || format!("it is done: {:#}", self.cluster.status()));
        let done = begun.elapsed();
        self.load.expect_acks(100, PATIENCE);
        Took { stall: Some(self.load.take_stall()), done: Some(done) }
    }

    fn rest(&self) {
        let replicas = get(&["-n", &self.cluster.namespace, "zue", NAME])["spec"]["replicas"].as_u64();
        expect_members(&self.cluster, replicas.and_then(|count| usize::try_from(count).ok()).unwrap_or(3));
    }

    /// The machine on which the leader runs.
    fn machine(&self) -> String {
        self.cluster.node_of(&self.cluster.leader())
    }

    fn is_whole(&self) -> bool {
        let status = self.cluster.status();
        let count = |field: &str| status[field].as_u64();
        count("inSyncReplicas").is_some() && count("inSyncReplicas") == count("replicas")
    }
}

fn deleted_by_force(bench: &Bench) -> Took {
    let leader = bench.cluster.leader();
    bench.stall(|| {
        kubectl(&["delete", "pod", "-n", &bench.cluster.namespace, &leader, "--grace-period=0", "--force"]);
    })
}

fn killed(bench: &Bench) -> Took {
    let machine = bench.machine();
    bench.stall(|| signal(&machine, "-KILL", "zue-node"))
}

/// With everything else on it: another replica, an operator, a server of names.
fn frozen(bench: &Bench) -> Took {
    let machine = bench.machine();
    let thaw = Outage(|| drop(run("docker", &["unpause", &machine])));
    let took = {
        bench.rest();
        bench.load.take_stall();
        run("docker", &["pause", &machine]).expect("the machine is frozen");
        bench.load.expect_acks(300, PATIENCE);
        Took { stall: Some(bench.load.take_stall()), done: None }
    };
    drop(thaw);
    bench.rest();
    took
}

fn cut_off(bench: &Bench) -> Took {
    bench.rest();
    let machine = machine_of_the_acting_operator();
    let pods = bench.cluster.uids();
    let pod = pods.into_keys().find(|pod| bench.cluster.node_of(pod) == machine).expect("each machine has a replica");
    if bench.cluster.leader() != pod {
        switch_over(&bench.cluster, &pod);
    }
    bench.load.expect_acks(100, PATIENCE);
    bench.load.take_stall();
    let cut = CutOff::begin(&machine);
    bench.load.expect_acks(300, PATIENCE);
    let stall = Some(bench.load.take_stall());
    drop(cut);
    bench.rest();
    Took { stall, done: None }
}

fn switched(bench: &Bench) -> Took {
    let target = follower(&bench.cluster);
    bench.change(|| switch_over(&bench.cluster, &target), || true)
}

/// Every pod is another than before, and the cluster whole.
fn all_replaced(bench: &Bench, act: impl FnOnce()) -> Took {
    let before = bench.cluster.uids();
    bench.change(act, || bench.cluster.uids().iter().all(|(pod, uid)| before.get(pod) != Some(uid)) && bench.is_whole())
}

fn rolled(bench: &Bench) -> Took {
    all_replaced(bench, || bench.cluster.patch(&json!({ "config": { "limits": { "connectionsMax": 900 } } })))
}

fn restarted(bench: &Bench) -> Took {
    all_replaced(bench, || bench.cluster.annotate("zue.io/restart=bench"))
}

fn upgraded(bench: &Bench) -> Took {
    let rollout = ["-n", "zue-system", "deployment/zue-operator"];
    let before = bench.cluster.uids();
    let took = bench.change(
        || {
            kubectl(&[&["rollout", "restart"], &rollout[..]].concat());
            kubectl(&[&["rollout", "status", "--timeout=180s"], &rollout[..]].concat());
        },
        || acting_operator().is_some(),
    );
    bench.load.expect_acks(1000, PATIENCE);
    assert_eq!(bench.cluster.uids(), before, "no node is restarted with the operator");
    Took { stall: Some(bench.load.take_stall().max(took.stall.unwrap_or_default())), ..took }
}

fn api_server() -> String {
    machines().into_iter().find(|name| name.ends_with("control-plane")).expect("a control plane")
}

fn api_frozen(bench: &Bench) -> Took {
    let control = api_server();
    bench.stall(|| {
        let _thaw = Outage(|| signal(&control, "-CONT", "kube-apiserver"));
        signal(&control, "-STOP", "kube-apiserver");
        std::thread::sleep(Duration::from_secs(40));
    })
}

fn api_frozen_killed(bench: &Bench) -> Took {
    let (control, machine) = (api_server(), bench.machine());
    bench.stall(|| {
        let _thaw = Outage(|| signal(&control, "-CONT", "kube-apiserver"));
        signal(&control, "-STOP", "kube-apiserver");
        std::thread::sleep(Duration::from_secs(5));
        signal(&machine, "-KILL", "zue-node");
        bench.load.expect_acks(300, PATIENCE);
    })
}

fn without_operators(bench: &Bench) -> Took {
    let scale = |replicas: &str| {
        kubectl(&["scale", "-n", "zue-system", "deployment/zue-operator", &format!("--replicas={replicas}")]);
    };
    let leader = bench.cluster.leader();
    bench.stall(|| {
        let _back = Outage(|| scale("2"));
        scale("0");
        std::thread::sleep(Duration::from_secs(10));
        kubectl(&["delete", "pod", "-n", &bench.cluster.namespace, &leader, "--grace-period=0", "--force"]);
        bench.load.expect_acks(300, PATIENCE);
    })
}

/// The worker of the leader: which is another one each time.
fn drained(bench: &Bench) -> Took {
    let machine = bench.machine();
    let _open = Outage(|| drop(run("kubectl", &["uncordon", &machine])));
    let drain = ["drain", &machine, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s"];
    let took = bench.change(|| drop(kubectl(&drain)), || true);
    drop(run("kubectl", &["uncordon", &machine]));
    bench.rest();
    took
}

fn scaled(bench: &Bench, replicas: usize) -> Took {
    let is_done = || {
        let status = bench.cluster.status();
        let size = status["replicas"].as_u64().and_then(|count| usize::try_from(count).ok());
        size == Some(replicas)
            && status["members"].as_array().is_some_and(|all| all.len() == replicas)
            && bench.is_whole()
    };
    bench.change(|| bench.cluster.patch(&json!({ "replicas": replicas })), is_done)
}

/// Until all are Ready, from the first one on.
fn many() -> Duration {
    let namespace = "bench-many";
    renew_namespace(namespace);
    let one = |n: usize| {
        json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "metadata": { "name": format!("log-{n}") },
            "spec": { "replicas": 1, "storage": { "size": "1Gi" }, "resources": { "requests": { "cpu": "1m", "memory": "16Mi" } } } })
        .to_string()
    };
    let begun = Instant::now();
    let manifests: Vec<String> = (0..MANY).map(one).collect();
    apply(namespace, &manifests.join("\n---\n")).expect("they are right");
    let timeout = format!("--timeout={}s", 5 * PATIENCE.as_secs());
    kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "zue", "--all", &timeout]);
    let took = begun.elapsed();
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
    took
}

/// A row as it is kept: how often, and the median and the worst in seconds.
#[derive(Clone, PartialEq, Debug)]
struct Row {
    name: String,
    times: usize,
    stall: Option<(f64, f64)>,
    done: Option<(f64, f64)>,
}

/// The median and the worst; none of none.
fn summed(times: impl Iterator<Item = Option<Duration>>) -> Option<(f64, f64)> {
    let mut seconds: Vec<f64> = times.flatten().map(|time| time.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    Some((*seconds.get(seconds.len().checked_sub(1)? / 2)?, *seconds.last()?))
}

impl Row {
    fn of(name: &str, took: &[Took]) -> Self {
        let (stall, done) = (summed(took.iter().map(|one| one.stall)), summed(took.iter().map(|one| one.done)));
        Self { name: name.to_owned(), times: took.len(), stall, done }
    }

    /// As CSV: the name in quotes, and nothing where nothing was measured.
    fn csv(&self) -> String {
        let pair = |pair: Option<(f64, f64)>| {
            pair.map_or_else(|| ",".to_owned(), |(median, worst)| format!("{median:.3},{worst:.3}"))
        };
        format!("\"{}\",{},{},{}\n", self.name, self.times, pair(self.stall), pair(self.done))
    }

    fn read(line: &str) -> Option<Self> {
        let (name, rest) = line.strip_prefix('"')?.split_once("\",")?;
        let fields: Vec<&str> = rest.split(',').collect();
        let [times, a, b, c, d] = fields[..] else { return None };
        let pair = |median: &str, worst: &str| Some((median.parse().ok()?, worst.parse().ok()?));
        Some(Self { name: name.to_owned(), times: times.parse().ok()?, stall: pair(a, b), done: pair(c, d) })
    }
}

const HEAD: &str = "row,times,stall_median_s,stall_worst_s,done_median_s,done_worst_s\n";

/// The table for people, beside the run before.
fn table(rows: &[Row], before: &BTreeMap<String, Row>) -> String {
    let mut text = "| | times | stall: median, worst (s) | before | done: median, worst (s) | before |\n|---|---|---|---|---|---|\n".to_owned();
    let pair =
        |pair: Option<(f64, f64)>| pair.map_or_else(String::new, |(median, worst)| format!("{median:.2}, {worst:.2}"));
    for row in rows {
        let Row { name, times, stall, done } = row;
        let old = before.get(name);
        let (old_stall, old_done) = (old.and_then(|old| old.stall), old.and_then(|old| old.done));
        // Half as long again, and more than noise.
        let is_worse = matches!((stall, old_stall), (Some((_, now)), Some((_, old))) if *now > old * 1.5 + 0.2);
        let name = if is_worse { format!("**{name}: worse**") } else { name.clone() };
        let _ = writeln!(
            text,
            "| {name} | {times} | {} | {} | {} | {} |",
            pair(*stall),
            pair(old_stall),
            pair(*done),
            pair(old_done)
        );
    }
    text
}

/// Writes down all rows so far, so that a row that fails leaves those before it; what was not measured again stays as it was.
fn write(folder: &Path, rows: &[Row], before: &BTreeMap<String, Row>) {
    fs::create_dir_all(folder).expect("the folder can be made");
    let stay = before.values().filter(|old| rows.iter().all(|row| row.name != old.name));
    let csv: String = rows.iter().chain(stay).map(Row::csv).collect();
    fs::write(folder.join("rows.csv"), format!("{HEAD}{csv}")).expect("rows.csv can be written");
    fs::write(folder.join("table.md"), table(rows, before)).expect("table.md can be written");
}

#[test]
fn what_faults_and_changes_cost() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(&root()).join("target"), PathBuf::from);
    let folder = target.join("bench-kind");
    let found = fs::read_to_string(folder.join("rows.csv")).unwrap_or_default();
    let before: BTreeMap<String, Row> =
        found.lines().filter_map(Row::read).map(|row| (row.name.clone(), row)).collect();
    if !before.is_empty() {
        fs::write(folder.join("rows-before.csv"), &found).expect("rows-before.csv can be written");
    }
    let named = std::env::var("ROWS").unwrap_or_default();
    let is_wanted = |name: &str| named.is_empty() || named.split(',').any(|one| name.contains(one.trim()));
    let times = std::env::var("TIMES").ok().and_then(|times| times.parse().ok());
    operator();
    let mut rows = vec![];

    let begun = Instant::now();
    let cluster = Zue::create("bench-kind", 31240);
    // Beside a new namespace and its Services.
    rows.push(Row::of("apply to Ready", &[Took { stall: None, done: Some(begun.elapsed()) }]));
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let bench = Bench { cluster, load };
    for (name, count, once) in ROWS.iter().filter(|(name, ..)| is_wanted(name)) {
        let count = times.filter(|_| *count == TIMES).unwrap_or(*count);
        let took: Vec<Took> = (0..count).map(|_| once(&bench)).collect();
        let row = Row::of(name, &took);
        print!("{}", row.csv());
        rows.push(row);
        write(&folder, &rows, &before);
    }
    bench.cluster.patch(&json!({ "replicas": 3 }));
    bench.rest();
    let acks = bench.cluster.check(bench.load);
    println!("{} records were acknowledged, and all are there", acks.len());
    if is_wanted("ZueClusters") {
        let done = Some(many());
        rows.push(Row::of(&format!("{MANY} ZueClusters of one replica Ready"), &[Took { stall: None, done }]));
    }
    write(&folder, &rows, &before);
    println!("{}\nin {}", table(&rows, &before), folder.display());
}

#[test]
fn a_row_is_read_as_it_was_written_and_one_that_got_worse_is_marked() {
    let took = |stall: u64| Took { stall: Some(Duration::from_millis(stall)), done: None };
    let row = Row::of("killed, twice", &[took(900), took(100), took(300)]);
    assert_eq!(row.csv(), "\"killed, twice\",3,0.300,0.900,,\n");
    assert_eq!(Row::read(row.csv().trim_end()), Some(row.clone()));
    assert_eq!(Row::read(HEAD.trim_end()), None);
    let before = BTreeMap::from([("killed, twice".to_owned(), Row { stall: Some((0.2, 0.4)), ..row.clone() })]);
    assert!(
        table(std::slice::from_ref(&row), &before).contains("**killed, twice: worse** | 3 | 0.30, 0.90 | 0.20, 0.40")
    );
    assert!(!table(&[row], &BTreeMap::new()).contains("worse"));
}
