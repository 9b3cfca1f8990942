//! Appending: batches and single records, synced and not, by one thread and by sixteen.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use zue_bench::series::Series;
use zue_bench::stats::rate;

use crate::Plan;
use crate::report::{Goal, Report};
use crate::subject::{Make, Raw, Subject, Zue, batch};

const THREADS: usize = 16;

struct Contender {
    name: &'static str,
    make: Make,
    /// True if it can append without a sync, and with one.
    unsynced: bool,
    synced: bool,
}

fn contenders(synced: bool) -> Vec<Contender> {
    let zue = if synced { Zue::prepared } else { Zue::make };
    let both = |name, make: Make| Contender { name, make, unsynced: true, synced: true };
    #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "the peers are added"))]
    let mut all = vec![both("zue", zue), both("raw", Raw::reserved), both("raw, written over", Raw::written)];
    #[cfg(feature = "peers")]
    {
        use crate::peers::{Commitlog, Fjall, OkayWal, RaftEngine};
        all.push(both("raft-engine", RaftEngine::make));
        all.push(Contender { name: "okaywal", make: OkayWal::make, unsynced: false, synced: true });
        all.push(both("fjall", Fjall::make));
        all.push(Contender { name: "commitlog", make: Commitlog::make, unsynced: true, synced: false });
    }
    all
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for bytes in [100, 1024] {
        let batches = plan.scaled(200);
        series(plan, report, &format!("batches of 100 x {bytes} B, synced"), true, |subject| {
            one_thread(subject, bytes, 100, batches, true)
        })?;
        let appends = plan.scaled(150);
        series(plan, report, &format!("16 threads, single {bytes} B, synced"), true, |subject| {
            many_threads(subject, bytes, appends)
        })?;
        series(plan, report, &format!("batches of 100 x {bytes} B, not synced"), false, |subject| {
            one_thread(subject, bytes, 100, batches, false)
        })?;
    }
    for bytes in [256, 1024, 4096, 10240] {
        singles(plan, report, bytes)?;
    }
    Ok(())
}

/// All contenders, one after the other, round by round, each in a new folder.
fn series(
    plan: &Plan,
    report: &mut Report,
    title: &str,
    synced: bool,
    measure: impl Fn(&dyn Subject) -> Result<f64>,
) -> Result<()> {
    if std::env::var("MATCH").is_ok_and(|part| !title.contains(&part)) {
        return Ok(());
    }
    let contenders: Vec<_> =
        contenders(synced).into_iter().filter(|one| if synced { one.synced } else { one.unsynced }).collect();
    plan.say(title);
    plan.bar.inc_length((plan.rounds * contenders.len()) as u64);
    let mut series = Series::new(title, "records/s");
    for _ in 0..plan.rounds {
        for contender in &contenders {
            let folder = tempfile::tempdir_in(&plan.dir)?;
            let subject = (contender.make)(folder.path())?;
            series.add(contender.name, measure(&*subject)?);
            plan.bar.inc(1);
        }
    }
    if synced {
        report.goal(Goal::at_least(&series, "zue", &["raft-engine", "okaywal"], 0.95));
        report.goal(Goal::at_least(&series, "zue", &["raw"], 0.7));
        report.goal(Goal::at_least(&series, "zue", &["raw, written over"], 0.7));
    }
    report.add(series);
    Ok(())
}

fn one_thread(subject: &dyn Subject, bytes: usize, records: usize, batches: usize, sync: bool) -> Result<f64> {
    let value = vec![b'v'; bytes];
    let values = vec![value.as_slice(); records];
    subject.append(&values, sync)?;
    let begun = Instant::now();
    for _ in 0..batches {
        subject.append(&values, sync)?;
    }
    Ok(rate(batches * records, begun.elapsed()))
}

fn many_threads(subject: &dyn Subject, bytes: usize, appends: usize) -> Result<f64> {
    let value = vec![b'v'; bytes];
    let begun = Instant::now();
    thread::scope(|scope| {
        let one = || (0..appends).try_for_each(|_| subject.append(&[value.as_slice()], true));
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))?)
    })?;
    Ok(rate(appends * THREADS, begun.elapsed()))
}

/// Single records without a sync, beside a write and a CRC of the bytes that this log writes for them.
fn singles(plan: &Plan, report: &mut Report, bytes: usize) -> Result<()> {
    let title = format!("single {bytes} B, not synced");
    plan.say(&title);
    plan.bar.inc_length((plan.rounds * 2) as u64);
    let mut series = Series::new(&title, "records/s");
    let (value, count) = (vec![b'v'; bytes], plan.scaled(20_000).min((60 << 20) / (bytes + 64)));
    for _ in 0..plan.rounds {
        let folder = tempfile::tempdir_in(&plan.dir)?;
        let zue = Zue::make(folder.path())?;
        series.add("zue", one_thread(&*zue, bytes, 1, count, false)?);
        plan.bar.inc(1);
        let folder = tempfile::tempdir_in(&plan.dir)?;
        let raw = Raw::new(folder.path())?;
        let encoded = batch(zue_core::Tail::default(), &[&value])?;
        raw.write(encoded.bytes())?;
        let begun = Instant::now();
        for _ in 0..count {
            raw.write(encoded.bytes())?;
        }
        series.add("raw", rate(count, begun.elapsed()));
        plan.bar.inc(1);
    }
    report.goal(Goal::at_least(&series, "zue", &["raw"], 0.7));
    report.add(series);
    Ok(())
}
