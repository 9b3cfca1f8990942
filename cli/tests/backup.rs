//! `zue backup` and `zue restore` on real directories: what they say, their exit codes, and that what is restored is read as any log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use zue_core::{ClusterId, Epoch, EpochStart, Offset, ReplicaId};
use zue_log::{Batch, BatchBuilder, Limits, Log, LogConfig, OsDisk};

fn zue(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zue")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(args: &[&str]) -> Value {
    let (code, out, err) = zue(&[&["-o", "json"], args].concat());
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    serde_json::from_str(&out).unwrap()
}

fn open(dir: &Path) -> Log<OsDisk> {
    let config = LogConfig { segment_bytes_max: 64 << 10, ..LogConfig::default() };
    Log::open(OsDisk::new(dir).unwrap(), config, ReplicaId(7)).unwrap().0
}

/// A data directory of 300 records, a second apart, all committed.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let voters = vec![ReplicaId(7)];
    let start =
        EpochStart { epoch: Epoch(3), start: Offset(0), leader: ReplicaId(7), voters, quorum: 1, old_voters: None };
    log.set_promise(start.epoch, Some(start.leader), Some(ClusterId(0xc1))).unwrap();
    log.append(&Batch::epoch_start(Epoch(0), start).unwrap()).unwrap();
    for n in 0..300 {
        let mut builder = BatchBuilder::new(log.tail(), 1_700_000_000_000 + n * 1_000, Limits::default());
        builder.push(None, format!("value {n} {}", "x".repeat(900)).as_bytes(), [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.note_commit(Offset(300));
    log.close().unwrap();
    dir
}

#[test]
fn a_log_goes_to_a_store_and_comes_back_as_far_as_it_is_asked_for() {
    let (data, place) = (data(), tempfile::tempdir().unwrap());
    let (dir, url) = (data.path().to_str().unwrap(), format!("file://{}/store", place.path().display()));
    let made = json(&["backup", "create", "--data", dir, "--to", &url]);
    assert_eq!((made["end"].as_u64(), made["uploaded"].as_u64()), (Some(300), made["bytes"].as_u64()));
    let again = json(&["backup", "create", "--data", dir, "--to", &url]);
    assert_eq!(again["uploaded"].as_u64(), Some(0), "{again}");
    let id = made["id"].as_str().unwrap();

    let (code, listed, _) = zue(&["backup", "ls", "--from", &url]);
    assert!(code == 0 && listed.lines().count() == 3 && listed.contains(id) && listed.contains("0..300"), "{listed}");
    assert_eq!(json(&["backup", "verify", "--from", &url])["whole"], true);

    for (until, end, last) in [("120", 120, "value 119"), ("2023-11-14T22:13:29.999Z", 10, "value 9 ")] {
        let target = place.path().join(format!("until-{end}"));
        let target = target.to_str().unwrap();
        let restored = json(&["restore", target, "--from", &url, "--until", until]);
        assert_eq!(restored["end"].as_u64(), Some(end), "{restored}");
        let (code, out, err) = zue(&["log", "verify", target]);
        assert!(code == 0 && out.contains(&format!("sound: records 0 to {end}, epoch 3")), "{out}{err}");
        let (code, out, _) = zue(&["log", "dump", target]);
        assert!(code == 0 && out.contains("cluster none") && out.lines().last().unwrap().contains(last), "{out}");
        let (code, _, err) = zue(&["restore", target, "--from", &url]);
        assert!(code == 1 && err.contains("is not empty"), "{err}");
    }

    json(&["backup", "rm", id, "--from", &url]);
    let (_, listed, _) = zue(&["backup", "ls", "--from", &url]);
    assert!(!listed.contains(&format!("\n{id}")) && listed.lines().count() == 2, "{listed}");
    assert_eq!(json(&["backup", "verify", "--from", &url])["whole"], true);
}

#[test]
fn damage_in_the_store_has_its_exit_code_and_names_the_object() {
    let (data, place) = (data(), tempfile::tempdir().unwrap());
    let (dir, url) = (data.path().to_str().unwrap(), format!("file://{}", place.path().display()));
    json(&["backup", "create", "--data", dir, "--to", &url]);
    let folder = place.path().join(format!("{}/log/{}", ClusterId(0xc1), ReplicaId(7)));
    let object = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    let (code, out, _) = zue(&["backup", "verify", "--from", &url]);
    assert!(code == 1 && out.contains(name) && out.contains("damaged"), "{out}");
    let target = place.path().join("target");
    let (code, _, err) = zue(&["restore", target.to_str().unwrap(), "--from", &url]);
    assert!(code == 1 && err.contains(name), "{err}");
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let (data, place) = (data(), tempfile::tempdir().unwrap());
    let (dir, url) = (data.path().to_str().unwrap(), format!("file://{}/s", place.path().display()));
    let target = place.path().join("t");
    let target = target.to_str().unwrap();
    for (args, code, said) in [
        (vec!["backup", "create", "--data", dir, "--to", "ftp://x"], 2, "s3://BUCKET/PREFIX or file:///DIRECTORY"),
        (vec!["backup", "create", "--data", target, "--to", &url], 2, target),
        (vec!["restore", target, "--from", &url], 2, "there is no backup in"),
        (vec!["restore", target, "--from", &url, "--until", "yesterday"], 2, "or an offset such as"),
    ] {
        let (got, _, err) = zue(&args);
        assert!(got == code && err.contains(said), "{args:?}: {got} {err}");
    }
    let held = open(data.path());
    let (code, _, err) = zue(&["backup", "create", "--data", dir, "--to", &url]);
    assert!(code == 2 && err.contains("stop the node"), "{err}");
    held.close().unwrap();
    json(&["backup", "create", "--data", dir, "--to", &url]);
    let (code, _, err) = zue(&["restore", target, "--from", &url, "--until", "301"]);
    assert!(
        code == 1 && err.contains("no backup can give the log until offset 301: the newest ends at offset 300"),
        "{err}"
    );
    let (code, _, err) = zue(&["restore", target, "--from", &url, "--backup", "2020"]);
    assert!(code == 1 && err.contains("there is no backup 2020") && err.contains("zue backup ls"), "{err}");
}
