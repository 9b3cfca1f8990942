//! Log lines that repeat, told seldom. Lines are alike if they differ in numbers alone: offsets, times and ports change in what
//! repeats, names do not. What is asked for by `RUST_LOG` beyond the usual is told as it comes.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::REPEATED;
use crate::repeats::Repeats;

/// So many lines alike are told as they come: of what is wrong, and of what goes its way.
const WARNINGS_AT_ONCE: u32 = 10;
const OTHERS_AT_ONCE: u32 = 100;

/// Writes log lines as another does, but leaves out those that repeat too often.
pub(crate) struct Seldom<F> {
    format: F,
    /// The end of a line.
    end: &'static str,
    repeats: Mutex<Repeats>,
}

impl<F> Seldom<F> {
    pub(crate) fn text(format: F) -> Self {
        Self { format, end: "\n", repeats: Mutex::default() }
    }

    pub(crate) fn json(format: F) -> Self {
        Self { format, end: "}\n", repeats: Mutex::default() }
    }

    fn with(&self, line: &str, left_out: u64) -> String {
        let line = line.strip_suffix(self.end).unwrap_or(line);
        let end = self.end;
        if end == "\n" {
            format!("{line} left_out={left_out}{end}")
        } else {
            format!("{line},\"left_out\":{left_out}{end}")
        }
    }
}

/// The number of lines left out that this one stands for; none if it is left out itself.
pub(crate) fn tell(repeats: &Mutex<Repeats>, line: &str, level: Level) -> Option<u64> {
    let at_once = if level <= Level::WARN { WARNINGS_AT_ONCE } else { OTHERS_AT_ONCE };
    let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
    let told = repeats.tell(kind_of(line), at_once, Instant::now());
    if told.is_none() {
        REPEATED.fetch_add(1, Ordering::Relaxed);
    }
    told
}

/// The hash of what lines have in common that differ in numbers alone. The time at their beginning is one as well; `zue-1` is a name.
fn kind_of(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for word in
        line.split(|char: char| !char.is_alphanumeric() && !"-_.".contains(char)).filter(|word| !word.is_empty())
    {
        let is_number = word.starts_with(|char: char| char.is_ascii_digit());
        word.bytes().filter(|byte| !is_number || !byte.is_ascii_digit()).for_each(|byte| hasher.write_u8(byte));
        hasher.write_u8(0);
    }
    hasher.finish()
}

impl<S, N, F> FormatEvent<S, N> for Seldom<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        match tell(&self.repeats, &line, level) {
            None => Ok(()),
            Some(0) => writer.write_str(&line),
            Some(left_out) => writer.write_str(&self.with(&line, left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_alike_if_they_differ_in_numbers_alone() {
        let line = |at: &str, rest: &str| kind_of(&format!("{at}  WARN zue_node::peer: {rest}\n"));
        let (early, late) = ("2026-11-28T09:59:59.999999Z", "2026-11-28T10:00:00.000001Z");
        assert_eq!(line(early, "zue-1 at [::1]:99 refuses epoch=9"), line(late, "zue-1 at [::1]:2 refuses epoch=10"));
        assert_ne!(line(early, "zue-1 refuses"), line(early, "zue-2 refuses"));
    }

    #[test]
    fn a_line_says_how_many_were_left_out_and_stays_json() {
        assert_eq!(Seldom::text(()).with("WARN it is so\n", 3), "WARN it is so left_out=3\n");
        assert_eq!(Seldom::json(()).with("{\"a\":{\"b\":1}}\n", 3), "{\"a\":{\"b\":1},\"left_out\":3}\n");
    }
}
