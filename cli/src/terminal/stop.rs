//! Signals that ask this program to end, and how it ends then.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::timeout;

/// A program that was asked to end, and neither does so nor is asked again, ends after so long.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The signal that asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The exit code by which a shell tells of a program that this signal has ended.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "interrupted",
            Self::Terminate => "told to stop",
        })
    }
}

/// The end of a command that a signal has asked for, with what there is to say about it.
#[derive(Debug, thiserror::Error)]
#[error("{signal}: {said}")]
pub(crate) struct Stopped {
    pub(crate) signal: Signal,
    pub(crate) said: String,
}

/// SIGINT and SIGTERM.
pub(crate) struct Stop {
    interrupt: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
}

impl Stop {
    /// The signals of a service, which ends in no other way: both count, even if it was started to ignore them.
    pub(crate) fn of_a_service() -> io::Result<Self> {
        Self::new(0)
    }

    /// The signals of a command. One that it was started to ignore, like a background job of a script, stays ignored.
    fn of_a_command() -> io::Result<Self> {
        Self::new(ignored())
    }

    fn new(ignored: u64) -> io::Result<Self> {
        let listen = |kind: SignalKind| {
            let is_ignored = ignored & (1 << (kind.as_raw_value() - 1)) != 0;
            if is_ignored { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(crate) async fn asked(&mut self) -> Signal {
        let Self { interrupt, terminate } = self;
        tokio::select! {
            () = next(interrupt) => Signal::Interrupt,
            () = next(terminate) => Signal::Terminate,
        }
    }
}

async fn next(signal: &mut Option<unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores, as the system tells: bit 0 is signal 1. None where it does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Listens for the signals, for a command that ends by itself once it is asked to. Should it be held up, by an output that nobody
/// reads for example, it is ended: at the next signal, or soon.
pub(crate) fn listen() -> io::Result<Stop> {
    let mut other = Stop::of_a_command()?;
    tokio::spawn(async move {
        let signal = other.asked().await;
        let _ = timeout(ENDS_WITHIN, other.asked()).await;
        std::process::exit(signal.code().into());
    });
    Stop::of_a_command()
}
