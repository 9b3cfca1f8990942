//! By what this node elects where no controller does: as it travels, and as it is kept in `standby.yaml` of the data directory. Nothing
//! depends on that file: a node without it waits until it is told again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zue_core::control::Policy;
use zue_proto::v1;

use crate::inbox::Identity;
use crate::num::{length, narrow, wide};
use crate::state::{BadMember, Member};

const NAME: &str = "standby.yaml";
/// No node writes more.
const BYTES_MAX: u64 = 64 << 10;
/// The file is for its owner alone.
const MODE: u32 = 0o600;
/// The bounds of what is told, milliseconds: no wrong word lets nodes elect all the time.
const DETECTION_MS_MIN: u32 = 100;
const AFTER_MS_MIN: u32 = 100;

/// By what this node elects where no controller does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standby {
    pub(crate) policy: Policy,
    /// Who wins ties: a place among the members.
    pub(crate) preferred: usize,
    pub(crate) detection: Duration,
    pub(crate) after: Duration,
    /// The voters, in the order of their ordinals.
    pub(crate) members: Vec<Member>,
}

impl Standby {
    pub(crate) fn parse(wire: v1::Standby) -> Result<Self, BadMember> {
        let v1::Standby { static_leader, preferred, detection_ms, after_ms, members } = wire;
        let members = Member::parse_all(members, true)?;
        Ok(Self {
            policy: if static_leader { Policy::Static } else { Policy::Automatic },
            preferred: length(preferred).min(members.len().saturating_sub(1)),
            detection: Duration::from_millis(detection_ms.max(DETECTION_MS_MIN).into()),
            after: Duration::from_millis(after_ms.max(AFTER_MS_MIN).into()),
            members,
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
        }
    }
}

/// What a follower was told last.
#[derive(Debug)]
pub(crate) struct Telling {
    /// One of an earlier version does not understand it.
    understands: bool,
    sent: Option<Arc<Standby>>,
}

impl Telling {
    pub(crate) fn to(understands: bool) -> Self {
        Self { understands, sent: None }
    }

    /// What it is to be told.
    pub(crate) fn news(&mut self, standby: Option<&Arc<Standby>>) -> Option<v1::Standby> {
        let news = standby.filter(|standby| self.understands && self.sent.as_ref() != Some(*standby))?;
        self.sent = Some(Arc::clone(news));
        Some(news.to_wire())
    }
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    /// Whose it is: on a copy of the volume at another place the addresses are the original's, which a copy must not touch.
    home: String,
    static_leader: bool,
    preferred: u32,
    detection_ms: u32,
    after_ms: u32,
    members: Vec<KeptMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeptMember {
    replica: String,
    name: String,
    peer: String,
    client: String,
    /// Where its peer address was reached last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    dial: String,
}

fn home(identity: &Identity) -> String {
    format!("{} {} {}", identity.name, identity.client_address, identity.peer_address)
}

/// What was kept, if it was kept here.
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
    File::open(&path)?.take(BYTES_MAX).read_to_string(&mut text)?;
    let kept: Kept = serde_yaml::from_str(&text).map_err(io::Error::other)?;
    if kept.home != home(identity) {
        return Ok(None);
    }
    let member = |kept: KeptMember| {
        let id = u128::from_str_radix(&kept.replica, 16).unwrap_or_default();
        let KeptMember { name, peer: peer_address, client: client_address, dial: dial_address, .. } = kept;
        v1::Member { replica_id: zue_proto::id_bytes(id), name, peer_address, client_address, dial_address }
    };
    let Kept { static_leader, preferred, detection_ms, after_ms, members, .. } = kept;
    let members = members.into_iter().map(member).collect();
    let wire = v1::Standby { static_leader, preferred, detection_ms, after_ms, members };
    Standby::parse(wire).map(Some).map_err(io::Error::other)
}

/// Keeps it, in place of what was there.
pub(crate) fn keep(data_dir: &Path, identity: &Identity, standby: &Standby) -> io::Result<()> {
    let v1::Standby { static_leader, preferred, detection_ms, after_ms, .. } = standby.to_wire();
    let member = |member: &Member| KeptMember {
        replica: member.id.to_string(),
        name: member.name.clone(),
        peer: member.peer_address.clone(),
        client: member.client_address.clone(),
        dial: member.dial_address.map(|at| at.to_string()).unwrap_or_default(),
    };
    let members = standby.members.iter().map(member).collect();
    let kept = Kept { home: home(identity), static_leader, preferred, detection_ms, after_ms, members };
    let text = serde_yaml::to_string(&kept).map_err(io::Error::other)?;
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
    use zue_core::{Lineage, ReplicaId};

    use super::*;

    fn identity(port: u16) -> Identity {
        Identity {
            id: ReplicaId(7),
            name: "zue-0".to_owned(),
            client_address: format!("127.0.0.1:{port}"),
            peer_address: format!("127.0.0.1:{}", port + 1),
            lineage: Lineage::default(),
            durability: "sync",
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

    #[test]
    fn a_wrong_word_lets_no_node_elect_all_the_time() {
        let hasty = v1::Standby { detection_ms: 0, after_ms: 0, preferred: 9, ..standby().to_wire() };
        let parsed = Standby::parse(hasty).unwrap();
        assert_eq!((parsed.detection.as_millis(), parsed.after.as_millis(), parsed.preferred), (100, 100, 2));
    }
}
