//! The door of a gRPC port: every call passes it on its way in, and every answer on its way out. What may come in depends on the call
//! alone; what goes out says in Zue's own words why a call failed, whoever refused it.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::service::Routes;
use tonic::{Code, Status};
use zue_proto::v1::{Error, Outcome, Reason};
use zue_proto::{cut, error_of, shape, status_with};
use zue_settings::LimitSettings;
use zue_settings::fixed::{
    ASIDE_CALLS_MAX, CALLS_MAX, LEADER_PARTS_MAX, LEADERS_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX,
    REQUEST_PARTS_MAX, REQUESTS_BYTES_MAX,
};

use crate::server::body_limit::{AtFirst, Rules, received};
use crate::server::caller::{Busy, Caller};
use crate::server::outflow::{Call, Outflow};
use crate::server::owner::Owner;
use crate::server::room::Room;
use crate::server::serve::Gate;
use crate::server::slots::Slots;
use crate::services::append::WhenFull;
use crate::services::errors::error;
use crate::tls::Admitted;

/// The headers that the services look at; no other is kept while a call goes on.
const HEADERS_KEPT: [&str; 4] = ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "content-type"];

/// The kind of a call, as far as the door cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Append,
    AppendStream,
    Follow,
    /// Another one of Zue's.
    Other,
    /// Health or reflection, or nothing that there is.
    Aside,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path {
            "/zue.v1.Log/Append" => Self::Append,
            "/zue.v1.Log/AppendStream" => Self::AppendStream,
            "/zue.v1.Replication/Follow" => Self::Follow,
            path if path.starts_with("/zue.v1.") => Self::Other,
            _ => Self::Aside,
        }
    }

    /// The fate of the records when the call was refused before its service had seen it.
    fn outcome(self) -> Outcome {
        match self {
            Self::Append | Self::AppendStream => Outcome::NotAppended,
            Self::Follow | Self::Other | Self::Aside => Outcome::Unspecified,
        }
    }
}

/// The door of one port.
#[derive(Debug)]
pub(crate) struct Door {
    gate: Gate,
    routes: Routes,
    settings: LimitSettings,
    calls: Arc<Slots>,
    aside: Arc<Slots>,
    appends: Arc<Room>,
    leaders: Arc<Room>,
    requests: Arc<Room>,
}

impl Door {
    pub(crate) fn new(gate: Gate, routes: Routes, settings: LimitSettings) -> Self {
        Self {
            gate,
            routes: routes.prepare(),
            settings,
            calls: Slots::new(CALLS_MAX),
            aside: Slots::new(ASIDE_CALLS_MAX),
            appends: Room::new(settings.appends_bytes_max.length()),
            leaders: Room::new(LEADERS_BYTES_MAX),
            requests: Room::new(REQUESTS_BYTES_MAX),
        }
    }

    /// The gate: who gets in.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The places of the calls.
    pub(crate) fn calls(&self) -> &Arc<Slots> {
        &self.calls
    }

    fn rules(&self, kind: Kind, path: &str) -> Rules {
        let settings = &self.settings;
        let other = Rules {
            bytes_max: REQUEST_BYTES_MAX,
            bytes_from: "",
            fields: shape::of(path),
            records_max: u64::MAX,
            record_headers_max: u64::MAX,
            parts_max: REQUEST_PARTS_MAX,
            room: Arc::clone(&self.requests),
            when_full: WhenFull::Refuse,
            is_stream: false,
            is_single: true,
            appends: false,
            receive_within: settings.receive_deadline.0,
        };
        let append = || Rules {
            bytes_max: settings.append_request_bytes_max(),
            bytes_from: " (twice limits.appendBytesMax, and 1 MiB)",
            records_max: settings.append_records_max.into(),
            record_headers_max: settings.headers_max.into(),
            room: Arc::clone(&self.appends),
            appends: true,
            ..other.clone()
        };
        match kind {
            Kind::Append => append(),
            Kind::AppendStream => Rules { when_full: WhenFull::Wait, is_stream: true, is_single: false, ..append() },
            Kind::Follow => Rules {
                bytes_max: PEER_MESSAGE_BYTES_MAX,
                parts_max: LEADER_PARTS_MAX,
                room: Arc::clone(&self.leaders),
                when_full: WhenFull::Wait,
                is_stream: true,
                is_single: false,
                ..other
            },
            Kind::Other => other,
            // Reflection is asked one thing after the other.
            Kind::Aside => Rules { is_single: false, ..other },
        }
    }

    /// Takes a place for a call, if there is one. A connection is busy with what is Zue's, and with nothing else; with a stream of messages
    /// only once one of them has come.
    fn admit(&self, call: &Arc<Call>, kind: Kind, caller: &Arc<Caller>, owner: Owner) -> bool {
        let Some(slot) = call.slot() else { return false };
        if owner != caller.owner {
            slot.is_of(owner);
        }
        match kind {
            Kind::Append | Kind::Other => call.keep(Busy::new(caller)),
            Kind::AppendStream | Kind::Follow | Kind::Aside => {}
        }
        if kind != Kind::Aside {
            return true;
        }
        let beside = self.aside.take_beside(slot, owner);
        let is_admitted = beside.is_some();
        call.keep(beside);
        is_admitted
    }

    /// Serves one call. Failed appends are counted here, wherever they were refused; only a stream that goes on counts its own.
    pub(crate) async fn serve(&self, caller: Arc<Caller>, request: http::Request<Incoming>) -> http::Response<Body> {
        let kind = Kind::of(request.uri().path());
        let answer = self.answer(kind, caller, request).await;
        if matches!(kind, Kind::Append | Kind::AppendStream)
            && let Some(error) = Status::from_header_map(answer.headers()).and_then(|status| error_of(&status))
        {
            self.gate.metrics.append_failed(&error);
        }
        answer
    }

    async fn answer(&self, kind: Kind, caller: Arc<Caller>, request: http::Request<Incoming>) -> http::Response<Body> {
        let path = cut(request.uri().path().to_owned());
        let Gate { port, security, metrics } = &self.gate;
        let admitted = security.admit(&caller, *port, request.uri().path(), request.headers());
        let Admitted { party, owner, call_right } = match admitted {
            Ok(Some(admitted)) => admitted,
            Ok(None) => return unknown(kind, &path),
            Err(error) => {
                metrics.refused_calls.with_label_values(&[error.reason().as_str_name()]).inc();
                return refuse(Error { outcome: kind.outcome().into(), ..error });
            }
        };
        let Some(call) = Call::current().filter(|call| self.admit(call, kind, &caller, owner)) else {
            let message = format!("{CALLS_MAX} calls are under way, or {ASIDE_CALLS_MAX} of health and reflection");
            return refuse(Error { outcome: kind.outcome().into(), ..error(Reason::Overloaded, message) });
        };
        let (mut head, body) = request.into_parts();
        head.headers = kept(&head.headers);
        let within = grpc_timeout(&head.headers);
        let rules = self.rules(kind, head.uri.path());
        let (body, parcel) =
            received(Body::new(body), (rules, call_right.clone()), owner, at_first(kind, &call, &caller));
        head.extensions.insert(parcel);
        head.extensions.insert(caller);
        head.extensions.insert(owner);
        head.extensions.insert(party);
        let answer = self.routes.clone().call(http::Request::from_parts(head, body));
        let answer = match within {
            Some(within) => timeout(within, answer).await,
            None => Ok(answer.await),
        };
        let Ok(answer) = answer else {
            let outcome = if kind == Kind::Append { Outcome::Unknown } else { Outcome::Unspecified };
            let message = "the deadline of the call passed before there was an answer";
            return refuse(Error { outcome: outcome.into(), ..error(Reason::TimedOut, message) });
        };
        let Ok(mut answer) = answer;
        let explain = move |headers: &mut http::HeaderMap| explain(headers, kind, &path);
        explain(answer.headers_mut());
        // Streams of appends and of leaders end by what comes in: what was taken on before is answered.
        let goes_on_by = matches!(kind, Kind::Other | Kind::Aside).then_some(call_right);
        answer.map(|body| Body::new(Outflow::new(body, &call, Box::new(explain), goes_on_by)))
    }
}

/// With the first message of a stream its connection is busy, as long as the call goes on.
fn at_first(kind: Kind, call: &Arc<Call>, caller: &Arc<Caller>) -> Option<AtFirst> {
    if !matches!(kind, Kind::AppendStream | Kind::Follow) {
        return None;
    }
    let (call, caller) = (Arc::downgrade(call), Arc::clone(caller));
    Some(Box::new(move || {
        if let Some(call) = call.upgrade() {
            call.keep(Busy::new(&caller));
        }
    }))
}

/// Those that the services look at.
fn kept(headers: &http::HeaderMap) -> http::HeaderMap {
    let found =
        HEADERS_KEPT.iter().filter_map(|name| Some((http::HeaderName::from_static(name), headers.get(*name)?.clone())));
    found.collect()
}

fn refuse(error: Error) -> http::Response<Body> {
    zue_proto::status_of(error).into_http()
}

/// There is no such method, or none that is for anybody.
fn unknown(kind: Kind, path: &str) -> http::Response<Body> {
    let mut answer = Status::unimplemented("").into_http();
    explain(answer.headers_mut(), kind, path);
    answer
}

/// The time that the caller waits, as it says itself. The unit is the last letter.
pub(crate) fn grpc_timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Adds Zue's own words to a failure that has none: gRPC refused the call before a service saw it.
fn explain(headers: &mut http::HeaderMap, kind: Kind, path: &str) {
    let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) else { return };
    if error_of(&status).is_some() {
        return;
    }
    let reason = match status.code() {
        Code::DeadlineExceeded => Reason::TimedOut,
        Code::Unavailable => Reason::ShuttingDown,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::Unimplemented | Code::Internal | Code::InvalidArgument | Code::OutOfRange => Reason::Invalid,
        _ => Reason::Unspecified,
    };
    let message = match status.message() {
        "" if status.code() == Code::Unimplemented => format!("there is no method {path:?}"),
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let explained = status_with(status.code(), Error { outcome: kind.outcome().into(), ..error(reason, message) });
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    if let Err(status) = explained.add_header(headers) {
        tracing::error!(%status, "a failure cannot be explained");
    }
}
