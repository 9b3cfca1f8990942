//! The condition of the log's backups, and the outcome of a restore.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::crd::status::BackupStatus;
use crate::observe::backups::Backups;

/// The condition.
pub(super) const BACKED_UP: &str = "BackedUp";
const FAILING: &str = "Failing";
const TOO_OLD: &str = "TooOld";
/// A backup is too old after so many intervals, and this: as the alert has it.
const INTERVALS: u64 = 10;
const BESIDE_MS: u64 = 15 * 60 * 1000;
/// Names and problems are cut to these lengths.
const NAME_CHARS_MAX: usize = 100;
const PROBLEM_CHARS_MAX: usize = 400;

/// The condition, a word for why, and words for people. `is_asked` says whether any are to be made.
pub(super) fn backed_up(is_asked: bool, backups: Option<&Backups>) -> (bool, &'static str, String) {
    if !is_asked {
        return (false, "NotAsked", "spec.backup names no store: no backups are made".to_owned());
    }
    let Some(Backups { newest, age_ms, interval_ms, problem }) = backups else {
        return (false, "NotTold", "no node that answers makes backups yet".to_owned());
    };
    if let Some(problem) = problem {
        return (false, FAILING, cut(problem, PROBLEM_CHARS_MAX));
    }
    let Some(newest) = newest else { return (false, "NoneYet", "no backup is made yet".to_owned()) };
    if *age_ms > interval_ms.saturating_mul(INTERVALS).saturating_add(BESIDE_MS) {
        let made = time(newest.made_ms).map_or_else(|| "long ago".to_owned(), |time| format!("at {}", time.0));
        return (false, TOO_OLD, format!("the newest backup was made {made}"));
    }
    (true, "UpToDate", format!("a backup is made every {:?}", Duration::from_millis(*interval_ms)))
}

/// Tells whether a person may have to look, for that reason.
pub(super) fn is_odd(reason: &str) -> bool {
    [FAILING, TOO_OLD].contains(&reason)
}

/// The outcome of a restore.
pub(super) fn report(backups: &Backups) -> BackupStatus {
    let newest = backups.newest.as_ref();
    BackupStatus {
        newest: newest.map(|newest| cut(&newest.id, NAME_CHARS_MAX)),
        end: newest.map(|newest| newest.end),
        time: newest.and_then(|newest| time(newest.made_ms)),
        problem: backups.problem.as_ref().map(|problem| cut(problem, PROBLEM_CHARS_MAX)),
    }
}

/// A moment as the API server keeps it, in seconds; none if no calendar has it.
fn time(ms: u64) -> Option<Time> {
    Timestamp::from_second(i64::try_from(ms / 1000).ok()?).ok().map(Time)
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use zue_proto::v1::BackupMade;

    use super::*;

    const MINUTE: u64 = 60_000;

    fn backups(age_ms: u64, problem: Option<&str>) -> Backups {
        let newest =
            BackupMade { id: "20261128T220000000Z-0000001d-ab".to_owned(), end: 700, made_ms: 1_795_860_000_500 };
        Backups { newest: Some(newest), age_ms, interval_ms: MINUTE, problem: problem.map(str::to_owned) }
    }

    #[test]
    fn a_backup_in_time_is_told_in_words_that_the_next_one_does_not_change() {
        let words = (true, "UpToDate", "a backup is made every 60s".to_owned());
        assert_eq!(backed_up(true, Some(&backups(0, None))), words);
        assert_eq!(backed_up(true, Some(&backups(25 * MINUTE, None))), words);
        assert!(!is_odd(words.1));
    }

    #[test]
    fn what_is_wrong_with_backups_is_told_and_is_odd() {
        let away = "orders-1: the store did not list logs within 90 s";
        for (backups, reason, message) in [
            (backups(0, Some(away)), "Failing", away),
            (backups(25 * MINUTE + 1, None), "TooOld", "the newest backup was made at 2026-11-28T10:00:00Z"),
        ] {
            assert_eq!(backed_up(true, Some(&backups)), (false, reason, message.to_owned()));
            assert!(is_odd(reason));
        }
        for (is_asked, known, expected) in
            [(false, None, "NotAsked"), (true, None, "NotTold"), (true, Some(Backups::default()), "NoneYet")]
        {
            let (holds, reason, _) = backed_up(is_asked, known.as_ref());
            assert_eq!((holds, reason), (false, expected));
            assert!(!is_odd(reason));
        }
    }

    #[test]
    fn a_restore_would_give_the_newest_backup() {
        let status = report(&backups(0, Some(&"ä".repeat(500))));
        assert_eq!((status.end, status.time.unwrap().0.as_second()), (Some(700), 1_795_860_000));
        assert_eq!(status.problem.unwrap().chars().count(), PROBLEM_CHARS_MAX);
        assert_eq!(report(&Backups::default()), BackupStatus::default());
    }
}
