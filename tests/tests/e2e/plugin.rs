//! `kubectl zue`, as kubectl itself finds and calls it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use zue_tests::programs::program;

use crate::changes::follower;
use crate::kubernetes::{NAME, Zue};

/// kubectl with the plugin in its path, for a cluster.
struct Plugin {
    folder: TempDir,
    namespace: String,
}

impl Plugin {
    fn of(cluster: &Zue) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(program("zue"), folder.path().join("kubectl-zue")).expect("a link");
        Self { folder, namespace: format!("--namespace={}", cluster.namespace) }
    }

    /// Its exit code, what it printed, and what it said on standard error.
    fn call(&self, args: &[&str], input: &str) -> (Option<i32>, String, String) {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").expect("a PATH"));
        let mut command = Command::new("kubectl");
        command.args(["zue", &self.namespace]).args(args).env("PATH", path).current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        // It may end without reading all.
        drop(child.stdin.take().expect("its input is piped").write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("it ends");
        let [printed, said] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), printed, said)
    }

    /// Runs it, and gives what it printed; it must succeed.
    fn done(&self, args: &[&str], input: &str) -> String {
        let (code, printed, said) = self.call(args, input);
        assert_eq!(code, Some(0), "{args:?}: {printed}{said}");
        printed
    }
}

#[test]
fn kubectl_finds_the_plugin_and_it_appends_reads_switches_over_verifies_and_reports() {
    let cluster = Zue::create("e2e-plugin", 31140);
    let plugin = Plugin::of(&cluster);
    let call = |args: &[&str], input: &str| plugin.call(args, input);
    let done = |args: &[&str], input: &str| plugin.done(args, input);

    assert_eq!(done(&["append", NAME, "hello"], ""), "0\n");
    done(&["append", NAME], "two\nthree\n");
    assert_eq!(done(&["read", NAME, "--from", "0", "--raw"], ""), "hello\ntwo\nthree\n");

    let target = follower(&cluster);
    assert_eq!(done(&["switchover", NAME, "--to", &target], ""), format!("{target} leads\n"));
    let printed = done(&["status", NAME], "");
    assert!(printed.contains(&format!("{target} leads epoch")), "{printed}");

    assert!(done(&["verify", NAME], "").ends_with("all 3 replicas hold the same\n"));

    let said = done(&["report", NAME], "");
    let tar = plugin.folder.path().join(format!("zue-report-{NAME}.tar.gz"));
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

#[cfg(feature = "e2e-full")]
#[test]
fn the_plugin_pauses_resumes_restarts_and_replaces() {
    let cluster = Zue::create("e2e-verbs", 31250);
    crate::changes::expect_members(&cluster, 3);
    let plugin = Plugin::of(&cluster);
    assert!(plugin.done(&["pause", NAME], "").contains("is paused"));
    let (code, _, said) = plugin.call(&["restart", NAME], "");
    assert!(code == Some(1) && said.contains("is paused"), "{code:?}: {said}");
    plugin.done(&["resume", NAME], "");
    let printed = plugin.done(&["restart", NAME], "");
    for pod in crate::kubernetes::pods() {
        assert!(printed.contains(&format!("{pod} is back\n")), "{printed}");
    }
    crate::changes::expect_members(&cluster, 3);
    let lost = follower(&cluster);
    let before = cluster.uids();
    let (code, printed, said) = plugin.call(&["replace", NAME, &lost], "");
    assert!(code == Some(2) && printed.contains("is given up") && said.contains("--yes"), "{code:?}: {printed}{said}");
    assert_eq!(cluster.uids(), before, "nothing was done");
    assert!(plugin.done(&["replace", NAME, &lost, "--yes"], "").contains(&format!("{lost} is a new pod")));
    crate::changes::expect_members(&cluster, 3);
    assert!(plugin.done(&["verify", NAME], "").ends_with("all 3 replicas hold the same\n"));
}
