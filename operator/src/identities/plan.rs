//! The plan of identities: what is to be issued, believed and given up, from what there is. Pure: the time comes in.
//!
//! An authority is replaced in steps. A new one is believed beside the one before; once every node has said so, it signs; and the one
//! before is believed for a while yet, for those who still show what it signed.

use std::time::{Duration, SystemTime};

use zue_proto::v1::StatusResponse;

use super::rotate::Rotate;
use crate::crd::security::TlsMode;

/// The time for which a new authority is told before it signs: clients read it later than the nodes do, from Secrets that are mounted.
pub const TOLD_FOR: Duration = Duration::from_mins(2);

/// The time for which an authority is believed after another one signs: what was given out is read again within minutes.
pub const FORMER_FOR: Duration = Duration::from_hours(1);

/// The mode of a cluster that is made without one.
pub const MODE_OF_NEW: TlsMode = TlsMode::Required;

/// The lifetime of certificates.
pub const LEAF_LIFETIME: Duration = Duration::from_hours(24 * 90);

/// The lifetime of authorities.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_hours(24 * 365 * 5);

/// A certificate, as far as it matters for what is to be done with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedCertificate {
    /// The authority that signed it, by hash.
    pub authority: String,
    /// The names in it, by hash.
    pub names: String,
    /// Its time.
    pub begun: SystemTime,
    /// Its end.
    pub ends: SystemTime,
}

/// A certificate as it is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DesiredCertificate<'a> {
    /// Signed by this authority.
    pub authority: &'a str,
    /// With these names, by hash.
    pub names: &'a str,
    /// True if a new one was asked for.
    pub anew: bool,
}

/// The certificate of an authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// In PEM.
    pub pem: String,
    /// Its hash.
    pub sha256: String,
    /// Its end.
    pub ends: SystemTime,
}

/// The authorities that everybody is told to believe, and the one that signs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    /// The authorities that are believed, the newest first.
    pub bundle: Vec<Certificate>,
    /// The one that signs, by hash.
    pub signs: String,
    /// Since when it does, or since when the newest is told.
    pub since: Option<SystemTime>,
}

/// The TLS that a node shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeTls {
    /// In which mode it runs.
    pub mode: TlsMode,
    /// The authorities that it believes for peers, by the hash of the bundle.
    pub peers: String,
    /// The same for clients.
    pub clients: String,
    /// Its certificate, by hash.
    pub certificate: String,
    /// True if it refuses what came last.
    pub has_problem: bool,
}

/// The facts that identities are made from, beside the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The identity that every node shows, by ordinal; none of those that do not say, and nothing if nobody has looked.
    pub shown: &'a [Option<NodeTls>],
    /// The replacements that were asked for.
    pub rotate: Rotate,
    /// The part that follows the name of a Service in full.
    pub services_suffix: &'a str,
    /// When it is.
    pub now: SystemTime,
}

/// The news that all nodes are known to have taken of the last that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TakenNews {
    /// The bundle.
    pub bundle: bool,
    /// The certificate of the authority that signs.
    pub certificate: bool,
}

impl NodeTls {
    /// Reads the status of a node. A node of an earlier version reports no TLS, and has none.
    pub fn of(status: &StatusResponse) -> Self {
        let plain = || Self {
            mode: TlsMode::Off,
            peers: String::new(),
            clients: String::new(),
            certificate: String::new(),
            has_problem: false,
        };
        status.tls.as_ref().map_or_else(plain, |tls| Self {
            // A mode that this version does not know is gone past by none.
            mode: TlsMode::named(&tls.mode).unwrap_or(TlsMode::Permissive),
            peers: tls.peer_bundle_sha256.clone(),
            clients: tls.client_bundle_sha256.clone(),
            certificate: tls.certificate_sha256.clone(),
            has_problem: !tls.problem.is_empty(),
        })
    }
}

/// Tells whether a certificate or authority of this time is to be replaced: after two thirds of it.
pub fn is_due(begun: SystemTime, ends: SystemTime, now: SystemTime) -> bool {
    let life = ends.duration_since(begun).unwrap_or_default();
    now >= begun + life / 3 * 2
}

/// Tells whether a certificate is to be issued, in place of this one if there is one.
pub fn issues(held: Option<&IssuedCertificate>, wanted: &DesiredCertificate<'_>, now: SystemTime) -> bool {
    held.is_none_or(|held| {
        wanted.anew
            || held.authority != wanted.authority
            || held.names != wanted.names
            // Of a clock that was ahead: nobody believes it yet.
            || held.begun > now
            || is_due(held.begun, held.ends, now)
    })
}

impl Trust {
    /// The trust that is to be told after this, where `newest` is the authority that there is now, and `taken` what the nodes have of this.
    /// `is_spent` is whether what was signed last has expired: then nobody believes it any more, and there is nothing to wait for.
    #[must_use]
    pub fn next(&self, newest: &Certificate, taken: TakenNews, is_spent: bool, now: SystemTime) -> Self {
        let former = || self.bundle.iter().filter(|one| one.sha256 != newest.sha256 && one.ends > now).cloned();
        let all = || std::iter::once(newest.clone()).chain(former()).collect();
        let can_sign = self.bundle.iter().any(|one| one.sha256 == self.signs && one.ends > now);
        if self.signs.is_empty() || self.signs != newest.sha256 && (is_spent || !can_sign) {
            return Self { bundle: all(), signs: newest.sha256.clone(), since: Some(now) };
        }
        let is_believed = self.bundle.iter().any(|one| one.sha256 == newest.sha256);
        if !is_believed {
            return Self { bundle: all(), since: Some(now), ..self.clone() };
        }
        let stands_for = |time| self.since.is_none_or(|since| now.duration_since(since).is_ok_and(|ago| ago >= time));
        if self.signs != newest.sha256 {
            if taken.bundle && stands_for(TOLD_FOR) {
                return Self { signs: newest.sha256.clone(), since: Some(now), ..self.clone() };
            }
            return self.clone();
        }
        if self.bundle.len() > 1 && taken.bundle && taken.certificate && stands_for(FORMER_FOR) {
            return Self { bundle: vec![newest.clone()], ..self.clone() };
        }
        self.clone()
    }

    /// The bundle in PEM.
    pub fn pem(&self) -> String {
        self.bundle.iter().map(|one| one.pem.as_str()).collect()
    }
}

/// The mode that a cluster is in next. `current` is none for one that is being made. It changes only to one that goes together with
/// what every node runs: `nodes` has the mode of each, or none where it did not say.
pub fn mode(wished: Option<TlsMode>, current: Option<TlsMode>, nodes: &[Option<TlsMode>]) -> TlsMode {
    let Some(current) = current else { return wished.unwrap_or(MODE_OF_NEW) };
    let wished = wished.unwrap_or(current);
    let next = match (current, wished) {
        (TlsMode::Off, TlsMode::Required) | (TlsMode::Required, TlsMode::Off) => TlsMode::Permissive,
        _ => wished,
    };
    let goes_with = |node: &Option<TlsMode>| node.is_some_and(|node| node == next || node == TlsMode::Permissive);
    let all_go_with = !nodes.is_empty() && nodes.iter().all(goes_with);
    if next == TlsMode::Permissive || all_go_with { next } else { current }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (days + 10_000)
    }

    fn authority(name: &str) -> Certificate {
        Certificate { pem: format!("{name}\n"), sha256: name.to_owned(), ends: at(1000) }
    }

    fn held() -> IssuedCertificate {
        IssuedCertificate { authority: "a".to_owned(), names: "n".to_owned(), begun: at(0), ends: at(90) }
    }

    const WANTED: DesiredCertificate<'static> = DesiredCertificate { authority: "a", names: "n", anew: false };

    #[test]
    fn a_certificate_is_replaced_after_two_thirds_of_its_life_or_when_asked_or_when_it_says_something_else() {
        let issued = |wanted: DesiredCertificate<'_>, day| issues(Some(&held()), &wanted, at(day));
        assert_eq!([0, 59, 60, 200].map(|day| issued(WANTED, day)), [false, false, true, true]);
        assert!(issued(DesiredCertificate { anew: true, ..WANTED }, 1));
        assert!(issued(DesiredCertificate { names: "m", ..WANTED }, 1));
        assert!(issued(DesiredCertificate { authority: "b", ..WANTED }, 1));
        assert!(issues(None, &WANTED, at(0)));
        let early = IssuedCertificate { begun: at(10), ends: at(100), ..held() };
        assert!(issues(Some(&early), &WANTED, at(9)), "of a clock that was ahead");
    }

    #[test]
    fn an_authority_signs_only_once_all_believe_it_and_the_one_before_is_believed_for_a_while_yet() {
        const ALL: TakenNews = TakenNews { bundle: true, certificate: true };
        const NONE: TakenNews = TakenNews { bundle: false, certificate: false };
        const BUNDLE: TakenNews = TakenNews { bundle: true, certificate: false };
        let next = |trust: &Trust, newest, taken, at| trust.next(&authority(newest), taken, false, at);
        let first = next(&Trust::default(), "a", NONE, at(0));
        assert_eq!((first.pem().as_str(), first.signs.as_str()), ("a\n", "a"));
        assert_eq!(next(&first, "a", ALL, at(1)), first);
        // A new one is believed first, beside the other, for as long as not all have said so, and until clients have read it.
        let told = next(&first, "b", ALL, at(10));
        assert_eq!((told.pem().as_str(), told.signs.as_str()), ("b\na\n", "a"));
        assert_eq!(next(&told, "b", NONE, at(20)), told);
        assert_eq!(next(&told, "b", ALL, at(10) + TOLD_FOR / 2), told);
        let signing = next(&told, "b", BUNDLE, at(20));
        assert_eq!((signing.pem().as_str(), signing.signs.as_str()), ("b\na\n", "b"));
        assert_eq!(next(&signing, "b", ALL, at(20) + FORMER_FOR / 2), signing);
        assert_eq!(next(&signing, "b", NONE, at(21)), signing, "not all have said so");
        assert_eq!(next(&signing, "b", BUNDLE, at(21)), signing, "not all show what it signed");
        assert_eq!(next(&signing, "b", ALL, at(20) + FORMER_FOR).pem(), "b\n");
        // Another one before the first was taken: what signed goes on being believed.
        let again = next(&told, "c", ALL, at(11));
        assert_eq!((again.pem().as_str(), again.signs.as_str()), ("c\nb\na\n", "a"));
    }

    #[test]
    fn an_authority_that_is_worth_nothing_any_more_is_not_waited_for() {
        let none = TakenNews::default();
        let first = Trust::default().next(&authority("a"), none, false, at(0));
        let expired = first.next(&authority("b"), none, false, at(2000));
        assert_eq!((expired.pem().as_str(), expired.signs.as_str()), ("b\n", "b"), "the former has expired");
        let told = first.next(&authority("b"), none, false, at(10));
        let spent = told.next(&authority("b"), none, true, at(11));
        assert_eq!((spent.pem().as_str(), spent.signs.as_str()), ("b\na\n", "b"), "what it signed has expired");
        assert_eq!(first.next(&authority("a"), none, true, at(100)), first, "the newest signs already");
    }

    #[test]
    fn a_new_cluster_is_in_the_mode_that_it_asks_for_and_one_from_before_stays_as_it_is() {
        use TlsMode::{Off, Permissive, Required};
        assert_eq!(mode(None, None, &[]), Required, "closed, unless something else is asked for");
        for wished in [Required, Permissive, Off] {
            assert_eq!(mode(Some(wished), None, &[]), wished, "at once, not over Permissive");
        }
        assert_eq!(mode(None, Some(Off), &[Some(Off); 3]), Off);
        assert_eq!(mode(None, Some(Permissive), &[Some(Permissive); 3]), Permissive);
        assert_eq!(mode(None, Some(Required), &[]), Required);
    }

    #[test]
    fn a_running_cluster_is_moved_over_permissive_and_never_past_a_node_that_cannot_follow() {
        use TlsMode::{Off, Permissive, Required};
        let off = Some(Off);
        assert_eq!(mode(Some(Required), off, &[off; 3]), Permissive);
        assert_eq!(mode(Some(Required), Some(Permissive), &[off, Some(Permissive)]), Permissive);
        assert_eq!(
            mode(Some(Required), Some(Permissive), &[Some(Permissive), None]),
            Permissive,
            "one does not answer"
        );
        assert_eq!(mode(Some(Required), Some(Permissive), &[Some(Permissive); 3]), Required);
        assert_eq!(mode(Some(Off), Some(Required), &[Some(Required); 3]), Permissive);
        assert_eq!(mode(Some(Off), Some(Permissive), &[Some(Permissive), Some(Required)]), Permissive);
        assert_eq!(mode(Some(Off), Some(Permissive), &[Some(Permissive), off]), Off);
        assert_eq!(mode(Some(Required), Some(Permissive), &[]), Permissive, "nothing is known of the nodes");
    }
}
