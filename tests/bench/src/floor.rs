//! The floor that everything stands on: what memory, the checksum and the disk alone can do with the same bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use anyhow::Result;
use zue_bench::series::Series;

use crate::Plan;
use crate::report::Report;

/// As many bytes as a batch of a hundred records of 10 KiB.
const PIECE_BYTES: usize = 1 << 20;
/// The file that is written over and over, as long as one of the log's segments.
const FILE_PIECES: u64 = 64;

/// Does something with a piece of bytes, which lies at the position in the file.
type Work = fn(&File, &mut [u8], &[u8], u64) -> Result<()>;

const WORK: [(&str, usize, Work); 4] = [
    ("memcpy", 400, |_, to, from, _| {
        to.copy_from_slice(from);
        std::hint::black_box(to);
        Ok(())
    }),
    ("crc32fast", 400, |_, _, from, _| {
        std::hint::black_box(crc32fast::hash(from));
        Ok(())
    }),
    ("pwrite", 200, |file, _, from, at| Ok(file.write_all_at(from, at)?)),
    ("pwrite + fdatasync", 30, |file, _, from, at| {
        file.write_all_at(from, at)?;
        Ok(file.sync_data()?)
    }),
];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let title = "the raw floor, pieces of 1 MiB";
    plan.say(title);
    plan.bar.inc_length((plan.rounds * WORK.len()) as u64);
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let file = File::create_new(folder.path().join("raw"))?;
    let (from, mut to) = (vec![0x5a; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for piece in 0..FILE_PIECES {
        file.write_all_at(&from, piece << 20)?;
    }
    file.sync_all()?;
    let mut series = Series::new(title, "MiB/s");
    for _ in 0..plan.rounds {
        for (name, pieces, work) in WORK {
            let pieces = plan.scaled(pieces) as u64;
            let begun = Instant::now();
            for piece in 0..pieces {
                work(&file, &mut to, &from, (piece % FILE_PIECES) << 20)?;
            }
            series.add(name, pieces as f64 / begun.elapsed().as_secs_f64());
            plan.bar.inc(1);
        }
    }
    report.add(series);
    Ok(())
}
