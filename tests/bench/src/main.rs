//! `make bench-log`: what the log costs, beside the raw disk and other embedded logs. Writes target/bench-log/.

#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics are of floating point"
)]

mod append;
mod floor;
mod group_commit;
mod opening;
#[cfg(feature = "peers")]
mod peers;
mod read;
mod report;
mod sizes;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Report;

/// Measures some of it.
type Part = fn(&Plan, &mut Report) -> anyhow::Result<()>;

/// The amount of measuring.
pub(crate) struct Plan {
    /// Rounds in which everybody has a turn.
    pub(crate) rounds: usize,
    /// The factor by which a turn is longer or shorter.
    pub(crate) scale: f64,
    /// Bytes of the large log that is opened.
    pub(crate) large_bytes: u64,
    /// The directory of the logs: on the disk that is to be measured.
    pub(crate) dir: PathBuf,
    pub(crate) bar: ProgressBar,
}

impl Plan {
    pub(crate) fn scaled(&self, count: usize) -> usize {
        ((count as f64 * self.scale) as usize).max(1)
    }

    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, dir, bytes] = args.as_slice()
        && command == "fill"
    {
        return opening::fill(dir.as_ref(), bytes.parse()?);
    }
    anyhow::ensure!(
        args.is_empty(),
        "usage: zue-bench; QUICK=1 takes a minute; ONLY=floor,append,read,open,sizes takes a part, MATCH=text appends whose title has it"
    );
    let quick = std::env::var_os("QUICK").is_some();
    let only = std::env::var("ONLY").unwrap_or_else(|_| "floor,append,read,open,sizes".into());
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let out = PathBuf::from(target).join("bench-log");
    std::fs::create_dir_all(&out)?;
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let plan = Plan {
        rounds: if quick { 3 } else { 9 },
        scale: if quick { 0.3 } else { 1.0 },
        large_bytes: if quick { 1 << 30 } else { 10 << 30 },
        dir: out.clone(),
        bar,
    };
    let mut report = Report::default();
    let parts: [(&str, Part); 5] = [
        ("floor", floor::run),
        ("append", append::run),
        ("read", read::run),
        ("open", opening::run),
        ("sizes", sizes::run),
    ];
    for (name, run) in parts {
        if only.split(',').any(|part| part == name) {
            run(&plan, &mut report)?;
        }
    }
    plan.bar.finish_and_clear();
    report.write(&out)?;
    print!("{}", report.markdown());
    Ok(())
}
