//! Results: a line for each as it comes, in the end a table, a file for programs, and plots.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use zue_bench::plot;
use zue_bench::series::{Series, file_name, number};
use zue_bench::stats::median;
use zue_tests::programs::target_dir;

use super::cells::{Cell, Kind};
use super::driver::{Build, Found};

/// A column of the table. None where it cannot be counted.
struct Figure {
    name: &'static str,
    of: fn(&Found) -> Option<f64>,
    is_drawn: bool,
}

const FIGURES: [Figure; 7] = [
    Figure {
        name: "records/s",
        of: |found| Some(found.outcome.records as f64 / found.outcome.seconds),
        is_drawn: true,
    },
    Figure { name: "p50 µs", of: |found| Some(found.outcome.p50_us), is_drawn: true },
    Figure { name: "p99 µs", of: |found| Some(found.outcome.p99_us), is_drawn: false },
    Figure { name: "p99.9 µs", of: |found| Some(found.outcome.p999_us), is_drawn: false },
    Figure { name: "CPU µs/record", of: |found| Some(per_record(found, found.taken.cpu_ns) / 1e3), is_drawn: true },
    Figure { name: "switches/record", of: |found| Some(per_record(found, found.taken.switches)), is_drawn: false },
    Figure {
        name: "flushes/record",
        of: |found| found.taken.flushes.map(|flushes| per_record(found, flushes)),
        is_drawn: false,
    },
];

fn per_record(found: &Found, count: u64) -> f64 {
    count as f64 / found.outcome.records as f64
}

pub(crate) struct Report {
    pub(crate) builds: Vec<Build>,
    rounds: u64,
    millis: u64,
    found: Vec<Found>,
    /// Why a cell was not measured, or is not worth much.
    problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(builds: Vec<Build>, rounds: u64, millis: u64) -> Self {
        Self { builds, rounds, millis, found: vec![], problems: vec![] }
    }

    fn place(&self, round: u64, build: usize, cell: Cell) -> String {
        let name = self.builds.get(build).map_or("", |build| &build.name);
        format!("round {}, {name}, {cell}", round + 1)
    }

    pub(crate) fn add(&mut self, found: Found) {
        let place = self.place(found.round, found.build, found.cell);
        let figures =
            FIGURES.iter().filter_map(|figure| Some(format!("{} {}", number((figure.of)(&found)?), figure.name)));
        println!("{place}: {}", figures.collect::<Vec<_>>().join(", "));
        let (failed, why) = (found.outcome.failed, found.outcome.why.clone().unwrap_or_default());
        self.found.push(found);
        if failed > 0 {
            self.problem(format!("{place}: {failed} appends failed: {why}"));
        }
    }

    pub(crate) fn fail(&mut self, round: u64, build: usize, cell: Cell, error: &anyhow::Error) {
        self.problem(format!("{}: {error:#}", self.place(round, build, cell)));
    }

    fn problem(&mut self, problem: String) {
        println!("{problem}");
        self.problems.push(problem);
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = vec![];
        for found in &self.found {
            if !cells.contains(&found.cell) {
                cells.push(found.cell);
            }
        }
        cells
    }

    fn of(&self, cell: Cell, build: usize) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |found| found.cell == cell && found.build == build)
    }

    /// The median over the rounds.
    fn median(&self, cell: Cell, build: usize, figure: &Figure) -> Option<f64> {
        let values: Vec<f64> = self.of(cell, build).filter_map(figure.of).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    /// The median of this build / the base, round by round: what differs between rounds differs for both.
    fn ratio(&self, cell: Cell, figure: &Figure) -> Option<f64> {
        let mut ratios = vec![];
        for base in self.of(cell, 0) {
            let ours = self.of(cell, 1).find(|found| found.round == base.round).and_then(figure.of);
            ratios.extend(ours.zip((figure.of)(base)).filter(|(_, base)| *base > 0.0).map(|(ours, base)| ours / base));
        }
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn markdown(&self) -> String {
        let mut out = format!("## Three nodes: medians of {} rounds of {} ms\n\n", self.rounds, self.millis);
        for build in &self.builds {
            let load = if build.has_load() { "its own" } else { "that of zue" };
            let _ = writeln!(out, "- {}: {}, load: {load}", build.name, build.commit);
        }
        let _ = writeln!(
            out,
            "- CPU and context switches are those of the three nodes, flushes those of the whole device."
        );
        for kind in [Kind::Pipe, Kind::Read] {
            let _ = writeln!(out, "- The latencies of {} are of {}.", kind.name(), kind.waits_for());
        }
        let heads = FIGURES.map(|figure| figure.name).join(" | ");
        let _ = writeln!(out, "\n| cell | build | {heads} | failed |\n|---|---|{}---:|", "---:|".repeat(FIGURES.len()));
        let row = |out: &mut String, cell: Cell, build: &str, values: [Option<f64>; 7], failed: String| {
            let values = values.map(|value| value.map_or("–".to_owned(), number)).join(" | ");
            let _ = writeln!(out, "| {cell} | {build} | {values} | {failed} |");
        };
        for cell in self.cells() {
            for (build, Build { name, .. }) in self.builds.iter().enumerate() {
                let failed: u64 = self.of(cell, build).map(|found| found.outcome.failed).sum();
                let failed = if failed > 0 { format!("**{failed}**") } else { "0".to_owned() };
                row(&mut out, cell, name, FIGURES.map(|figure| self.median(cell, build, &figure)), failed);
            }
            if let [base, ours] = self.builds.as_slice() {
                let name = format!("**{} / {}**", ours.name, base.name);
                row(&mut out, cell, &name, FIGURES.map(|figure| self.ratio(cell, &figure)), String::new());
            }
        }
        if !self.problems.is_empty() {
            let _ = write!(out, "\n### Problems\n\n- {}\n", self.problems.join("\n- "));
        }
        out
    }

    fn csv(&self) -> String {
        let mut out = String::from(
            "round,build,commit,kind,bytes,durability,records,failed,seconds,p50_us,p90_us,p99_us,p999_us,max_us,cpu_us,switches,flushes\n",
        );
        for Found { round, build, cell, outcome: load, taken } in &self.found {
            let Some(Build { name, commit, .. }) = self.builds.get(*build) else { continue };
            let (round, kind, durability) = (round + 1, cell.kind.name(), cell.durability.name());
            let _ = write!(
                out,
                "{round},{name},{commit},{kind},{},{durability},{},{}",
                cell.bytes, load.records, load.failed
            );
            for value in [load.seconds, load.p50_us, load.p90_us, load.p99_us, load.p999_us, load.max_us] {
                let _ = write!(out, ",{value:.3}");
            }
            let flushes = taken.flushes.map_or(String::new(), |flushes| flushes.to_string());
            let _ = writeln!(out, ",{},{},{flushes}", taken.cpu_ns / 1000, taken.switches);
        }
        out
    }

    /// A plot of each drawn figure of each kind.
    fn draw(&self, dir: &Path) -> Result<()> {
        for figure in FIGURES.iter().filter(|figure| figure.is_drawn) {
            let mut all: Vec<Series> = vec![];
            for found in &self.found {
                let title = format!("{}, {}", found.cell.kind.name(), figure.name);
                let at = all.iter().position(|series| series.title == title).unwrap_or_else(|| {
                    all.push(Series::new(&title, figure.name));
                    all.len() - 1
                });
                let (Some(series), Some(build)) = (all.get_mut(at), self.builds.get(found.build)) else { continue };
                let cell = found.cell.to_string();
                let rest = cell.split_once(' ').map_or("", |(_, rest)| rest);
                series.add(&format!("{} {rest}", build.name), (figure.of)(found).unwrap_or_default());
            }
            for series in &all {
                plot::bars(series, &dir.join(format!("speed-{}.png", file_name(&series.title))))?;
            }
        }
        Ok(())
    }

    /// Writes it all, and fails when there was any problem.
    pub(crate) fn write(&self) -> Result<()> {
        let dir = target_dir().join("bench-cluster");
        std::fs::create_dir_all(&dir)?;
        let text = self.markdown();
        std::fs::write(dir.join("speed.md"), &text)?;
        std::fs::write(dir.join("speed.csv"), self.csv())?;
        self.draw(&dir)?;
        print!("\n{text}");
        ensure!(
            self.problems.is_empty(),
            "{} of the figures are missing or of appends that failed",
            self.problems.len()
        );
        Ok(())
    }
}
