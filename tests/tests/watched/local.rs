//! A Prometheus on this machine that looks twice a second.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use zue_tests::programs::{Process, prometheus};
use zue_tests::replicas::eventually;
use zue_tests::three::{Cluster, SOON};
use zue_tests::watch::{Watch, Windows, hurried};

/// The interval at which everybody is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// A Prometheus that runs.
pub(crate) struct Prometheus {
    pub(crate) watch: Watch,
    pub(crate) folder: TempDir,
    _process: Process,
}

impl Prometheus {
    /// Starts one that watches these nodes, and the operator if there is one.
    pub(crate) fn start(cluster: &Cluster, port: u16, operator: Option<SocketAddr>, windows: Windows) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = |name: &str| folder.path().join(name).to_str().expect("a path of text").to_owned();
        let rules = hurried(windows);
        // Who has no operator leaves its group out.
        let of_nodes = rules.split("  - name: zue-operator").next().expect("a text");
        let rules = if operator.is_some() { &rules } else { of_nodes };
        std::fs::write(file("alerts.yaml"), rules).expect("they can be written");
        let node = |n: usize| {
            let labels = json!({"namespace": "shop", "cluster": "zue", "pod": format!("zue-{n}")});
            json!({"targets": [cluster.metrics(n)], "labels": labels})
        };
        let of_operator = |at: SocketAddr| json!({"targets": [at.to_string()], "labels": {"namespace": "zue-system", "pod": "operator"}});
        let operators: Vec<Value> = operator.into_iter().map(of_operator).collect();
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "250ms"},
            "rule_files": [file("alerts.yaml")],
            "scrape_configs": [
                {"job_name": "nodes", "static_configs": (0..3).map(node).collect::<Vec<_>>()},
                {"job_name": "operator", "honor_labels": true, "static_configs": operators},
            ],
        });
        std::fs::write(file("prometheus.yml"), config.to_string()).expect("it can be written");
        let address = format!("127.0.0.1:{port}");
        let (config, data) = (format!("--config.file={}", file("prometheus.yml")), file("data"));
        let (data, listen) = (format!("--storage.tsdb.path={data}"), format!("--web.listen-address={address}"));
        let program = prometheus("prometheus");
        let log = folder.path().join("log");
        let process = Process::start(program.to_str().expect("a path of text"), &[&config, &data, &listen], &log);
        let watch = Watch::new(SOON, Box::new(move |path| get(&address, path)));
        Self { watch, folder, _process: process }
    }
}

/// The page at a path of a server.
fn get(address: &str, path: &str) -> Result<String, String> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(|error| error.to_string())?;
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer.split_once("\r\n\r\n").ok_or("no answer")?.1.to_owned())
}

pub(crate) fn leader(cluster: &Cluster) -> usize {
    eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned()).0
}
