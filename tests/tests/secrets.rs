//! A cluster with TLS at its most talkative: neither a key nor a token is in anything that it says.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use zue_tests::programs::{Process, free_ports, program};
use zue_tests::replicas::eventually;

const SOON: Duration = Duration::from_secs(30);

fn zue(args: &[&str]) -> Output {
    let mut command = Command::new(program("zue"));
    command.args(args).env("RUST_LOG", "trace").stdin(Stdio::null());
    command.output().expect("zue runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("it is there")
}

/// The longest line of a key in PEM: no part of it is anywhere by chance.
fn body(pem: &str) -> String {
    pem.lines().max_by_key(|line| line.len()).expect("it has lines").to_owned()
}

/// The page on the metrics port.
fn metrics(port: u16) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it is served");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn neither_a_key_nor_a_token_is_in_anything_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (data, log) = (folder.path().join("data"), folder.path().join("dev.log"));
    let port = free_ports(1, 10, 3);
    let args = ["dev", "--data", text(&data), "--replicas", "1", "--tls", "--port", &port.to_string()];
    let through = ["env", "RUST_LOG=trace"];
    let cluster = Process::start_through(&through, "zue", &args, &log);
    cluster.expect_line("ready", SOON);
    let (tls, servers) = (data.join("tls"), format!("127.0.0.1:{port}"));
    let file = |name: &str| tls.join(name);
    let (token, wrong) = (folder.path().join("token"), folder.path().join("wrong"));
    let hash = String::from_utf8(zue(&["tls", "token", "--out", text(&token)]).stdout).expect("it is text");
    zue(&["tls", "token", "--out", text(&wrong)]);
    let list = format!(
        "clients:\n- {{name: dev, rights: [read]}}\n- {{name: till, rights: [append], tokenSha256: [{}]}}\n",
        hash.trim()
    );
    std::fs::write(file("access.yaml"), list).expect("it can be written");
    let ca = text(&file("client/ca.crt")).to_owned();
    let with_token = |token: &Path, args: &[&str]| {
        let flags = ["--servers", &servers, "--ca", &ca, "--token-file", text(token), "--deadline", "2s"];
        zue(&[&flags, args].concat())
    };
    let appended = || with_token(&token, &["-o", "json", "append", "x"]).status.success().then_some(());
    eventually(SOON, appended, || "the token counts".to_owned());
    let (cert, key) = (file("client/tls.crt"), file("client/tls.key"));
    let with_key = |key: &Path, args: &[&str]| {
        let flags = ["--key", text(key), "--servers", &servers, "--ca", &ca, "--cert", text(&cert), "--deadline", "2s"];
        zue(&[&flags, args].concat())
    };
    let mut said = vec![
        with_token(&token, &["-o", "json", "append", "x"]),
        with_token(&token, &["-o", "json", "status"]),
        with_token(&token, &["read"]),
        with_token(&wrong, &["append", "x"]),
        // Without TLS it is not even sent.
        zue(&["--servers", &servers, "--token-file", text(&token), "append", "x"]),
        with_key(&key, &["-o", "json", "status"]),
        with_key(&key, &["append", "x"]),
        with_key(&file("node/tls.key"), &["append", "x"]),
        with_key(&token, &["append", "x"]),
        with_token(&key, &["append", "x"]),
    ];
    let failed: Vec<bool> = said.iter().map(|output| !output.status.success()).collect();
    assert_eq!(failed, [false, false, true, true, true, false, true, true, true, true], "{said:?}");
    let denied = String::from_utf8_lossy(&said[2].stderr).into_owned();
    assert!(denied.contains("client/till, whose rights are append, may not call /zue.v1.Log/Read"), "{denied}");
    said.push(zue(&["--servers", &servers, "status"]));
    let mut texts: Vec<String> = said
        .iter()
        .flat_map(|output| [&output.stdout, &output.stderr])
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    texts.extend([read(&log), metrics(port + 2), read(&file("access.yaml"))]);
    assert!(read(&log).contains("TRACE"), "it says what it can");
    let keys = ["node/tls.key", "controller/tls.key", "client/tls.key", "peer-ca.key", "client-ca.key"];
    let mut secrets: Vec<String> = keys.iter().map(|name| body(&read(&file(name)))).collect();
    secrets.extend([read(&token), read(&wrong)].map(|token| token.trim().to_owned()));
    for (n, secret) in secrets.iter().enumerate() {
        assert!(secret.len() >= 40, "secret {n} is long");
        let found = texts.iter().find(|text| text.contains(secret.as_str()));
        assert!(found.is_none(), "secret {n} is in {}", found.map(String::as_str).unwrap_or_default());
    }
}
