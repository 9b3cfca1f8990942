//! What was measured: a table for people, a file for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

/// Where it goes, beside what is printed.
const DIR: &str = "target/bench-cluster";

#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    goals: String,
}

impl Table {
    pub(crate) fn new(name: &'static str, columns: &'static [&'static str]) -> Self {
        Self { name, columns, rows: vec![], goals: String::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        println!("{}", cells.join("\t"));
        self.rows.push(cells);
    }

    /// Something that is to hold.
    pub(crate) fn goal(&mut self, what: &str, found: f64, wanted: &str, is_met: bool) {
        let met = if is_met { "met" } else { "**missed**" };
        let _ = writeln!(self.goals, "| {what} | {wanted} | {found:.2} | {met} |");
    }

    pub(crate) fn write(&self) -> Result<()> {
        let Self { name, columns, rows, goals } = self;
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heads: Vec<_> = columns.iter().map(|column| (*column).to_owned()).collect();
        let rules: Vec<_> = columns.iter().map(|_| "---".to_owned()).collect();
        let body: String = rows.iter().map(|row| line(row)).collect();
        let goals = format!("| goal | wanted | found | |\n|---|---|---|---|\n{goals}");
        let text = format!("## {name}\n\n{goals}\n{}{}{body}", line(&heads), line(&rules));
        let csv: String = [&heads].into_iter().chain(rows).map(|row| row.join(",") + "\n").collect();
        std::fs::create_dir_all(DIR)?;
        std::fs::write(Path::new(DIR).join(format!("{name}.md")), &text)?;
        std::fs::write(Path::new(DIR).join(format!("{name}.csv")), csv)?;
        print!("\n{text}");
        Ok(())
    }
}
