//! Reading: all records in order, and single ones by offset.

use std::time::Instant;

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use zue_bench::series::Series;
use zue_bench::stats::{percentile, rate};
use zue_core::Offset;
use zue_log::LogConfig;

use crate::Plan;
use crate::report::{Goal, Report};
use crate::subject::{Make, Subject, Zue};

fn contenders() -> Vec<(&'static str, Make)> {
    #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "the peers are added"))]
    let mut all: Vec<(&str, Make)> = vec![("zue", Zue::make)];
    #[cfg(feature = "peers")]
    {
        use crate::peers::{Commitlog, Fjall, RaftEngine};
        all.extend([("commitlog", Commitlog::make as Make), ("raft-engine", RaftEngine::make), ("fjall", Fjall::make)]);
    }
    all
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for bytes in [100, 1024] {
        scans(plan, report, bytes)?;
    }
    random(plan, report)
}

fn scans(plan: &Plan, report: &mut Report, bytes: usize) -> Result<()> {
    let title = format!("scan of {bytes} B records, CRC checked");
    plan.say(&title);
    let mut series = Series::new(&title, "records/s");
    let mut logs = Vec::new();
    let batches = plan.scaled(50_000_000 / (bytes + 100) / 100);
    for (name, make) in contenders() {
        let folder = tempfile::tempdir_in(&plan.dir)?;
        let subject = make(folder.path())?;
        let value = vec![b'v'; bytes];
        for _ in 0..batches {
            subject.append(&vec![value.as_slice(); 100], false)?;
        }
        logs.push((name, subject, folder));
    }
    plan.bar.inc_length((plan.rounds * logs.len()) as u64);
    for _ in 0..plan.rounds {
        for (name, subject, _) in &logs {
            let begun = Instant::now();
            let count = subject.scan()?;
            anyhow::ensure!(count == batches * 100, "{name} has {count} records of {}", batches * 100);
            series.add(name, rate(count, begun.elapsed()));
            plan.bar.inc(1);
        }
    }
    report.goal(Goal::at_least(&series, "zue", &["commitlog"], 1.0));
    report.goal(Goal::at_least(&series, "zue", &["raft-engine"], 1.0));
    report.add(series);
    Ok(())
}

fn random(plan: &Plan, report: &mut Report) -> Result<()> {
    let title = "random read of a 256 B record";
    plan.say(title);
    plan.bar.inc_length(plan.rounds as u64);
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let zue = Zue::open(folder.path(), LogConfig::default())?;
    let value = vec![b'v'; 256];
    for _ in 0..2000 {
        zue.append(&vec![value.as_slice(); 100], false)?;
    }
    let reader = zue.log().lock().reader();
    let mut random = SmallRng::seed_from_u64(1);
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let mut took = Vec::new();
        for _ in 0..plan.scaled(50_000) {
            let offset = Offset(random.random_range(0..200_000));
            let begun = Instant::now();
            let chunk = reader.read(offset, offset.plus(1), 1)?;
            for record in chunk.records() {
                std::hint::black_box(record?.value);
            }
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        p50.push(percentile(&took, 0.5));
        p99.push(percentile(&took, 0.99));
        plan.bar.inc(1);
    }
    let mut series = Series::new(title, "µs");
    for (name, values) in [("zue, p50", p50), ("zue, p99", p99)] {
        for value in values {
            series.add(name, value);
        }
    }
    report.goal(Goal::at_most(&series, "zue, p50", 3.0));
    report.add(series);
    Ok(())
}
