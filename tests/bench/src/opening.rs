//! Opening a log whose process was killed: a large one beside a small one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use zue_bench::series::Series;
use zue_log::LogConfig;

use crate::Plan;
use crate::report::{Goal, Report};
use crate::subject::{Subject as _, Zue};

const SMALL_BYTES: u64 = 100 << 20;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let title = format!("open after SIGKILL, {} GiB and 100 MiB", plan.large_bytes >> 30);
    let mut series = Series::new(&title, "ms");
    plan.bar.inc_length(2 + plan.rounds as u64);
    let folders = [(SMALL_BYTES, "100 MiB"), (plan.large_bytes, "large")].map(|(bytes, name)| {
        plan.say(&format!("filling a log with {} MiB", bytes >> 20));
        let folder = tempfile::tempdir_in(&plan.dir)?;
        fill_and_kill(folder.path(), bytes)?;
        plan.bar.inc(1);
        anyhow::Ok((name, folder))
    });
    plan.say(&title);
    let mut folders = folders.into_iter().collect::<Result<Vec<_>>>()?;
    for _ in 0..plan.rounds {
        for (name, folder) in &mut folders {
            let begun = Instant::now();
            let zue = Zue::open(folder.path(), LogConfig::default())?;
            series.add(name, begun.elapsed().as_secs_f64() * 1e3);
            // As a kill would leave it: not closed.
            drop(zue);
        }
        plan.bar.inc(1);
    }
    report.goal(Goal::at_most_more(&series, "large", "100 MiB", 100.0));
    report.add(series);
    Ok(())
}

/// Appends until the log has as many bytes, says so, and goes on until it is killed.
pub(crate) fn fill(dir: &Path, bytes: u64) -> Result<()> {
    let zue = Zue::open(dir, LogConfig::default())?;
    let value = vec![b'v'; 10_000];
    let mut written = 0;
    loop {
        zue.append(&vec![value.as_slice(); 100], written % (64 << 20) == 0)?;
        written += 1_000_000;
        if (bytes..bytes + 1_000_000).contains(&written) {
            println!("full");
        }
        if written > bytes {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

fn fill_and_kill(dir: &Path, bytes: u64) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fill").arg(dir).arg(bytes.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(line == "full\n", "the process that fills the log ended early");
    Ok(())
}
