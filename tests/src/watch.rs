//! The view of a Prometheus: the rules as a test can wait for them, the dashboard's panels, and what fired and cleared.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::programs::zue;
use crate::replicas::eventually;

/// Between two appends.
const PAUSE: Duration = Duration::from_millis(200);
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/zue-operator/files");

/// The time for which the rules look back in a test, where they look back minutes, and where they count what is rare.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// For rates, quantiles and predictions, such as `4s`.
    pub short: &'static str,
    /// For failovers and the operator's errors.
    pub long: &'static str,
}

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(FILES).join(name)).expect("it is in the chart")
}

/// The rules as they are, but that an hour is some seconds.
pub fn hurried(windows: Windows) -> String {
    let mut rules = file("alerts.yaml").replace("zue_replica_lag_seconds) > 15", "zue_replica_lag_seconds) > 2");
    rules = rules.replace("> 900 + 10 *", "> 1 + 5 *");
    for (window, instead) in [("[2m]", windows.short), ("[5m]", windows.short), ("[30m]", windows.short)]
        .into_iter()
        .chain([("[6h]", windows.short), ("[15m]", windows.long), ("[1h]", windows.long)])
    {
        rules = rules.replace(window, &format!("[{instead}]"));
    }
    let hurry = |line: &str| {
        let (before, _) = line.split_once("for: ").unwrap_or((line, ""));
        if before.trim().is_empty() && before != line { format!("{before}for: 1s") } else { line.to_owned() }
    };
    rules.lines().map(hurry).collect::<Vec<_>>().join("\n")
}

/// The names of all alerts.
pub fn alerts() -> BTreeSet<String> {
    file("alerts.yaml").lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

/// Every panel of the dashboard with its queries, for all namespaces and clusters.
///
/// # Panics
/// When the file is not a dashboard.
pub fn panels(rate_window: &str) -> BTreeMap<String, Vec<String>> {
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).expect("it is JSON");
    let text_of = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut panels = BTreeMap::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let queries = panel["targets"].as_array().expect("queries").iter().map(|target| {
            let query = text_of(&target["expr"]).replace("$__rate_interval", rate_window);
            query.replace("$namespace", ".*").replace("$cluster", ".*")
        });
        assert!(panels.insert(text_of(&panel["title"]), queries.collect()).is_none(), "two panels: {}", panel["title"]);
    }
    panels
}

/// Appends and reads all the time, and is not held up by what fails, until what this gives is called.
pub fn appending(servers: String, flags: Vec<String>) -> impl FnOnce() {
    let (stop, stopped) = channel::<()>();
    let appending = thread::spawn(move || {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--deadline", "1s"]).collect();
        while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            drop(zue(&servers, &[&flags[..], &["append", "x"]].concat(), b""));
            drop(zue(&servers, &[&flags[..], &["read", "--max", "5"]].concat(), b""));
        }
    });
    move || {
        drop(stop);
        appending.join().expect("it ends");
    }
}

/// Gets what is at a path of Prometheus.
pub type Get = Box<dyn Fn(&str) -> Result<String, String>>;

/// When an alert fired after its fault began, and when it was gone after the fault had gone.
#[derive(Clone, Copy, Debug)]
struct Fired {
    fault: &'static str,
    after: Duration,
    cleared: Option<Duration>,
}

/// A Prometheus that is asked.
pub struct Watch {
    get: Get,
    patience: Duration,
    begun: SystemTime,
    /// Alerts that fire and clear for reasons that are not the test's.
    pub aside: BTreeSet<&'static str>,
    fired: RefCell<BTreeMap<String, Fired>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("fired", &self.fired).finish_non_exhaustive()
    }
}

impl Watch {
    /// Asks by `get`, and waits as long for what must come.
    pub fn new(patience: Duration, get: Get) -> Self {
        let (aside, fired) = (BTreeSet::new(), RefCell::default());
        Self { get, patience, begun: SystemTime::now(), aside, fired }
    }

    /// Its answer to a query.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let encode =
            |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", value.bytes().map(encode).collect::<String>());
        let query: Vec<String> = parameters.iter().map(pair).collect();
        let answer = (self.get)(&format!("/api/v1/{path}?{}", query.join("&")))?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"]["result"].clone())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// The alerts that fire, but for those that are put aside.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn firing(&self) -> Result<BTreeSet<String>, String> {
        let alerts = self.ask("query", &[("query", "ALERTS{alertstate=\"firing\"}")])?;
        let name = |alert: &Value| alert["metric"]["alertname"].as_str().map(str::to_owned);
        let firing = alerts.as_array().into_iter().flatten().filter_map(name);
        Ok(firing.filter(|name| !self.aside.contains(name.as_str())).collect())
    }

    fn expect(&self, what: &str, mut is_met: impl FnMut(&BTreeSet<String>) -> bool) -> Duration {
        let begun = Instant::now();
        let firing = || self.firing().ok().filter(|firing| is_met(firing));
        let firing = eventually(self.patience, firing, || format!("{what}; {:?} fire", self.firing()));
        println!("{what} after {:?}: {firing:?}", begun.elapsed());
        begun.elapsed()
    }

    /// Waits until all of these fire, by a fault that was just made.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn expect_firing(&self, fault: &'static str, alerts: &[&str]) {
        let after = self
            .expect(&format!("{alerts:?} fire: {fault}"), |firing| alerts.iter().all(|alert| firing.contains(*alert)));
        let mut fired = self.fired.borrow_mut();
        for alert in alerts {
            fired.entry((*alert).to_owned()).or_insert(Fired { fault, after, cleared: None });
        }
    }

    /// Waits until none of these fires, since the fault has gone.
    ///
    /// # Panics
    /// When one does for too long.
    pub fn expect_cleared(&self, alerts: &[&str]) {
        let after =
            self.expect(&format!("{alerts:?} clear"), |firing| alerts.iter().all(|alert| !firing.contains(*alert)));
        let mut fired = self.fired.borrow_mut();
        for alert in alerts {
            if let Some(fired) = fired.get_mut(*alert) {
                fired.cleared.get_or_insert(after);
            }
        }
    }

    /// Waits until nothing fires.
    ///
    /// # Panics
    /// When something does for too long.
    pub fn expect_quiet(&self) {
        let after = self.expect("all is quiet", BTreeSet::is_empty);
        for fired in self.fired.borrow_mut().values_mut() {
            fired.cleared.get_or_insert(after);
        }
    }

    /// Waits until a query has a value above 0.
    ///
    /// # Panics
    /// When it has none in time.
    pub fn expect_some(&self, query: &str) {
        let more = || {
            let answer = self.ask("query", &[("query", query)]).ok()?;
            answer[0]["value"][1].as_str()?.parse::<f64>().ok().filter(|value| *value > 0.0)
        };
        println!("{query}: {}", eventually(self.patience, more, || query.to_owned()));
    }

    /// The alerts that have fired and cleared.
    pub fn seen(&self) -> BTreeSet<String> {
        self.fired.borrow().iter().filter(|(_, fired)| fired.cleared.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Runs every query of the dashboard over all the time since this began; gives the panels that have one without data.
    ///
    /// # Panics
    /// When a query is refused.
    pub fn silent_panels(&self, rate_window: &str) -> BTreeSet<String> {
        let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).expect("it is later").as_secs();
        let (from, to) = (unix(self.begun).to_string(), unix(SystemTime::now()).to_string());
        let mut silent = BTreeSet::new();
        for (title, queries) in panels(rate_window) {
            for query in queries {
                let asked = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", "1")];
                let answer =
                    self.ask("query_range", &asked).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
                let series = answer.as_array().map_or(0, Vec::len);
                println!("panel {title:?}: {series} series of {query}");
                if series == 0 {
                    silent.insert(title.clone());
                }
            }
        }
        silent
    }

    /// Prints which alerts fired, by what, and cleared.
    pub fn print_alerts(&self) {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        println!("{:26} {:>8} {:>9}  by", "alert", "fired", "cleared");
        for (name, Fired { fault, after, cleared }) in self.fired.borrow().iter() {
            let cleared = cleared.map_or_else(|| "-".to_owned(), seconds);
            println!("{name:26} {:>8} {cleared:>9}  {fault}", seconds(*after));
        }
    }
}
