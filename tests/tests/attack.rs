//! Three real nodes with a stranger at all the ports of each of them: appends go on, health is told, nobody loses the lead, and no
//! node takes more memory than it says it may.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use zue_tests::attack::{Attack, Scale, Target, peak_memory};
use zue_tests::load::Load;
use zue_tests::programs::{Process, free_ports, program, zue};
use zue_tests::replicas::eventually;

const SOON: Duration = Duration::from_secs(30);
const LASTING: Duration = Duration::from_secs(12);
const LIMITS: &str = "limits: {connectionsMax: 64, readersMax: 64, receiveDeadline: 2s, stallDeadline: 3s}\n";

fn port(base: u16, node: u16, kind: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], base + 10 * node + kind))
}

fn node_args(folder: &Path, base: u16, node: u16) -> Vec<String> {
    let text = |path: std::path::PathBuf| path.to_str().expect("a path of text").to_owned();
    let name = format!("zue-{node}");
    let mut args = vec!["--config".to_owned(), text(folder.join("node.yaml"))];
    args.extend(["--data-dir".to_owned(), text(folder.join(&name)), "--name".to_owned(), name]);
    for (kind, flag) in (0..).zip(["--listen-client", "--listen-peer", "--listen-metrics"]) {
        args.extend([flag.to_owned(), port(base, node, kind).to_string()]);
    }
    args
}

/// The memory that a node says it takes at most.
fn bound(args: &[String]) -> u64 {
    let output = Command::new(program("zue-node")).args(args).arg("--print-limits").output().expect("zue-node runs");
    let text = String::from_utf8(output.stdout).expect("it is text");
    let total = text.lines().find_map(|line| line.split_once("all of it: ")).expect("it says how much").1;
    total.trim_end_matches(" bytes").parse().expect("it is a number")
}

fn is_alive(metrics: SocketAddr) -> bool {
    let asked = || {
        let mut stream = TcpStream::connect(metrics)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn epoch(servers: &str) -> Option<u64> {
    let output = zue(servers, &["-o", "json", "status"], b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let members = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    members.into_iter().find(|member| member["role"] == "leader")?["epoch"].as_u64()
}

#[test]
fn a_stranger_at_all_ports_of_all_nodes_keeps_nobody_out_and_takes_no_more_memory_than_may_be() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::write(folder.path().join("node.yaml"), LIMITS).expect("the configuration can be written");
    let base = free_ports(3, 10, 3);
    let start = |node: u16| {
        let args = node_args(folder.path(), base, node);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Process::start("zue-node", &args, &folder.path().join(format!("zue-{node}.log")))
    };
    let nodes: Vec<Process> = (0..3).map(start).collect();
    let bound = bound(&node_args(folder.path(), base, 0));
    let list = |node: u16| format!("zue-{node}={}/{}", port(base, node, 1), port(base, node, 0));
    let list = (0..3).map(list).collect::<Vec<_>>().join(",");
    let state = folder.path().join("controller.json");
    let args = ["control", "--nodes", &list, "--state", state.to_str().expect("a path of text")];
    let _controller = Process::start("zue", &args, &folder.path().join("controller.log"));
    let servers = (0..3).map(|node| port(base, node, 0).to_string()).collect::<Vec<_>>().join(",");
    let begun_in = eventually(SOON, || epoch(&servers), || "somebody leads".to_owned());

    let load = Load::start(&servers, "through", Duration::from_millis(5));
    load.expect_acks(100, SOON);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let scale = Scale { connections: 100, reads: 200, calls: 20 };
    let attacks: Vec<Attack> = runtime.block_on(async {
        let target =
            |node| Target { client: port(base, node, 0), peer: port(base, node, 1), metrics: port(base, node, 2) };
        (0..3).map(|node| Attack::on(target(node), scale)).collect()
    });
    let begun = Instant::now();
    while begun.elapsed() < LASTING {
        load.expect_acks(20, SOON);
        for node in 0..3 {
            assert!(is_alive(port(base, node, 2)), "zue-{node} does not say that it lives");
        }
    }
    runtime.block_on(async {
        for attack in attacks {
            attack.stop().await;
        }
    });
    for (node, process) in (0..).zip(&nodes) {
        let peak = peak_memory(process.id());
        assert!(peak < bound, "zue-{node} took {} MiB, and may {} MiB", peak >> 20, bound >> 20);
    }
    // More than a request may have: told at once, instead of being tried until the deadline.
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 20 << 20]).expect("a file of 20 MiB");
    let begun = Instant::now();
    let refused = zue(&servers, &["append", "--file", large.to_str().expect("a path of text")], b"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("limits.appendBytesMax") && said.contains("were not appended"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(15), "it was tried again and again: {:?}", begun.elapsed());
    let acks = load.finish();
    assert!(acks.len() > 200, "{}", acks.len());
    assert_eq!(epoch(&servers), Some(begun_in), "another leads");
}
