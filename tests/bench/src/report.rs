//! Results as CSV, as a table and as plots; and whether the goals were met.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use zue_bench::plot;
use zue_bench::series::{Series, file_name, number};
use zue_bench::stats::{median, median_ratio, percentile};

/// The times of one operation, µs.
#[derive(Default)]
pub(crate) struct Times(pub(crate) Vec<f64>);

/// Something that is to hold within the run.
pub(crate) struct Goal {
    what: String,
    found: f64,
    wanted: String,
    met: bool,
}

impl Goal {
    /// The first is at least so many times as good as the best of the others; `None` if none of them ran.
    pub(crate) fn at_least(series: &Series, name: &str, others: &[&str], ratio: f64) -> Option<Self> {
        let ours = series.of(name)?;
        let others: Vec<_> = others.iter().filter_map(|other| Some((*other, series.of(other)?))).collect();
        let (best, found) = others
            .into_iter()
            .map(|(other, theirs)| (other, median_ratio(ours, theirs)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let what = format!("{}: {name} / {best}", series.title);
        Some(Self { what, found, wanted: format!(">= {ratio}"), met: found >= ratio })
    }

    pub(crate) fn at_most(series: &Series, name: &str, limit: f64) -> Option<Self> {
        let found = median(series.of(name)?);
        let what = format!("{}: {name}, {}", series.title, series.unit);
        Some(Self { what, found, wanted: format!("<= {limit}"), met: found <= limit })
    }

    pub(crate) fn at_most_more(series: &Series, name: &str, than: &str, limit: f64) -> Option<Self> {
        let found = median(series.of(name)?) - median(series.of(than)?);
        let what = format!("{}: {name} - {than}, {}", series.title, series.unit);
        Some(Self { what, found, wanted: format!("<= {limit}"), met: found <= limit })
    }
}

#[derive(Default)]
pub(crate) struct Report {
    goals: Vec<Goal>,
    series: Vec<Series>,
    times: Vec<(String, &'static str, Times)>,
}

impl Report {
    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(crate) fn goal(&mut self, goal: Option<Goal>) {
        self.goals.extend(goal);
    }

    pub(crate) fn times(&mut self, workload: &str, operation: &'static str, times: Times) {
        self.times.push((workload.to_owned(), operation, times));
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("## Goals\n\n| goal | wanted | found | |\n|---|---|---|---|\n");
        for Goal { what, found, wanted, met } in &self.goals {
            let met = if *met { "met" } else { "**missed**" };
            let _ = writeln!(out, "| {what} | {wanted} | {found:.2} | {met} |");
        }
        out.push_str("\n## Medians\n\n| workload | contender | median | least | most | |\n|---|---|---|---|---|---|\n");
        for Series { title, unit, runs } in &self.series {
            for (name, values) in runs {
                let [least, median, most] = [0.0, 0.5, 1.0].map(|share| number(percentile(values, share)));
                let _ = writeln!(out, "| {title} | {name} | {median} | {least} | {most} | {unit} |");
            }
        }
        out.push_str("\n## Single operations, µs\n\n| workload | operation | avg | p50 | p95 | p99 |\n|---|---|---|---|---|---|\n");
        for (workload, operation, Times(times)) in &self.times {
            let avg = times.iter().sum::<f64>() / times.len().max(1) as f64;
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| percentile(times, share));
            let _ = writeln!(out, "| {workload} | {operation} | {avg:.2} | {p50:.2} | {p95:.2} | {p99:.2} |");
        }
        out
    }

    /// Writes report.md, series.csv, operations.csv and a plot of each series.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::write(dir.join("report.md"), self.markdown())?;
        let mut csv = String::from("workload,contender,round,value,unit\n");
        for Series { title, unit, runs } in &self.series {
            for (name, values) in runs {
                for (round, value) in values.iter().enumerate() {
                    let _ = writeln!(csv, "\"{title}\",\"{name}\",{round},{value},{unit}");
                }
            }
        }
        std::fs::write(dir.join("series.csv"), csv)?;
        let mut csv = String::from("workload,operation,share,us\n");
        for (workload, operation, Times(times)) in &self.times {
            for share in [0.5, 0.95, 0.99, 1.0] {
                let _ = writeln!(csv, "\"{workload}\",\"{operation}\",{share},{}", percentile(times, share));
            }
        }
        std::fs::write(dir.join("operations.csv"), csv)?;
        for series in &self.series {
            plot::bars(series, &dir.join(format!("{}.png", file_name(&series.title))))?;
        }
        Ok(())
    }
}
