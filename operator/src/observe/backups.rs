//! The nodes' word on the backups of their log, as one. Pure.

use zue_proto::v1::{BackupMade, BackupStatus, StatusResponse};

/// The backups, as far as they are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Backups {
    /// The newest one, whoever made it and whoever tells.
    pub newest: Option<BackupMade>,
    /// The age of that, milliseconds.
    pub age_ms: u64,
    /// The interval at which one is to be made, milliseconds.
    pub interval_ms: u64,
    /// The replica that fails to make them, and why.
    pub problem: Option<String>,
}

/// Puts together what is said by those who make backups, each beside its name; none while nobody does.
pub(super) fn backups<'a>(said: impl Iterator<Item = (&'a str, &'a StatusResponse)>) -> Option<Backups> {
    let said: Vec<(&str, &BackupStatus)> =
        said.filter_map(|(name, status)| Some((name, status.backup.as_ref()?))).collect();
    let made_ms = |status: &BackupStatus| status.newest.as_ref().map(|newest| newest.made_ms);
    let (_, newest) = said.iter().max_by_key(|(_, status)| made_ms(status))?;
    let problem = said.iter().find(|(_, status)| !status.problem.is_empty());
    Some(Backups {
        newest: newest.newest.clone(),
        age_ms: newest.age_ms,
        interval_ms: said.iter().map(|(_, status)| status.interval_ms).max().unwrap_or_default(),
        problem: problem.map(|(name, status)| format!("{name}: {}", status.problem)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(end: Option<u64>, problem: &str) -> StatusResponse {
        let newest = end.map(|end| BackupMade { id: format!("b{end}"), end, made_ms: end });
        let backup = BackupStatus { newest, age_ms: 5, interval_ms: 60_000, problem: problem.to_owned() };
        StatusResponse { backup: Some(backup), ..StatusResponse::default() }
    }

    fn all(said: &[StatusResponse]) -> Option<Backups> {
        let names = ["a", "b", "c"];
        backups(names.into_iter().zip(said))
    }

    #[test]
    fn the_newest_backup_is_told_whoever_knows_of_it_and_so_is_who_fails() {
        let told = all(&[of(Some(7), ""), of(None, "the store is away"), of(Some(9), "")]).unwrap();
        assert_eq!(told.newest.unwrap().end, 9);
        assert_eq!((told.age_ms, told.interval_ms), (5, 60_000));
        assert_eq!(told.problem.as_deref(), Some("b: the store is away"));
    }

    #[test]
    fn nodes_that_make_none_say_nothing_of_them() {
        assert_eq!(all(&[StatusResponse::default(), StatusResponse::default()]), None);
        assert_eq!(all(&[of(None, ""), StatusResponse::default()]).unwrap().newest, None);
    }
}
