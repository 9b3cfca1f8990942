//! Directories that are not opened, and not changed: their files contradict each other, or a later version has written them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{fill, fresh, open, read_all, segments, start, start_epoch, try_open};
use zue_core::{Epoch, Offset, ReplicaId};
use zue_log::sim::SimDisk;
use zue_log::{Batch, Disagreement, Disk as _, Later, OpenError, Overlay, dump, repair};

/// A closed log of some segments.
fn closed() -> SimDisk {
    let (disk, mut log) = fresh(61);
    start_epoch(&mut log, 1);
    fill(&mut log, 40, 3000);
    log.note_commit(Offset(40));
    log.close().unwrap();
    disk
}

fn content(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.content(&name).unwrap())).collect()
}

/// Why the directory is refused, by who opens it and by who looks at it. Neither changes it.
fn refused(disk: &SimDisk) -> OpenError {
    let before = content(disk);
    let seen = repair(Overlay::new(disk.clone())).expect_err("what contradicts itself is not sound").to_string();
    let error = try_open(disk).expect_err("a replica is not to run on it");
    assert_eq!(seen, error.to_string());
    assert_eq!(content(disk), before);
    error
}

/// Makes the CRC of a block right again.
fn seal(block: &mut [u8]) {
    let at = block.len() - 4;
    let crc = crc32fast::hash(&block[..at]).to_le_bytes();
    block[at..].copy_from_slice(&crc);
}

#[test]
fn a_meta_file_that_is_older_than_its_segments_is_refused() {
    let (disk, mut log) = fresh(60);
    let of_nobody = disk.content("meta").unwrap();
    start_epoch(&mut log, 1);
    fill(&mut log, 3, 100);
    log.sync().unwrap();
    let old = disk.content("meta").unwrap();
    start_epoch(&mut log, 2);
    fill(&mut log, 1, 100);
    log.close().unwrap();
    for (meta, promised) in [(old, 1), (of_nobody, 0)] {
        disk.damage("meta", |bytes| *bytes = meta);
        let error = refused(&disk);
        let what = Disagreement::AbovePromise { found: Epoch(2), promised: Epoch(promised) };
        assert!(matches!(&error, OpenError::Disagrees { what: found, .. } if *found == what), "{error}");
        let told = error.to_string();
        assert!(told.contains("copied while its node ran") && told.contains("move the directory away"), "{told}");
    }
}

#[test]
fn a_log_that_starts_behind_its_end_is_refused() {
    let disk = closed();
    // What is committed, and where the log starts.
    disk.damage("meta", |bytes| {
        bytes[96..104].copy_from_slice(&40_u64.to_le_bytes());
        bytes[152..160].copy_from_slice(&41_u64.to_le_bytes());
        seal(bytes);
    });
    let what = Disagreement::StartBehindEnd { log_start: Offset(41), end: Offset(40) };
    let error = refused(&disk);
    assert!(matches!(&error, OpenError::Disagrees { what: found, .. } if *found == what), "{error}");
}

#[test]
fn an_epoch_that_is_promised_to_another_leader_is_refused() {
    let (disk, mut log) = fresh(62);
    log.set_promise(Epoch(1), Some(ReplicaId(2)), None).unwrap();
    log.append(&Batch::epoch_start(Epoch(0), start(1, 0)).unwrap()).unwrap();
    log.close().unwrap();
    let (epoch, found, promised) = (Epoch(1), ReplicaId(1), ReplicaId(2));
    let what = Disagreement::OtherLeader { epoch, found, promised };
    let error = refused(&disk);
    assert!(matches!(&error, OpenError::Disagrees { what: found, .. } if *found == what), "{error}");
}

#[test]
fn a_file_of_a_later_version_is_refused_and_left_as_it_is() {
    let names = content(&closed())
        .into_keys()
        .filter(|name| name == "meta" || name.ends_with("log") || name.ends_with("index"));
    for name in names {
        for (version, is_sealed) in [(2_u32, true), (2, false), (3, true), (99, false)] {
            let disk = closed();
            disk.damage(&name, |bytes| {
                bytes[8..12].copy_from_slice(&version.to_le_bytes());
                match name.rsplit_once('.') {
                    _ if !is_sealed => {}
                    None => seal(&mut bytes[..1024]),
                    Some((_, "log")) => seal(&mut bytes[..128]),
                    Some(_) => seal(&mut bytes[..28]),
                }
            });
            let error = refused(&disk);
            let OpenError::Later { path, what } = &error else { panic!("{name}, {version}: {error}") };
            assert_eq!((path, what), (&disk.path(&name), &Later::Version(version)));
            assert!(error.to_string().contains("Run that version"), "{error}");
            assert!(
                matches!(dump(&disk, Offset(0), |_| ControlFlow::Continue(())), Err(OpenError::Later { .. })),
                "{name}"
            );
        }
    }
}

#[test]
fn a_flag_or_a_frame_of_a_later_version_is_refused_and_not_cut_away() {
    let disk = closed();
    disk.damage("meta", |bytes| {
        bytes[14] = 1;
        seal(bytes);
    });
    assert!(matches!(refused(&disk), OpenError::Later { what: Later::Flags(0x1_0004), .. }));
    for (kind, flags) in [(6_u8, 0_u8), (200, 1), (1, 128)] {
        let disk = closed();
        let name = segments(&disk).pop().unwrap();
        let mut at = 0;
        disk.damage(&name, |bytes| {
            at = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let mask: [u8; 4] = std::array::from_fn(|n| bytes[16 + n] ^ bytes[20 + n]);
            let frame = &mut bytes[at..at + 40];
            frame[4..8].copy_from_slice(&32_u32.to_le_bytes());
            (frame[8], frame[9]) = (kind, flags);
            let crc = crc32fast::hash(&frame[4..]).to_le_bytes();
            (0..4).for_each(|n| frame[n] = crc[n] ^ mask[n]);
        });
        let error = refused(&disk);
        let OpenError::Later { what: Later::Frame { position, .. }, .. } = &error else { panic!("{kind}: {error}") };
        assert_eq!(usize::try_from(*position).unwrap(), at);
        // What is damaged is no later version's.
        disk.damage(&name, |bytes| bytes[at + 20] ^= 1);
        assert!(open(&disk).1.cut_bytes > 0);
    }
}

#[test]
fn a_version_with_a_flipped_bit_is_damage() {
    for bit in 1..32 {
        let disk = closed();
        disk.damage("meta", |bytes| bytes[8 + bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(refused(&disk), OpenError::BadHeader { .. }), "bit {bit}");
        // An index holds nothing of its own.
        let disk = closed();
        let index = disk.list().unwrap().into_iter().find(|name| name.ends_with(".index")).unwrap();
        disk.damage(&index, |bytes| bytes[8 + bit / 8] ^= 1 << (bit % 8));
        open(&disk);
    }
}

#[test]
fn a_trimmed_segment_that_comes_back_damaged_does_no_harm() {
    let (disk, mut log) = fresh(63);
    start_epoch(&mut log, 1);
    fill(&mut log, 60, 3000);
    log.note_commit(Offset(60));
    log.sync().unwrap();
    let first = segments(&disk)[0].clone();
    let bytes = disk.content(&first).unwrap();
    log.trim(Offset(40)).unwrap();
    log.close().unwrap();
    assert!(!segments(&disk).contains(&first));
    for damaged in [4, 20, 70] {
        drop(disk.create(&first).unwrap());
        disk.damage(&first, |now| {
            now.clone_from(&bytes);
            now[damaged] ^= 1;
        });
        let (log, _) = open(&disk);
        assert_eq!(read_all(&log).len(), 20);
        assert!(!segments(&disk).contains(&first), "it is dead");
        log.close().unwrap();
    }
    // One that the log needs is missed.
    let kept = segments(&disk)[0].clone();
    disk.damage(&kept, |bytes| bytes[70] ^= 1);
    assert!(matches!(refused(&disk), OpenError::BadHeader { path, .. } if path == disk.path(&kept)));
}
