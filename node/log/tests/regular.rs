//! Names in a directory that are no files, or files of another length than belongs there; and the rights of what is made.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::{ID, SMALL, fill, read_all, start_epoch};
use zue_core::Offset;
use zue_log::{Disk as _, IndexFault, Log, OpenError, OsDisk, Overlay, bad_indexes, dump, read_text, repair};

const FIRST: &str = "00000000000000000000.log";

/// A closed log of some segments in the directory.
fn make(dir: &Path) -> Vec<(u64, Vec<u8>)> {
    let (mut log, _) = Log::open(OsDisk::new(dir).unwrap(), SMALL, ID).unwrap();
    start_epoch(&mut log, 1);
    fill(&mut log, 50, 3000);
    let held = read_all(&log);
    log.close().unwrap();
    held
}

fn files(dir: &Path, extension: &str) -> Vec<String> {
    let names = OsDisk::new(dir).unwrap().list().unwrap();
    let mut names: Vec<_> =
        names.into_iter().filter(|name| Path::new(name).extension().is_some_and(|e| e == extension)).collect();
    names.sort();
    names
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_is_made_is_for_its_owner_alone() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("new").join("data");
    make(&dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&outer.path().join("new")), mode(&dir)), (0o700, 0o700));
    let names = OsDisk::new(&dir).unwrap().list().unwrap();
    assert!(names.len() > 6, "{names:?}");
    for name in names {
        assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_is_named_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let last = files(dir.path(), "log").pop().unwrap();
    let index = files(dir.path(), "index").remove(0);
    let elsewhere = dir.path().join("elsewhere");
    for name in ["meta", "lock", FIRST, &last, &index] {
        let path = dir.path().join(name);
        fs::rename(&path, &elsewhere).unwrap();
        let strangers: [(&str, &dyn Fn()); 5] = [
            ("a named pipe", &|| pipe(&path)),
            ("a directory", &|| fs::create_dir(&path).unwrap()),
            ("a symbolic link", &|| std::os::unix::fs::symlink(&elsewhere, &path).unwrap()),
            ("a symbolic link", &|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap()),
            ("a socket", &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap())),
        ];
        for (what, put) in strangers {
            put();
            let disk = || OsDisk::read_only(dir.path()).unwrap();
            let error = match repair(Overlay::new(disk())) {
                Err(error) => error,
                // An index is no part of the log; whoever looks at it names it.
                Ok((log, _)) if name == index => bad_indexes(&log, &disk()).unwrap_err().into(),
                Ok(_) => panic!("{what} for {name} goes unnoticed"),
            };
            let OpenError::Disk(error) = error else { panic!("{error}") };
            let told = format!("{error}: {}", error.source);
            assert!(told.contains(what) && told.contains(name), "{name}: {told}");
            if name == "meta" || name.ends_with(".log") {
                assert!(matches!(
                    dump(&disk(), Offset(0), |_| std::ops::ControlFlow::Continue(())),
                    Err(OpenError::Disk(_))
                ));
            }
            assert!(
                Log::open(OsDisk::new(dir.path()).unwrap(), SMALL, ID).is_err() || name == index,
                "{what} for {name}"
            );
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
        fs::rename(&elsewhere, &path).unwrap();
    }
    Log::open(OsDisk::new(dir.path()).unwrap(), SMALL, ID).unwrap();
}

/// The most memory that this process has had.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_file_takes_no_memory_for_a_length_that_it_only_claims() {
    let dir = tempfile::tempdir().unwrap();
    let held = make(dir.path());
    let (first, last) = (files(dir.path(), "index").remove(0), files(dir.path(), "index").pop().unwrap());
    for name in ["meta", &first, &last] {
        File::options().write(true).open(dir.path().join(name)).unwrap().set_len(1 << 30).unwrap();
    }
    // The snapshot of the first segment claims most of a gigabyte, and the file is as long.
    let claims = fs::read(dir.path().join(FIRST)).unwrap();
    let segment = File::options().write(true).open(dir.path().join(FIRST)).unwrap();
    segment.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&segment, &(900_u32 << 20).to_le_bytes(), 128 + 4).unwrap();
    let disk = OsDisk::read_only(dir.path()).unwrap();
    let (log, _) = repair(Overlay::new(disk.clone())).unwrap();
    let bad = bad_indexes(&log, &disk).unwrap();
    assert!(bad.iter().all(|index| matches!(index.fault, IndexFault::Damaged(_))) && bad.len() == 2, "{bad:?}");
    drop(log);
    fs::write(dir.path().join(FIRST), claims).unwrap();
    let (log, _) = Log::open(OsDisk::new(dir.path()).unwrap(), SMALL, ID).unwrap();
    assert_eq!(read_all(&log), held);
    assert!(peak_bytes() < 300 << 20, "{} bytes", peak_bytes());
}

#[test]
fn a_text_file_is_read_up_to_a_length_and_may_be_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let [text, link, fifo] = ["text", "link", "pipe"].map(|name| dir.path().join(name));
    fs::write(&text, "12345").unwrap();
    std::os::unix::fs::symlink(&text, &link).unwrap();
    pipe(&fifo);
    assert_eq!(read_text(&link, 5).unwrap(), "12345");
    let errors = [(&text, 4), (&fifo, 5), (&dir.path().to_owned(), 5)]
        .map(|(path, max)| read_text(path, max).unwrap_err().to_string());
    for (error, part) in errors.iter().zip(["more than 4 bytes", "a named pipe", "a directory"]) {
        assert!(error.contains(part), "{error}");
    }
    assert!(read_text(Path::new("/dev/zero"), 5).unwrap_err().to_string().contains("a device"));
}
