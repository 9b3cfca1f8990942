//! The two gRPC ports: for clients, and for peers and controllers. Health and reflection come with them.

pub(crate) mod body_limit;
pub(crate) mod caller;
pub(crate) mod door;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod net;
pub(crate) mod outflow;
pub(crate) mod owner;
pub(crate) mod rights;
pub(crate) mod room;
pub(crate) mod serve;
pub(crate) mod slots;

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use zue_proto::DESCRIPTORS;
use zue_proto::v1::control_server::ControlServer;
use zue_proto::v1::log_server::LogServer;
use zue_proto::v1::replication_server::ReplicationServer;
use zue_settings::LimitSettings;
use zue_settings::fixed::{CLIENT_CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, PEER_MESSAGE_BYTES_MAX};

use crate::driver::state::{ReplicaView, Role};
use crate::replication::receiver::ReplicationService;
use crate::server::door::Door;
use crate::server::listener::Listener;
use crate::server::serve::{Gate, Http2, serve_grpc};
use crate::services::control::ControlService;
use crate::services::log_service::LogService;

/// The most bytes that a client may send of a call before it is taken on: see [`CLIENT_CONNECTION_WINDOW_BYTES`].
pub(crate) const CLIENT_STREAM_WINDOW_BYTES: u32 = 32 << 10;

fn http(settings: &LimitSettings, stream_window_bytes: u32, connection_window_bytes: u32) -> Http2 {
    Http2 {
        stream_window_bytes,
        connection_window_bytes,
        hello_within: settings.receive_deadline.0,
        // A read ends by itself before, and says so: the reason is on its way as long as this.
        stall_max: settings.stall_deadline.0.saturating_mul(2),
    }
}

/// Serves clients until it is stopped.
pub(crate) fn serve_clients(
    listener: Listener,
    gate: Gate,
    service: LogService,
    health: HealthServer<impl Health>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, tonic_reflection::server::Error> {
    let settings = service.appends.settings;
    let request_bytes_max = settings.append_request_bytes_max();
    let log = LogServer::new(service)
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(net::READ_MESSAGE_BYTES_MAX);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(log).add_service(health).add_service(reflection);
    let http = http(&settings, CLIENT_STREAM_WINDOW_BYTES, CLIENT_CONNECTION_WINDOW_BYTES);
    Ok(serve_grpc(listener, Door::new(gate, routes, settings), http, stop))
}

/// Serves peers and controllers until it is stopped.
pub(crate) fn serve_peers(
    (listener, gate): (Listener, Gate),
    replication: ReplicationService,
    control: ControlService,
    health: HealthServer<impl Health>,
    settings: LimitSettings,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let replication = ReplicationServer::new(replication)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let routes = Routes::new(replication).add_service(ControlServer::new(control)).add_service(health);
    let http = http(&settings, net::STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES);
    serve_grpc(listener, Door::new(gate, routes, settings), http, stop)
}

/// Tells the health service whether the log serves.
pub(crate) async fn report_health(
    health: tonic_health::server::HealthReporter,
    mut view: watch::Receiver<ReplicaView>,
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
