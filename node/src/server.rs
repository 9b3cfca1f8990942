//! The two gRPC ports: for clients, and for peers and controllers. Health and reflection come with them.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};
use zue_proto::DESCRIPTORS;
use zue_proto::v1::control_server::ControlServer;
use zue_proto::v1::log_server::LogServer;
use zue_proto::v1::replication_server::ReplicationServer;

use crate::control::ControlService;
use crate::follow::ReplicationService;
use crate::intake::{Intake, Metered};
use crate::listener::Listener;
use crate::log_service::LogService;
use crate::net;
use crate::num::narrow;
use crate::state::{Role, View};

/// How many calls one connection may have at once.
const STREAMS_MAX: u32 = 256;
/// Room beside the records of a request: a record over its limit is named in the error rather than cut off on the way.
const REQUEST_SLACK_BYTES: usize = 1 << 20;
/// The most that a controller's message may have.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// How often an idle connection is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(net::KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(net::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(net::CONNECTION_WINDOW_BYTES)
}

/// Serves clients until it is stopped.
pub(crate) fn serve_clients(
    listener: Listener,
    service: LogService,
    health: HealthServer<impl Health>,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send, tonic_reflection::server::Error> {
    let settings = service.appends.settings;
    // Twice as much, so that a request that is too large is answered with the limit that it is over.
    let request_bytes_max = settings.append_bytes_max.length().saturating_mul(2).saturating_add(REQUEST_SLACK_BYTES);
    let response_bytes_max = request_bytes_max.saturating_add(settings.read_bytes_max.length());
    let log = LogServer::new(service)
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(response_bytes_max);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let log = Metered { service: log, intake: Intake::new(narrow(settings.appends_bytes_max.0)) };
    let router = builder().add_service(log).add_service(health).add_service(reflection);
    Ok(router.serve_with_incoming_shutdown(listener.into_stream(), stop.cancelled_owned()))
}

/// Serves peers and controllers until it is stopped.
pub(crate) fn serve_peers(
    listener: Listener,
    replication: ReplicationService,
    control: ControlService,
    health: HealthServer<impl Health>,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send {
    let replication = ReplicationServer::new(replication)
        .max_decoding_message_size(net::PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(net::PEER_MESSAGE_BYTES_MAX);
    let control = ControlServer::new(control).max_decoding_message_size(CONTROL_BYTES_MAX);
    let router = builder().add_service(replication).add_service(control).add_service(health);
    router.serve_with_incoming_shutdown(listener.into_stream(), stop.cancelled_owned())
}

/// Tells the health service whether the log serves.
pub(crate) async fn report_health(
    health: tonic_health::server::HealthReporter,
    mut view: watch::Receiver<View>,
    stop: CancellationToken,
) {
    loop {
        let serves = view.borrow_and_update().role != Role::Failed && !stop.is_cancelled();
        let status =
            if serves { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        for service in ["", "zue.v1.Log", "zue.v1.Control", "zue.v1.Replication"] {
            health.set_service_status(service, status).await;
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = stop.cancelled() => {}
        }
    }
}
