//! The terms by which this node elects while no controller does: on the wire, and in `standby.yaml` of the data directory. Nothing is
//! lost with that file: a node without it waits until it is told the terms again.

pub(crate) mod elect;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zue_controller::{DETECTION_TIME_MAX, DETECTION_TIME_MIN, STANDBY_AFTER_MAX, STANDBY_AFTER_MIN};
use zue_core::control::Policy;
use zue_core::{Epoch, ReplicaId, VOTERS_MAX};
use zue_engine::standby;
use zue_proto::v1;
use zue_settings::HEARTBEATS_MIN;

use crate::driver::member::{BadMember, Identity, Member};
use crate::num::{length, narrow, wide};

/// The file in the data directory that keeps it.
pub const NAME: &str = "standby.yaml";
/// No node writes more.
const BYTES_MAX: u64 = 64 << 10;
/// The file is for its owner alone.
const MODE: u32 = 0o600;
/// The terms by which this node elects while no controller does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standby {
    pub(crate) policy: Policy,
    /// The member that wins ties, by its place.
    pub(crate) preferred: usize,
    pub(crate) detection: Duration,
    pub(crate) after: Duration,
    /// The voters, in the order of their ordinals.
    pub(crate) members: Vec<Member>,
    /// The epoch whose leader was told so by a controller.
    pub(crate) epoch: Epoch,
}

/// Terms that a node refuses: wrong ones could have it elect all the time, or never, or fill its disk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadStandby {
    #[error(transparent)]
    Member(#[from] BadMember),
    #[error("standby.members names {0} voters; it must be from 1 to {VOTERS_MAX}")]
    Count(usize),
    #[error("standby.members names {0} twice")]
    Twice(ReplicaId),
    #[error(
        "standby.preferred is {preferred}; it must be one of the {members} members, counted from 0, or {members} where the one to lead does not vote"
    )]
    Preferred { preferred: u32, members: usize },
    #[error("standby.{field} is {ms} ms; it must be from {min_ms} to {max_ms} ms{why}")]
    Time { field: &'static str, ms: u128, min_ms: u128, max_ms: u128, why: &'static str },
}

fn within(
    field: &'static str,
    ms: u32,
    (min, max): (Duration, Duration),
    why: &'static str,
) -> Result<Duration, BadStandby> {
    let time = Duration::from_millis(ms.into());
    if time < min || time > max {
        let [ms, min_ms, max_ms] = [time, min, max].map(|time| time.as_millis());
        return Err(BadStandby::Time { field, ms, min_ms, max_ms, why });
    }
    Ok(time)
}

impl Standby {
    /// Checked by a node that lets itself be heard that often.
    pub(crate) fn parse(wire: v1::Standby, heartbeat: Duration) -> Result<Self, BadStandby> {
        let v1::Standby { static_leader, preferred, detection_ms, after_ms, members, epoch } = wire;
        if members.is_empty() || members.len() > VOTERS_MAX {
            return Err(BadStandby::Count(members.len()));
        }
        let members = Member::parse_all(members, true)?;
        let mut rest = members.as_slice();
        while let Some((member, others)) = rest.split_first() {
            if others.iter().any(|other| other.id == member.id) {
                return Err(BadStandby::Twice(member.id));
            }
            rest = others;
        }
        if length(preferred) > members.len() {
            return Err(BadStandby::Preferred { preferred, members: members.len() });
        }
        let detection_min = DETECTION_TIME_MIN.max(heartbeat * HEARTBEATS_MIN);
        let why = ", and at least three times this node's replication.heartbeatInterval";
        let after_within = (STANDBY_AFTER_MIN, STANDBY_AFTER_MAX);
        Ok(Self {
            policy: if static_leader { Policy::Static } else { Policy::Automatic },
            preferred: length(preferred),
            detection: within("detection_ms", detection_ms, (detection_min, DETECTION_TIME_MAX), why)?,
            after: within("after_ms", after_ms, after_within, "")?,
            members,
            epoch: Epoch(epoch),
        })
    }

    pub(crate) fn to_wire(&self) -> v1::Standby {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        v1::Standby {
            static_leader: self.policy == Policy::Static,
            preferred: narrow(wide(self.preferred)),
            detection_ms: ms(self.detection),
            after_ms: ms(self.after),
            members: self.members.iter().map(Member::to_wire).collect(),
            epoch: self.epoch.0,
        }
    }
}

impl standby::Standby for Standby {
    fn policy(&self) -> Policy {
        self.policy
    }

    fn preferred(&self) -> usize {
        self.preferred
    }

    fn detection_ms(&self) -> u64 {
        u64::try_from(self.detection.as_millis()).unwrap_or(u64::MAX)
    }

    fn members(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.iter().map(|member| member.id)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn told_in(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StandbyFile {
    /// The identity of the node that wrote it. A copy of the volume elsewhere must not use the addresses: they are the original's.
    home: String,
    static_leader: bool,
    preferred: u32,
    detection_ms: u32,
    after_ms: u32,
    members: Vec<KeptMember>,
    #[serde(default)]
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeptMember {
    replica: String,
    name: String,
    peer: String,
    client: String,
    /// The place where its peer address was reached last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    dial: String,
}

fn home(identity: &Identity) -> String {
    format!("{} {} {}", identity.name, identity.client_address, identity.peer_address)
}

fn check_length(text: &str) -> io::Result<()> {
    if wide(text.len()) > BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than the limit of {BYTES_MAX} bytes")));
    }
    Ok(())
}

/// The terms that were kept, if they were kept here.
///
/// # Errors
/// The file cannot be read, or is not what a node writes. Nothing is lost: the node is told again.
pub(crate) fn load(data_dir: &Path, identity: &Identity) -> io::Result<Option<Standby>> {
    let path = data_dir.join(NAME);
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Err(io::Error::other("it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let mut text = String::new();
    File::open(&path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    check_length(&text)?;
    let kept: StandbyFile = serde_yaml::from_str(&text).map_err(io::Error::other)?;
    if kept.home != home(identity) {
        return Ok(None);
    }
    let member = |kept: KeptMember| {
        let id = u128::from_str_radix(&kept.replica, 16).unwrap_or_default();
        let KeptMember { name, peer: peer_address, client: client_address, dial: dial_address, .. } = kept;
        v1::Member { replica_id: zue_proto::id_bytes(id), name, peer_address, client_address, dial_address }
    };
    let StandbyFile { static_leader, preferred, detection_ms, after_ms, members, epoch, .. } = kept;
    let members = members.into_iter().map(member).collect();
    let wire = v1::Standby { static_leader, preferred, detection_ms, after_ms, members, epoch };
    Standby::parse(wire, identity.heartbeat).map(Some).map_err(io::Error::other)
}

/// Keeps it, in place of what was there.
pub(crate) fn keep(data_dir: &Path, identity: &Identity, standby: &Standby) -> io::Result<()> {
    let v1::Standby { static_leader, preferred, detection_ms, after_ms, epoch, .. } = standby.to_wire();
    let member = |member: &Member| KeptMember {
        replica: member.id.to_string(),
        name: member.name.clone(),
        peer: member.peer_address.clone(),
        client: member.client_address.clone(),
        dial: member.dial_address.map(|at| at.to_string()).unwrap_or_default(),
    };
    let members = standby.members.iter().map(member).collect();
    let kept = StandbyFile { home: home(identity), static_leader, preferred, detection_ms, after_ms, members, epoch };
    let text = serde_yaml::to_string(&kept).map_err(io::Error::other)?;
    check_length(&text)?;
    let (path, new): (PathBuf, PathBuf) = (data_dir.join(NAME), data_dir.join(format!("{NAME}.new")));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use zue_core::Lineage;

    use super::*;

    fn identity(port: u16) -> Identity {
        Identity {
            id: ReplicaId(7),
            name: "zue-0".to_owned(),
            client_address: format!("127.0.0.1:{port}"),
            peer_address: format!("127.0.0.1:{}", port + 1),
            lineage: Lineage::default(),
            durability: "sync",
            heartbeat: Duration::from_millis(100),
        }
    }

    fn standby() -> Standby {
        let member = |id: u128| Member {
            id: ReplicaId(id),
            name: format!("zue-{id}"),
            peer_address: format!("127.0.0.1:1{id}"),
            client_address: format!("127.0.0.1:2{id}"),
            // Of one it is not known.
            dial_address: (id != 2).then(|| ([10, 0, 0, 1], 9441).into()),
            voter: true,
        };
        Standby {
            policy: Policy::Static,
            preferred: 1,
            detection: Duration::from_millis(700),
            after: Duration::from_secs(2),
            members: [1, 2, 3].map(member).to_vec(),
            epoch: Epoch(4),
        }
    }

    #[test]
    fn what_is_kept_is_found_again_at_its_place_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path(), &identity(9440)).unwrap(), None);
        keep(dir.path(), &identity(9440), &Standby { preferred: 0, ..standby() }).unwrap();
        keep(dir.path(), &identity(9440), &standby()).unwrap();
        assert_eq!(load(dir.path(), &identity(9440)).unwrap(), Some(standby()));
        assert_eq!(load(dir.path(), &identity(9540)).unwrap(), None, "a copy under other ports");
    }

    #[test]
    fn what_no_node_writes_is_refused_and_a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "home: a", "\0\0\0", &"a".repeat(1 << 20)] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert!(load(dir.path(), &identity(9440)).is_err(), "{}", text.len());
        }
        fs::remove_file(dir.path().join(NAME)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join(NAME)).status().unwrap();
        assert!(made.success());
        assert!(load(dir.path(), &identity(9440)).is_err());
    }

    /// A fault, and the error's words for it.
    type Case<'a> = (&'a dyn Fn(&mut v1::Standby), &'a [&'a str]);

    #[test]
    fn what_is_told_is_within_its_bounds_or_refused_with_the_field_the_value_and_the_limit() {
        let good = || standby().to_wire();
        let of = |change: &dyn Fn(&mut v1::Standby)| {
            let mut wire = good();
            change(&mut wire);
            Standby::parse(wire, Duration::from_millis(200)).map(drop).map_err(|error| error.to_string())
        };
        for [detection_ms, after_ms] in [[600, 200], [60_000, 3_600_000]] {
            of(&|wire| (wire.detection_ms, wire.after_ms) = (detection_ms, after_ms)).unwrap();
        }
        let long = "a".repeat(254);
        let cases: [Case<'_>; 15] = [
            (&|wire| wire.detection_ms = 0, &["detection_ms is 0 ms", "from 600 to 60000 ms", "heartbeatInterval"]),
            (&|wire| wire.detection_ms = 599, &["detection_ms is 599 ms", "from 600 to"]),
            (&|wire| wire.detection_ms = u32::MAX, &["detection_ms is 4294967295 ms", "to 60000 ms"]),
            (&|wire| wire.after_ms = 199, &["after_ms is 199 ms", "from 200 to 3600000 ms"]),
            (&|wire| wire.after_ms = 3_600_001, &["after_ms is 3600001 ms", "from 200 to 3600000 ms"]),
            (&|wire| wire.preferred = 4, &["preferred is 4", "3 members"]),
            (&|wire| wire.members.clear(), &["members names 0 voters", "from 1 to 9"]),
            (&|wire| wire.members = vec![wire.members[0].clone(); 10], &["members names 10 voters", "from 1 to 9"]),
            (&|wire| wire.members[2] = wire.members[0].clone(), &["members names", "twice"]),
            (&|wire| wire.members[1].name.clone_from(&long), &["member", "253 bytes"]),
            (&|wire| wire.members[1].name = "a b".to_owned(), &["member", "\"a b\"", "without spaces"]),
            (&|wire| wire.members[1].name = "a\nb".to_owned(), &["member", "a\\nb"]),
            (&|wire| wire.members[1].peer_address = format!("{long}:1"), &["member", "\"zue-2\"", "253 bytes of host"]),
            (&|wire| wire.members[1].client_address = "a\tb:1".to_owned(), &["member", "client address", "a\\tb"]),
            (&|wire| wire.members[1].replica_id = vec![1].into(), &["replica_id is 1 bytes long"]),
        ];
        for (change, expected) in cases {
            let error = of(change).unwrap_err();
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_is_too_long_is_neither_kept_nor_found() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), &identity(9440), &standby()).unwrap();
        let mut long = standby();
        long.members[0].name = "a".repeat(64 << 10);
        assert!(keep(dir.path(), &identity(9440), &long).unwrap_err().to_string().contains("65536"));
        assert_eq!(load(dir.path(), &identity(9440)).unwrap(), Some(standby()), "what was there stays");
        let mut text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        text.push_str("# ");
        text.push_str(&"a".repeat(64 << 10));
        fs::write(dir.path().join(NAME), text).unwrap();
        assert!(load(dir.path(), &identity(9440)).unwrap_err().to_string().contains("65536"));
    }
}
