//! Measures the source of the project, crate by crate, by what its parser says: `cargo run -p zue-structure [CHECKOUT]` prints a
//! table, and the tidy test sets limits. Tests are left out.

mod modules;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

pub use source::{Root, roots};

use source::File;

/// Words that no comment of an item should open with: it names a thing or an action instead.
pub const QUESTIONS: [&str; 6] = ["What", "Who", "Which", "Whether", "How", "Where"];

/// Figures of one crate.
#[derive(Debug, Default)]
pub struct Measures {
    /// Source files, without tests.
    pub files: usize,
    /// Modules that import each other in a circle, each group sorted; the largest first.
    pub circles: Vec<Vec<String>>,
    /// The same of the crate's rooms, which are the modules at its root.
    pub circles_of_rooms: Vec<Vec<String>>,
    /// Files in each folder, by its path below the checkout.
    pub folders: BTreeMap<String, usize>,
    /// Named fields of each struct.
    pub fields: BTreeMap<String, usize>,
    /// Lines of each function, sorted; signature and body.
    pub function_lines: Vec<(usize, String)>,
    /// Assertions, those for debug builds included.
    pub asserts: usize,
    /// Doc comments.
    pub comments: usize,
    /// Doc comments that open with a question word.
    pub questions: usize,
}

impl Measures {
    /// Measures the crate.
    pub fn of(checkout: &Path, root: &Root) -> Self {
        let files = source::files(checkout, root);
        let imports = modules::imports(&files);
        let (circles, circles_of_rooms) = (imports.circles(), imports.circles_of_rooms());
        let mut measures = Self { files: files.len(), circles, circles_of_rooms, ..Self::default() };
        for file in &files {
            measures.add(file);
        }
        measures.function_lines.sort();
        measures
    }

    fn add(&mut self, file: &File) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        *self.folders.entry(folder.to_owned()).or_default() += 1;
        let source::Counts { fields, functions, asserts } = source::count(&file.syntax);
        self.fields.extend(fields.into_iter().map(|(name, count)| (format!("{}::{name}", file.path), count)));
        self.function_lines
            .extend(functions.into_iter().map(|(name, lines)| (lines, format!("{}::{name}", file.path))));
        self.asserts += asserts;
        for opening in source::openings(&file.text) {
            self.comments += 1;
            self.questions += usize::from(QUESTIONS.contains(&opening));
        }
    }

    /// The size of the largest circle of modules; 1 if there is none.
    pub fn circle_max(&self) -> usize {
        self.circles.first().map_or(1, Vec::len)
    }

    /// The size of the largest circle of rooms; 1 if there is none.
    pub fn circle_of_rooms_max(&self) -> usize {
        self.circles_of_rooms.first().map_or(1, Vec::len)
    }

    /// The lines that nine of ten functions do not exceed.
    pub fn function_p90(&self) -> usize {
        let at = (self.function_lines.len() * 9).div_ceil(10).saturating_sub(1);
        self.function_lines.get(at).map_or(0, |(lines, _)| *lines)
    }

    /// The lines of the longest function.
    pub fn function_max(&self) -> usize {
        self.function_lines.last().map_or(0, |(lines, _)| *lines)
    }

    /// The most fields of a struct.
    pub fn fields_max(&self) -> usize {
        self.fields.values().copied().max().unwrap_or_default()
    }

    /// The most files in a folder.
    pub fn folder_max(&self) -> usize {
        self.folders.values().copied().max().unwrap_or_default()
    }
}
