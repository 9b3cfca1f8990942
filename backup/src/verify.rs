//! Checks whether a backup is whole: every byte of all that it names is read.

use ring::digest::{Context, SHA256};
use zue_core::{ClusterId, Offset};
use zue_log::{Until, cut_place};

use crate::error::{BackupError, Fault};
use crate::manifest::{Manifest, Part, Segment};
use crate::names::BackupId;
use crate::store::Store;
use crate::{hex, length};

/// The number of segments that are checked at a time.
const AT_ONCE: usize = 4;

/// An object that is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Its name in the store.
    pub object: String,
    /// The fault.
    pub fault: Fault,
}

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// The number of bytes that were read.
    pub bytes: u64,
    /// The fault.
    pub bad: Vec<Bad>,
}

/// Checks a backup: its manifest, the hash of each object, and every frame of the segments that they make.
///
/// # Errors
/// When the store fails.
pub async fn verify(store: &Store, cluster: ClusterId, id: &BackupId) -> Result<Verified, BackupError> {
    let manifest = match store.manifest(cluster, id).await {
        Err(BackupError::Object { object, fault }) => {
            return Ok(Verified { bytes: 0, bad: vec![Bad { object, fault }] });
        }
        manifest => manifest?,
    };
    let Manifest { segments, .. } = &manifest;
    let checked = Store::together(AT_ONCE, segments.iter().map(|segment| check(store, segment))).await?;
    let bad = checked.into_iter().flatten().collect();
    Ok(Verified { bytes: manifest.bytes(), bad })
}

/// The fault in a segment, if there is any.
async fn check(store: &Store, segment: &Segment) -> Result<Vec<Bad>, BackupError> {
    let (mut bytes, mut bad) = (Vec::with_capacity(length(segment.bytes)), Vec::new());
    for part in &segment.parts {
        let mut hash = Hash::new();
        let read = store.read(&part.object, part.to.saturating_sub(part.from), |_, piece| {
            hash.take(piece);
            bytes.extend_from_slice(piece);
            Ok(())
        });
        match read.await.and_then(|()| hash.check(part)) {
            Err(BackupError::Object { object, fault }) => bad.push(Bad { object, fault }),
            checked => checked?,
        }
    }
    if bad.is_empty() {
        let place = tokio::task::spawn_blocking(move || cut_place(&bytes, Until::Offset(zue_core::OFFSET_MAX))).await?;
        let object = segment.parts.first().map(|part| part.object.clone()).unwrap_or_default();
        match place {
            Ok(place) if place.tail.end == Offset(segment.end) => {}
            Ok(place) => {
                let what = format!("its records end at {}, and the manifest says {}", place.tail.end, segment.end);
                bad.push(Bad { object, fault: Fault::Manifest(what) });
            }
            Err(fault) => bad.push(Bad { object, fault: Fault::Segment(fault) }),
        }
    }
    Ok(bad)
}

/// The hash of an object, as its bytes come.
pub(crate) struct Hash(Context);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn take(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Fails unless these were the bytes of the part.
    pub(crate) fn check(self, part: &Part) -> Result<(), BackupError> {
        let found = hex(self.0.finish().as_ref());
        if found == part.sha256 {
            return Ok(());
        }
        let fault = Fault::Hash { expected: part.sha256.clone(), found };
        Err(BackupError::Object { object: part.object.clone(), fault })
    }
}
