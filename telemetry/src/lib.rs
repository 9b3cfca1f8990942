//! Lines of Zue's programs on standard error, and their metrics. No line ever stops a program or holds it up: a thread writes them, what
//! cannot be written is dropped and counted, and a warning that repeats for ever is told seldom. Knows nothing of what is said.

mod lines;
pub mod metrics;
mod repeats;
mod seldom;

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::lines::Lines;
use crate::repeats::Repeats;
use crate::seldom::Seldom;

/// The time that a program that ends waits until its last lines are written.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The time that a thread that panics waits for the same.
const PANIC_TOLD_WITHIN: Duration = Duration::from_millis(200);

/// Lines of the log that were left out because they repeated others.
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Log lines that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is no filter.
    #[error("RUST_LOG is {value:?}, which is no filter such as \"info\" or \"zue_node=debug,info\"")]
    Filter {
        /// Its value.
        value: String,
        /// Its fault.
        source: ParseError,
    },
    /// Something else in the process has set them up.
    #[error("log lines were set up before")]
    Again,
}

/// Lines that nobody will read, since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Standard error did not take them: a full disk, a closed pipe, or one that nobody empties.
    pub unwritten: u64,
    /// They repeated others; the next such line that is told says how many there were.
    pub repeated: u64,
}

impl LeftOut {
    /// Each count with the name of its reason, for metrics.
    pub fn by_reason(self) -> [(&'static str, u64); 2] {
        let Self { unwritten, repeated } = self;
        [("unwritten", unwritten), ("repeated", repeated)]
    }
}

/// Lets log lines go to standard error: those that `RUST_LOG` asks for, or `default`. Panics are told as log lines, too.
///
/// # Errors
/// When `RUST_LOG` cannot be read, or log lines were set up before.
pub fn init(format: LogFormat, default: &str) -> Result<(), TelemetryError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(value) if !value.is_empty() => {
            EnvFilter::try_new(&value).map_err(|source| TelemetryError::Filter { value, source })?
        }
        _ => EnvFilter::new(default),
    };
    let has_colours = has_colours(io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say so on standard error, and panic there.
        .log_internal_errors(false)
        .with_ansi(has_colours)
        .with_writer(|| Line);
    let set = match format {
        LogFormat::Text => logger.map_event_format(|lines| Seldom::text(lines.with_ansi(has_colours))).try_init(),
        LogFormat::Json => {
            logger.json().flatten_event(true).with_span_list(false).map_event_format(Seldom::json).try_init()
        }
    };
    set.map_err(|_| TelemetryError::Again)?;
    panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Colours are for people at a terminal who did not ask for none (`NO_COLOR`, see no-color.org).
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Says a sentence to whoever looks at standard error, whatever `RUST_LOG` asks for. It is no part of the log.
pub fn say(sentence: impl Display) {
    Lines::of_process().push(format!("{sentence}\n").into_bytes());
}

/// The same for a sentence that may repeat for ever: told seldom then.
pub fn say_seldom(sentence: impl Display) {
    static REPEATS: Mutex<Repeats> = Mutex::new(Repeats::new());
    let sentence = sentence.to_string();
    match seldom::tell(&REPEATS, &sentence, Level::WARN) {
        None => {}
        Some(0) => say(sentence),
        Some(left_out) => say(format!("{sentence} ({left_out} more such lines were left out)")),
    }
}

/// Prints on standard output what the program was called for.
///
/// # Errors
/// When it cannot be written. Whoever closes a pipe has seen enough: that is none.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// The lines that were left out so far.
pub fn left_out() -> LeftOut {
    LeftOut { unwritten: Lines::of_process().dropped(), repeated: REPEATED.load(Ordering::Relaxed) }
}

/// Before the program ends: waits a moment for what was said to be written.
pub fn finish() {
    Lines::of_process().finish(ENDS_WITHIN);
}

fn tell_panic(info: &panic::PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("without a message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    tracing::error!(thread, place, "a panic, which is a fault of this program: {message}");
    // It may be the last that the program says.
    Lines::of_process().finish(PANIC_TOLD_WITHIN);
}

/// Takes one line of the log.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Lines::of_process().push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_a_terminal_whose_user_did_not_ask_for_none() {
        let asked = |value| has_colours(true, Some(OsStr::new(value)));
        assert!(has_colours(true, None) && asked("") && !asked("1") && !asked("0"));
        assert!(!has_colours(false, None));
    }
}
