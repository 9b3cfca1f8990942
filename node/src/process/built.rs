//! The parts of a node, put together: what shares what, and who is told by whom. Starts nothing but their threads and tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use zue_core::{Lineage, Offset, ReplicaId};
use zue_settings::NodeConfig;
use zue_settings::fixed::READS_BYTES_MAX;

use crate::backup::{BackupRequests, Backups, Hold};
use crate::config::convert::{maintenance_settings, record_limits};
use crate::driver::answers::{AnswerReceiver, answers};
use crate::driver::clock::SharedTime;
use crate::driver::handle::Handle;
use crate::driver::member::Identity;
use crate::driver::state::{Ends, ReplicaView};
use crate::driver::{Driver, Inbox, Parts, Published};
use crate::metrics::Metrics;
use crate::num::{length, narrow};
use crate::process::node::{Addresses, StartError, set_up};
use crate::process::open::Opened;
use crate::process::vital::Vitals;
use crate::replication::address_book::AddressBook;
use crate::replication::cache::TailCache;
use crate::replication::fetch::{FetchServer, Fetcher};
use crate::replication::peer::Peers;
use crate::replication::receiver::ReplicationService;
use crate::server::room::Room;
use crate::server::slots::Slots;
use crate::services::append::Appends;
use crate::services::control::ControlService;
use crate::services::log_service::LogService;
use crate::services::newcomers::Newcomers;
use crate::services::read::unfed_max;
use crate::services::watch::Sources;
use crate::standby::elect;
use crate::storage::{Around, Fetch, Storage};
use crate::tls::Security;

/// The number of messages of each kind that wait for the driver.
const INBOX_MAX: usize = 1024;

fn identity(config: &NodeConfig, addresses: Addresses, id: ReplicaId, lineage: Lineage) -> Identity {
    Identity {
        id,
        name: config.name.clone(),
        client_address: config.advertise.client.clone().unwrap_or_else(|| addresses.client.to_string()),
        peer_address: addresses.peer.to_string(),
        lineage,
        durability: config.log.durability.name(),
        heartbeat: config.replication.heartbeat(),
    }
}

/// The parts of a node, put together.
pub(crate) struct Built {
    pub(crate) driver: Driver,
    /// To run on the threads of the clients.
    pub(crate) answers: AnswerReceiver,
    pub(crate) handle: Handle,
    pub(crate) log: LogService,
    pub(crate) replication: ReplicationService,
    pub(crate) control: ControlService,
    /// If backups are to be made.
    pub(crate) backups: Option<Backups>,
}

impl Built {
    pub(crate) fn new(
        config: &NodeConfig,
        addresses: Addresses,
        opened: Opened,
        metrics: &Arc<Metrics>,
        security: &Security,
        (stop_calls, vitals): (&CancellationToken, &Vitals),
    ) -> Result<Self, StartError> {
        let Opened { log, replica } = opened;
        let identity = identity(config, addresses, replica.id(), log.meta().lineage());
        let (requests, requests_in) = mpsc::channel(INBOX_MAX);
        let (facts, facts_in) = mpsc::channel(INBOX_MAX);
        let (disk_facts, disk) = mpsc::channel(INBOX_MAX);
        let (ends, ends_seen) = watch::channel(Ends { log_start: log.log_start(), ..Ends::default() });
        let (readable, readable_seen) = watch::channel(Offset::default());
        let (view, view_seen) = watch::channel(ReplicaView::default());
        let handle = Handle {
            identity: Arc::new(identity),
            requests,
            facts,
            ends: ends_seen,
            readable: readable_seen,
            view: view_seen,
            sessions: Arc::new(AtomicU64::new(1)),
            time: SharedTime::default(),
        };
        let (reader, last_timestamp_ms) = (log.reader(), log.last_timestamp_ms());
        let replication = config.replication;
        let cache = Arc::new(TailCache::new(replication.inline_catchup_bytes.length()));
        let peers = peers(config, (&reader, &cache), metrics, security);
        let asking = Fetcher::spawn(&handle, &peers.address_book, (stop_calls, vitals));
        let backups = Backups::new(config, &handle, reader.clone(), metrics).map_err(set_up)?;
        let (asked, hold) = (backups.as_ref().map(Backups::requests), backups.as_ref().and_then(Backups::hold));
        let around = around(config, &handle, asking, hold.clone());
        let storage = Storage::spawn(log, &config.name, disk_facts, Arc::clone(metrics), around).map_err(set_up)?;
        let who = (&handle.identity, addresses.peer);
        let standing = elect::begin(&config.data_dir, who, (vitals, stop_calls), security.dial());
        let (answer_sender, answers) = answers();
        let parts = Parts {
            storage,
            handle: handle.clone(),
            inbox: Inbox { requests: requests_in, facts: facts_in, disk },
            published: Published { ends, readable, view },
            answers: answer_sender,
            cache,
            peers,
            metrics: Arc::clone(metrics),
            tick: replication.heartbeat(),
            unfed_max: unfed_max(replication.lag_time_max.0),
            standing,
        };
        let driver = Driver::new(parts, replica, last_timestamp_ms);
        let follow = replication_service(config, &handle, &reader, (metrics, stop_calls));
        let beside = Beside { metrics, security, backups: asked.clone(), hold };
        let log = log_service(config, &handle, reader, (beside, stop_calls));
        Ok(Self {
            driver,
            answers,
            control: ControlService(Sources { handle: handle.clone(), security: security.clone(), backups: asked }),
            handle,
            log,
            replication: follow,
            backups,
        })
    }
}

/// The parts that the streams to the followers share.
fn peers(
    config: &NodeConfig,
    (reader, cache): (&zue_log::Reader<zue_log::OsDisk>, &Arc<TailCache>),
    metrics: &Arc<Metrics>,
    security: &Security,
) -> Peers {
    Peers {
        reader: reader.clone(),
        cache: Arc::clone(cache),
        settings: config.replication,
        producers: config.limits.to_producers(),
        metrics: Arc::clone(metrics),
        address_book: AddressBook::by(security.dial()),
    }
}

/// The rest of the node, as the maintenance of the log sees it.
fn around(config: &NodeConfig, handle: &Handle, fetches: mpsc::Sender<Fetch>, hold: Option<Hold>) -> Around {
    let (seen, own) = (handle.view.clone(), handle.identity.id);
    let others = move || {
        let members = Arc::clone(&seen.borrow().members);
        let others = members.iter().map(|member| member.id).filter(|id| *id != own).collect();
        (!members.is_empty()).then_some(others)
    };
    let backed_up = move || hold.as_ref().and_then(Hold::upto);
    Around {
        settings: maintenance_settings(config.log),
        fetches,
        time: handle.time.clone(),
        others: Box::new(others),
        backed_up: Box::new(backed_up),
    }
}

/// The parts of the node that the log's service needs.
struct Beside<'a> {
    metrics: &'a Arc<Metrics>,
    security: &'a Security,
    backups: Option<BackupRequests>,
    hold: Option<Hold>,
}

fn log_service(
    config: &NodeConfig,
    handle: &Handle,
    reader: zue_log::Reader<zue_log::OsDisk>,
    (Beside { metrics, security, backups, hold }, stop_calls): (Beside<'_>, &CancellationToken),
) -> LogService {
    let limits = record_limits(&config.limits);
    let appends = Appends {
        handle: handle.clone(),
        metrics: Arc::clone(metrics),
        settings: config.limits,
        limits,
        room: Room::new(config.limits.appends_bytes_max.length()),
        newcomers: Arc::new(Newcomers::new(config.limits.producers_max)),
        stop: stop_calls.clone(),
    };
    let (readers, answers) = (Slots::new(length(config.limits.readers_max)), Room::new(READS_BYTES_MAX));
    let (lag_max, security) = (config.replication.lag_time_max.0, security.clone());
    LogService { appends, reader, readers, answers, lag_max, security, backups, hold }
}

fn replication_service(
    config: &NodeConfig,
    handle: &Handle,
    reader: &zue_log::Reader<zue_log::OsDisk>,
    (metrics, stop): (&Arc<Metrics>, &CancellationToken),
) -> ReplicationService {
    let room_bytes = narrow(config.replication.inflight_bytes_max.0);
    ReplicationService {
        handle: handle.clone(),
        metrics: Arc::clone(metrics),
        room: Arc::new(Semaphore::new(length(room_bytes))),
        room_bytes,
        producers: config.limits.to_producers(),
        stop: stop.clone(),
        fetch_server: FetchServer::new(reader.clone(), handle.ends.clone(), handle.view.clone()),
    }
}
