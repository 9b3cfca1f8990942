//! One figure of several contenders, and how figures and titles are written.

/// One figure of several contenders, round by round.
#[derive(Debug)]
pub struct Series {
    /// The measured quantity.
    pub title: String,
    /// Of the values.
    pub unit: &'static str,
    /// Each contender with its values.
    pub runs: Vec<(String, Vec<f64>)>,
}

impl Series {
    /// Of nobody yet.
    pub fn new(title: &str, unit: &'static str) -> Self {
        Self { title: title.to_owned(), unit, runs: Vec::new() }
    }

    /// Adds the value that a contender has reached in a round.
    pub fn add(&mut self, name: &str, value: f64) {
        match self.runs.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.runs.push((name.to_owned(), vec![value])),
        }
    }

    /// The values that a contender has reached, round by round.
    pub fn of(&self, name: &str) -> Option<&[f64]> {
        self.runs.iter().find(|(known, _)| known == name).map(|(_, values)| values.as_slice())
    }
}

/// A title as the name of a file.
pub fn file_name(title: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = title.replace('µ', "u").chars().map(word).collect();
    name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// A figure with three digits that count.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e5 => format!("{:.0} k", value / 1e3),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value > 0.0 && value < 0.1 => format!("{value:.4}"),
        value => format!("{value:.2}"),
    }
}
