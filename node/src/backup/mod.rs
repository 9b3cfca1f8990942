//! Continuous backups: a task that makes one when it is this replica's turn. A store that is away delays backups and nothing else:
//! nobody waits for this task, it holds no lock of the log, and of the log's bytes it maps one object's at a time.

mod hold;
mod requests;
mod whose;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zue_backup::{BackupError, BackupId, Keep, Kind, Made, Manifest, Pace, Source, Store};
use zue_core::ClusterId;
use zue_engine::room::full;
use zue_log::{OsDisk, Reader};
use zue_proto::v1::BackupMade;
use zue_settings::{BackupSettings, NodeConfig, Time};

use crate::driver::clock::unix_ms;
use crate::driver::handle::Handle;
use crate::metrics::Metrics;
use crate::num::gauge;

pub(crate) use hold::Hold;
pub(crate) use requests::{BackupRequests, ask};

/// The interval at which objects that are not to be kept are removed.
const TIDY_EVERY: Duration = Duration::from_mins(10);
/// The number of looks within an interval at whether a backup is due.
const LOOKS: u32 = 4;

/// Makes backups of a node's log.
pub(crate) struct Backups {
    settings: BackupSettings,
    handle: Handle,
    reader: Reader<OsDisk>,
    disk: OsDisk,
    metrics: Arc<Metrics>,
    requests: BackupRequests,
    /// When this replica began to look, ms since the Unix epoch: those before it in the row have their time from then on.
    begun_ms: u64,
    /// When it was last looked for what is to be removed.
    tidied_ms: u64,
    /// Why the last turn failed.
    failed: Option<String>,
}

impl Backups {
    /// The backups of a node with these settings; none if it is to make none.
    pub(crate) fn new(
        config: &NodeConfig,
        handle: &Handle,
        reader: Reader<OsDisk>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Option<Self>> {
        let settings = config.backup.clone();
        if settings.to.is_none() {
            return Ok(None);
        }
        metrics.backup_interval.set(gauge(settings.interval.0.as_secs()));
        let disk = OsDisk::read_only(&config.data_dir)?;
        Ok(Some(Self {
            handle: handle.clone(),
            reader,
            disk,
            metrics: Arc::clone(metrics),
            requests: BackupRequests::new(settings.interval.0),
            settings,
            begun_ms: unix_ms(),
            tidied_ms: 0,
            failed: None,
        }))
    }

    /// The desk where backups are asked for, and news of them kept.
    pub(crate) fn requests(&self) -> BackupRequests {
        self.requests.clone()
    }

    /// The hold that backups have on retention and trims, if those are to wait for them.
    pub(crate) fn hold(&self) -> Option<Hold> {
        let hold = || Hold::new(self.requests.clone(), self.handle.view.clone());
        self.settings.hold_trim.then(hold)
    }

    /// Goes on until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            let mut ticks = interval(self.settings.interval.0 / LOOKS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let asked = tokio::select! {
                    _ = ticks.tick() => None,
                    name = self.requests.next() => Some(name),
                };
                let made = match &asked {
                    None => self.turn().await,
                    Some(name) => self.asked(name).await,
                };
                self.tell(made);
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// The cluster, and this replica's place among those that make its backups; none of one that has nothing to back up.
    fn place(&self) -> Option<(ClusterId, u32)> {
        let view = self.handle.view.borrow();
        view.cluster.zip(whose::place(self.handle.identity.id, &view))
    }

    /// Makes a backup that was asked for by this name, and answers.
    async fn asked(&mut self, name: &str) -> Result<Option<Made>, BackupError> {
        let Some((cluster, _)) = self.place() else {
            self.requests
                .answer(name, Err("this replica follows no leader, and does not lead: ask another".to_owned()));
            return Ok(None);
        };
        let made = self.make_now(cluster).await;
        self.requests.answer(name, made.as_ref().map(known).map_err(|error| full(error)));
        made.map(Some)
    }

    async fn make_now(&mut self, cluster: ClusterId) -> Result<Made, BackupError> {
        let store = self.store()?;
        let newest = newest_whole(&store, cluster).await?;
        self.make(&store, cluster, (Kind::OnDemand, newest.map(|(_, id)| id))).await
    }

    /// Makes a backup if one is due here, and learns what there is.
    async fn turn(&mut self) -> Result<Option<Made>, BackupError> {
        let Some((cluster, place)) = self.place() else { return Ok(None) };
        let store = self.store()?;
        let newest = newest_whole(&store, cluster).await?;
        let mut sign_ms = newest.as_ref().map_or(0, |(manifest, _)| manifest.made_ms);
        self.knows(newest.as_ref().map(|(manifest, id)| made_of(id, manifest)));
        let due_ms = u64::try_from(whose::due_after(place, self.settings.interval.0).as_millis()).unwrap_or(u64::MAX);
        let is_due = move |sign_ms: u64| unix_ms().saturating_sub(sign_ms) >= due_ms;
        if !is_due(sign_ms) {
            return Ok(None);
        }
        if place > 0 {
            // Somebody before this one in the row may be in the middle of a long one.
            sign_ms = sign_ms.max(newest_part_ms(&store, cluster).await?).max(self.begun_ms);
            if !is_due(sign_ms) {
                return Ok(None);
            }
        }
        let made = self.make(&store, cluster, (Kind::Continuous, newest.map(|(_, id)| id))).await?;
        self.tidy(&store, cluster).await?;
        Ok(Some(made))
    }

    fn store(&self) -> Result<Store, BackupError> {
        let BackupSettings { to, endpoint, region, .. } = &self.settings;
        let mut settings = Vec::new();
        if let Some(endpoint) = endpoint {
            settings.push(("endpoint", endpoint.as_str()));
            if endpoint.starts_with("http://") {
                settings.push(("allow_http", "true"));
            }
        }
        settings.extend(region.as_ref().map(|region| ("region", region.as_str())));
        // Made anew each time: credentials in files may have changed.
        Store::open_with(to.as_deref().unwrap_or_default(), &settings)
    }

    async fn make(
        &self,
        store: &Store,
        cluster: ClusterId,
        (kind, after): (Kind, Option<BackupId>),
    ) -> Result<Made, BackupError> {
        let disk = self.disk.clone();
        let compacted = tokio::task::spawn_blocking(move || zue_log::read_meta(&disk)).await??.compacted();
        let commit_end = self.handle.ends.borrow().readable();
        let (reader, replica) = (self.reader.clone(), self.handle.identity.id);
        let source = Source { reader, cluster, replica, commit_end, compacted };
        let mut pace = Pace::new(Some(self.settings.bytes_per_second.0));
        let made = zue_backup::make(store, &source, (kind, after, unix_ms()), &mut pace).await?;
        self.metrics.backups.inc();
        self.metrics.backup_uploaded_bytes.inc_by(made.uploaded);
        self.knows(Some(known(&made)));
        Ok(made)
    }

    async fn tidy(&mut self, store: &Store, cluster: ClusterId) -> Result<(), BackupError> {
        let now_ms = unix_ms();
        let every_ms = u64::try_from(TIDY_EVERY.as_millis()).unwrap_or(u64::MAX);
        if now_ms.saturating_sub(self.tidied_ms) < every_ms {
            return Ok(());
        }
        let keep = Keep { age_ms: self.settings.keep.map(Time::millis), count: None, thin: true };
        let (backups, objects) = store.tidy(cluster, keep, now_ms).await?;
        self.tidied_ms = now_ms;
        if backups + objects > 0 {
            tracing::info!(backups, objects, "removed backups that are not to be kept, and what only they needed");
        }
        Ok(())
    }

    /// The outcome of a restore, as far as this replica knows: when the newest backup was made, and where it ends.
    fn knows(&self, newest: Option<BackupMade>) {
        if let Some(BackupMade { end, made_ms, .. }) = &newest {
            self.metrics.backup_newest_time.set(gauge(made_ms / 1000));
            self.metrics.backup_newest_end.set(gauge(*end));
        }
        self.requests.newest(newest);
    }

    /// Says what came of a turn; of failures in a row each that is another.
    fn tell(&mut self, turn: Result<Option<Made>, BackupError>) {
        match turn {
            Ok(made) => {
                if let Some(Made { id, manifest, uploaded }) = made {
                    tracing::debug!(%id, end = manifest.end, uploaded, "made a backup");
                    if self.failed.is_some() {
                        tracing::info!(%id, end = manifest.end, "backups are made again");
                    }
                }
                self.failed = None;
                self.requests.problem("");
                self.metrics.backup_failing.set(0);
            }
            Err(error) => {
                self.metrics.backup_failures.with_label_values(&[error.reason()]).inc();
                self.metrics.backup_failing.set(1);
                let problem = full(&error);
                if self.failed.as_deref() != Some(&*problem) {
                    tracing::warn!(problem, "no backup could be made; appends go on, and it is tried again");
                }
                self.requests.problem(&problem);
                self.failed = Some(problem);
            }
        }
    }
}

/// The news of a backup that was made, for others.
fn known(made: &Made) -> BackupMade {
    made_of(&made.id, &made.manifest)
}

fn made_of(id: &BackupId, manifest: &Manifest) -> BackupMade {
    BackupMade { id: id.to_string(), end: manifest.end, made_ms: manifest.made_ms }
}

/// The newest backup whose manifest is whole: one that is damaged is no reason to make none any more.
async fn newest_whole(store: &Store, cluster: ClusterId) -> Result<Option<(Manifest, BackupId)>, BackupError> {
    for id in store.backups(cluster).await?.into_iter().rev() {
        match store.manifest(cluster, &id).await {
            Err(BackupError::Object { object, fault }) => tracing::debug!(object, %fault, "passed over a backup"),
            manifest => return Ok(Some((manifest?, id))),
        }
    }
    Ok(None)
}

/// When the newest object of a cluster's log was put into the store, ms since the Unix epoch; 0 if there is none.
async fn newest_part_ms(store: &Store, cluster: ClusterId) -> Result<u64, BackupError> {
    let found = store.parts(cluster).await?;
    Ok(found.iter().map(|found| found.put_ms).max().unwrap_or_default())
}
