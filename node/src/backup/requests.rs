//! News of the backups of this log, for whoever wants to know, and those that are asked for. Nobody waits here for the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zue_core::Offset;
use zue_proto::v1::asked_backup::Outcome;
use zue_proto::v1::{AskedBackup, BackupMade, BackupRunning, BackupStatus};

use crate::driver::clock::unix_ms;

/// The number of those that were asked for which are remembered.
const ASKED_MAX: usize = 16;
/// The longest name by which one is asked for.
const NAME_BYTES_MAX: usize = 64;

/// The desk where those who make backups and those who ask for them meet.
#[derive(Clone, Debug)]
pub(crate) struct BackupRequests {
    known: Arc<watch::Sender<BackupStates>>,
    interval: Duration,
}

#[derive(Clone, Default, Debug)]
struct BackupStates {
    newest: Option<BackupMade>,
    problem: String,
    /// The oldest first.
    asked: VecDeque<(String, Outcome)>,
}

fn is_running(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Running(_))
}

impl BackupStates {
    /// Looks how far the one of this name has come; asks for it, if nobody has.
    fn ask(&mut self, name: &str) -> Result<Outcome, String> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "the name of a backup that is asked for has 1 to {NAME_BYTES_MAX} bytes, not {}",
                name.len()
            ));
        }
        if let Some((_, outcome)) = self.asked.iter().find(|(asked, _)| asked == name) {
            return Ok(outcome.clone());
        }
        if self.asked.len() >= ASKED_MAX {
            let done = self.asked.iter().position(|(_, outcome)| !is_running(outcome));
            let done = done.ok_or_else(|| format!("{ASKED_MAX} backups wait already; ask again when one is made"))?;
            self.asked.remove(done);
        }
        let running = Outcome::Running(BackupRunning {});
        self.asked.push_back((name.to_owned(), running.clone()));
        Ok(running)
    }

    fn next(&self) -> Option<&String> {
        self.asked.iter().find(|(_, outcome)| is_running(outcome)).map(|(name, _)| name)
    }

    fn answer(&mut self, name: &str, outcome: Outcome) {
        if let Some((_, asked)) = self.asked.iter_mut().find(|(asked, _)| asked == name) {
            *asked = outcome;
        }
    }
}

/// Asks for a backup by a name, or how far the one of that name has come; where none are made, there is no desk.
///
/// # Errors
/// When none are made, that is no name, or too many wait.
pub(crate) fn ask(requests: Option<&BackupRequests>, name: &str) -> Result<AskedBackup, String> {
    let requests = requests.ok_or("this node makes no backups: its configuration names no store (backup.to)")?;
    let mut outcome = Err(String::new());
    requests.known.send_modify(|known| outcome = known.ask(name));
    outcome.map(|outcome| AskedBackup { outcome: Some(outcome) })
}

impl BackupRequests {
    /// The requests to a node that makes a backup once an `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { known: Arc::new(watch::Sender::default()), interval }
    }

    /// The name of the one that is to be made next, once there is one.
    pub(super) async fn next(&self) -> String {
        let mut known = self.known.subscribe();
        loop {
            if let Some(name) = known.borrow_and_update().next() {
                return name.clone();
            }
            // It ends with the desk, and so with whoever waits here.
            if known.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn answer(&self, name: &str, outcome: Result<BackupMade, String>) {
        let outcome = outcome.map_or_else(Outcome::Failed, Outcome::Made);
        self.known.send_modify(|known| known.answer(name, outcome));
    }

    /// Takes note of the newest backup in the store; none if there is none.
    pub(super) fn newest(&self, newest: Option<BackupMade>) {
        self.known.send_modify(|known| known.newest = newest);
    }

    /// Takes note of why the last try failed; empty if it did not.
    pub(super) fn problem(&self, problem: &str) {
        self.known.send_modify(|known| problem.clone_into(&mut known.problem));
    }

    /// The end of the newest backup; 0 while none is known.
    pub(super) fn end(&self) -> Offset {
        Offset(self.known.borrow().newest.as_ref().map_or(0, |newest| newest.end))
    }

    /// The news, for a controller.
    pub(crate) fn status(&self) -> BackupStatus {
        let known = self.known.borrow();
        let age_ms = known.newest.as_ref().map_or(0, |newest| unix_ms().saturating_sub(newest.made_ms));
        let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        BackupStatus { newest: known.newest.clone(), age_ms, interval_ms, problem: known.problem.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> BackupRequests {
        BackupRequests::new(Duration::from_mins(1))
    }

    fn asked(requests: &BackupRequests, name: &str) -> Outcome {
        ask(Some(requests), name).unwrap().outcome.unwrap()
    }

    #[tokio::test]
    async fn one_that_is_asked_for_again_is_not_made_twice() {
        let requests = requests();
        assert!(
            is_running(&asked(&requests, "a"))
                && is_running(&asked(&requests, "b"))
                && is_running(&asked(&requests, "a"))
        );
        assert_eq!(requests.next().await, "a");
        let made = BackupMade { id: "x".to_owned(), end: 7, made_ms: 1 };
        requests.answer("a", Ok(made.clone()));
        assert_eq!(requests.next().await, "b");
        requests.answer("b", Err("no room".to_owned()));
        assert_eq!(
            (asked(&requests, "a"), asked(&requests, "b")),
            (Outcome::Made(made), Outcome::Failed("no room".to_owned()))
        );
        assert!(tokio::time::timeout(Duration::ZERO, requests.next()).await.is_err(), "nothing is left to be made");
    }

    #[test]
    fn of_many_those_that_wait_are_kept_and_no_more_are_taken_than_can_be() {
        let requests = requests();
        let name = |n: usize| format!("{n}");
        (0..ASKED_MAX).for_each(|n| drop(asked(&requests, &name(n))));
        assert!(ask(Some(&requests), "more").unwrap_err().contains("16 backups wait"));
        requests.answer(&name(3), Err("x".to_owned()));
        assert!(is_running(&asked(&requests, "more")));
        assert!(ask(Some(&requests), "again").is_err());
        assert!((0..ASKED_MAX).filter(|n| *n != 3).all(|n| ask(Some(&requests), &name(n)).is_ok()));
    }

    #[test]
    fn a_name_has_a_bound() {
        let ask = |name: &str| ask(Some(&requests()), name);
        assert!(ask("").is_err() && ask(&"n".repeat(65)).is_err());
        assert!(ask(&"n".repeat(64)).is_ok());
    }
}
