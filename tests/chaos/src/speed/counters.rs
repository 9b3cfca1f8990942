//! The use of processors and disks by the servers so far, by the kernel's own count.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The place of the flushes in a device's stat file, from 0 (Documentation/block/stat.rst).
const FLUSHES_FIELD: usize = 15;

/// The use of one thread.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    cpu_ns: u64,
    switches: u64,
}

/// The counts until now.
#[derive(Debug)]
pub(crate) struct Counters {
    threads: BTreeMap<u32, Thread>,
    flushes: Option<u64>,
}

/// The use between two moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) cpu_ns: u64,
    /// Context switches, those that were asked for and those that were not.
    pub(crate) switches: u64,
    /// Flushes of the device, whoever asked for them; none where the device does not count them.
    pub(crate) flushes: Option<u64>,
}

impl Counters {
    /// Of these processes, and of the device that holds this folder.
    pub(crate) fn now(processes: impl Iterator<Item = u32>, folder: &Path) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for process in processes {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
            for task in tasks.with_context(|| format!("the process {process} has ended"))? {
                let task = task?;
                let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
                // A thread may end in between.
                let Ok(schedstat) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
                let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
                threads.insert(id, Thread { cpu_ns: nth(&schedstat, 0).unwrap_or(0), switches: switches(&status) });
            }
        }
        Ok(Self { threads, flushes: flushes(folder)? })
    }

    /// The use since then. What a thread took that has ended since is not known.
    pub(crate) fn since(&self, before: &Self) -> Taken {
        let (mut cpu_ns, mut switches) = (0, 0);
        for (id, thread) in &self.threads {
            let begun = before.threads.get(id).copied().unwrap_or_default();
            cpu_ns += thread.cpu_ns.saturating_sub(begun.cpu_ns);
            switches += thread.switches.saturating_sub(begun.switches);
        }
        let flushes = self.flushes.zip(before.flushes).map(|(now, then)| now.saturating_sub(then));
        Taken { cpu_ns, switches, flushes }
    }
}

fn nth(text: &str, n: usize) -> Option<u64> {
    text.split_whitespace().nth(n)?.parse().ok()
}

fn switches(status: &str) -> u64 {
    let lines = status.lines().filter(|line| line.contains("_ctxt_switches:"));
    lines.filter_map(|line| nth(line, 1)).sum()
}

/// Of the whole device: a partition has no count of its own.
fn flushes(folder: &Path) -> Result<Option<u64>> {
    let device = std::fs::metadata(folder)?.dev();
    let device = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(mut device) = Path::new(&device).canonicalize() else { return Ok(None) };
    if device.join("partition").exists() {
        device.pop();
    }
    Ok(nth(&std::fs::read_to_string(device.join("stat"))?, FLUSHES_FIELD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_the_difference_and_counts_threads_that_were_begun_in_between() {
        let counters = |threads: &[(u32, u64, u64)], flushes| Counters {
            threads: threads
                .iter()
                .map(|(id, cpu_ns, switches)| (*id, Thread { cpu_ns: *cpu_ns, switches: *switches }))
                .collect(),
            flushes,
        };
        let before = counters(&[(1, 100, 5), (2, 50, 1)], Some(7));
        let after = counters(&[(1, 130, 6), (3, 20, 2)], Some(10));
        assert_eq!(after.since(&before), Taken { cpu_ns: 50, switches: 3, flushes: Some(3) });
        assert_eq!(counters(&[], None).since(&before).flushes, None);
    }

    #[test]
    fn the_kernel_says_what_a_process_has_taken() {
        let own = || Counters::now([std::process::id()].into_iter(), Path::new("/")).expect("it runs");
        let before = own();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let taken = own().since(&before);
        assert!(taken.cpu_ns > 1_000_000, "{taken:?}");
        assert_eq!(switches("Name:\tx\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n"), 7);
    }
}
