//! A short run that must pass, and one that must not.

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// One run at a time: each has its clusters, and what is slow is unanswered.
static TURN: Mutex<()> = Mutex::new(());

fn chaos(args: &[&str]) -> (Output, String) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mut command = Command::new(env!("CARGO_BIN_EXE_zue-chaos"));
    let output = command.arg("--dir").arg(folder.path()).arg("run").args(args).output().expect("zue-chaos runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_is_killed_stopped_cut_off_or_full() {
    for (seed, durability) in [("5", "Os"), ("6", "Sync")] {
        let (output, said) = chaos(&["--seed", seed, "--duration", "25", "--leader-kills", "1"]);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("3 replicas the same") && said.contains(&format!("durability {durability}")), "{said}");
    }
}

#[test]
fn disks_that_are_put_back_to_an_older_state_lose_records_and_the_run_tells() {
    let (output, said) = chaos(&["--seed", "6", "--duration", "1", "--leader-kills", "0", "--break", "roll-back"]);
    assert!(!output.status.success(), "{said}");
    assert!(["is lost", ": lost", " was Seen"].iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn a_read_that_misses_what_was_committed_before_is_told() {
    let (output, said) = chaos(&["--seed", "7", "--duration", "8", "--leader-kills", "0", "--break", "stale-reads"]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(": stale"), "{said}");
}
