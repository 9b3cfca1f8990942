//! The thread that writes lines, and those that wait for it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// The number of bytes of lines that may wait. What comes on top is dropped: whoever reads is too slow, or has stopped.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Lines on their way.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread has taken lines that are not written yet.
    writing: bool,
    dropped: u64,
}

impl Lines {
    /// Those of standard error.
    pub(crate) fn of_process() -> &'static Self {
        static LINES: OnceLock<Arc<Lines>> = OnceLock::new();
        LINES.get_or_init(|| {
            let lines = Arc::<Self>::default();
            let writer = Arc::clone(&lines);
            // Without the thread all lines are dropped, and counted, once no more of them may wait.
            let _ = thread::Builder::new().name("lines".into()).spawn(move || writer.write_to(io::stderr()));
            lines
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, with its end. Waits for nobody.
    pub(crate) fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.bytes.saturating_add(line.len()) > WAITING_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.waiting.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Waits until all is written, or so long.
    pub(crate) fn finish(&self, within: Duration) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let _ = self.changed.wait_timeout_while(self.state(), within, busy);
    }

    /// Writes for ever, in order.
    fn write_to(&self, out: impl Write) {
        let mut paper = Paper { out, torn: false };
        loop {
            let idle = |state: &mut State| state.waiting.is_empty();
            let mut state = self.changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
            let Some(line) = state.waiting.pop_front() else { continue };
            state.writing = true;
            drop(state);
            let written = paper.write(&line);
            let mut state = self.state();
            state.bytes = state.bytes.saturating_sub(line.len());
            state.writing = false;
            state.dropped += u64::from(!written);
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// The output that lines are written to.
struct Paper<W> {
    out: W,
    /// Only the beginning of a line was taken.
    torn: bool,
}

impl<W: Write> Paper<W> {
    /// Returns whether the line was written.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.torn {
            self.torn = !self.bytes(b"\n");
        }
        !self.torn && self.bytes(line)
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return false,
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Has room for so many bytes.
    struct Small {
        kept: Vec<u8>,
        room: usize,
    }

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.kept.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_found_no_room_is_dropped_and_the_next_begins_on_a_line_of_its_own() {
        let mut paper = Paper { out: Small { kept: Vec::new(), room: 9 }, torn: false };
        assert!(paper.write(b"first\n"));
        assert!(!paper.write(b"second\n"));
        assert!(!paper.write(b"third\n"));
        paper.out.room = 100;
        assert!(paper.write(b"fourth\n"));
        assert_eq!(paper.out.kept, b"first\nsec\nfourth\n");
    }

    /// Hangs until it is let go, as a pipe that nobody reads.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_or(Err(io::ErrorKind::BrokenPipe.into()), |()| Ok(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up_and_costs_bounded_memory() {
        let (_go_on, stuck) = mpsc::channel();
        let lines = Arc::<Lines>::default();
        let writer = Arc::clone(&lines);
        thread::spawn(move || writer.write_to(Stuck(stuck)));
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        for _ in 0..10 {
            lines.push(line.clone());
        }
        assert_eq!(lines.dropped(), 6);
        assert!(lines.state().bytes <= WAITING_BYTES_MAX);
        lines.finish(Duration::from_millis(10));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_others_go_on() {
        let lines = Arc::<Lines>::default();
        let writer = Arc::clone(&lines);
        thread::spawn(move || writer.write_to(Small { kept: Vec::new(), room: 4 }));
        for line in ["one\n", "two\n", "three\n"] {
            lines.push(line.as_bytes().to_vec());
        }
        lines.finish(Duration::from_mins(1));
        assert_eq!((lines.dropped(), lines.state().bytes), (2, 0));
    }
}
