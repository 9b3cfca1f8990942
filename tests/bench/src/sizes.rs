//! The workloads of the original Zue's benchmark: a key of min(size, 512) bytes, values of 256 B to 10 KiB and of random size, an
//! index entry every 1, 4 and 16 KiB. Times of single operations.

use std::time::Instant;

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use zue_core::Offset;
use zue_log::{BatchBuilder, Limits, LogConfig};

use crate::Plan;
use crate::report::{Report, Times};
use crate::subject::Zue;

const SIZES: [(&str, usize, usize); 6] = [
    ("256 B", 256, 256),
    ("512 B", 512, 512),
    ("1 KiB", 1024, 1024),
    ("4 KiB", 4096, 4096),
    ("10 KiB", 10240, 10240),
    ("random", 256, 10240),
];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    plan.bar.inc_length(SIZES.len() as u64 * 3);
    for interval in [1 << 10, 4 << 10, 16 << 10] {
        for (name, least, most) in SIZES {
            let workload = format!("{name}, index every {} KiB", interval >> 10);
            plan.say(&workload);
            one(plan, report, &workload, interval, (least, most))?;
            plan.bar.inc(1);
        }
    }
    Ok(())
}

fn one(plan: &Plan, report: &mut Report, workload: &str, interval: u32, sizes: (usize, usize)) -> Result<()> {
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let config = LogConfig { index_interval_bytes: interval, ..LogConfig::default() };
    let zue = Zue::open(folder.path(), config)?;
    let mut log = zue.log().lock();
    let mut random = SmallRng::seed_from_u64(7);
    let count = plan.scaled(10_000);
    let (mut append, mut scan, mut read, mut look_up) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    let bytes = vec![b'x'; sizes.1];
    for _ in 0..count {
        let size = random.random_range(sizes.0..=sizes.1);
        let (key, value) = (bytes.get(..size.min(512)).unwrap_or(&bytes), bytes.get(..size).unwrap_or(&bytes));
        append.take(|| {
            let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
            builder.push(Some(key), value, [], None)?;
            log.append(&builder.finish()?)?;
            Ok(())
        })?;
    }
    let reader = log.reader();
    let (mut at, end) = (Offset(0), reader.tail().end);
    while at < end {
        let chunk = reader.read(at, end, 1 << 20)?;
        let mut records = chunk.records();
        let mut more = true;
        while more {
            scan.take(|| {
                more = records.next().transpose()?.is_some();
                Ok(())
            })?;
        }
        at = chunk.end();
    }
    for _ in 0..count {
        let offset = Offset(random.random_range(0..end.0));
        look_up.take(|| {
            std::hint::black_box(reader.read(offset, offset.plus(1), 1)?);
            Ok(())
        })?;
        read.take(|| {
            for record in reader.read(offset, offset.plus(1), 1)?.records() {
                std::hint::black_box(record?.value);
            }
            Ok(())
        })?;
    }
    for (operation, times) in
        [("append", append), ("sequential read", scan), ("random read", read), ("index look-up", look_up)]
    {
        report.times(workload, operation, times);
    }
    Ok(())
}

impl Times {
    fn take(&mut self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        act()?;
        self.0.push(begun.elapsed().as_secs_f64() * 1e6);
        Ok(())
    }
}
