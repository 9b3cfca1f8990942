//! `kubectl zue`, as kubectl itself finds and calls it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use zue_tests::programs::program;

use crate::changes::follower;
use crate::kubernetes::{NAME, Zue};

#[test]
fn kubectl_finds_the_plugin_and_it_appends_reads_switches_over_and_reports() {
    let cluster = Zue::create("e2e-plugin", 31140);
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(program("zue"), folder.path().join("kubectl-zue")).expect("a link");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a PATH"));
    let namespace = format!("--namespace={}", cluster.namespace);
    let call = |args: &[&str], input: &str| {
        let mut command = Command::new("kubectl");
        command.args(["zue", &namespace]).args(args).env("PATH", &path).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        child.stdin.take().expect("its input is piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let [printed, said] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), printed, said)
    };
    let done = |args: &[&str], input: &str| {
        let (code, printed, said) = call(args, input);
        assert_eq!(code, Some(0), "{args:?}: {printed}{said}");
        printed
    };

    assert_eq!(done(&["append", NAME, "hello"], ""), "0\n");
    done(&["append", NAME], "two\nthree\n");
    assert_eq!(done(&["read", NAME, "--from", "0", "--raw"], ""), "hello\ntwo\nthree\n");

    let target = follower(&cluster);
    assert_eq!(done(&["switchover", NAME, "--to", &target], ""), format!("{target} leads\n"));
    let printed = done(&["status", NAME], "");
    assert!(printed.contains(&format!("{target} leads epoch")), "{printed}");

    let said = done(&["report", NAME], "");
    let tar = folder.path().join(format!("zue-report-{NAME}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzOf").arg(&tar).output().expect("tar runs");
    let text = String::from_utf8_lossy(&unpacked.stdout);
    for wanted in ["kind: ZueCluster", "kind: StatefulSet", "zue_commit_offset", "LeaderElected"] {
        assert!(text.contains(wanted), "{wanted} is in the report; {said}");
    }
    for private in ["kind: Secret", "PRIVATE KEY"] {
        assert!(!text.contains(private), "{private} is in the report");
    }
    let (code, _, wrong) = call(&["report", NAME], "");
    assert!(code == Some(1) && wrong.contains("exists"), "a report is not overwritten: {wrong}");

    let (code, _, wrong) = call(&["status", "nobody"], "");
    assert!(code == Some(1) && wrong.contains("\"nobody\" not found"), "{wrong}");
}
