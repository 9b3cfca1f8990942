//! Results: a table for people, a file for programs.

use std::fmt::Write as _;

use anyhow::Result;
use zue_tests::programs::target_dir;

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
        let dir = target_dir().join("bench-cluster"); // beside what is printed
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(format!("{name}.md")), &text)?;
        std::fs::write(dir.join(format!("{name}.csv")), csv)?;
        print!("\n{text}");
        Ok(())
    }
}
