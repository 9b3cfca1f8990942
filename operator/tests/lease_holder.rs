//! Two operators at one Lease: the second one has it as soon as the first one's has expired, and not before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use zue_operator::kubernetes::lease::LeaseHolder;

/// A Lease that has not changed for so long may be taken.
const EXPIRES_AFTER: Duration = Duration::from_secs(3);
/// The greatest delay of the second operator. Were it to look only as often as before, it would be 150 ms.
const LATE_MAX: Duration = Duration::from_millis(100);
/// The machine may be busy with something else.
const TRIES: usize = 4;

/// A Lease on an API server that takes its time for each answer.
#[derive(Clone, Default)]
struct Api {
    held: Arc<Mutex<Held>>,
    takes: Duration,
}

#[derive(Default)]
struct Held {
    lease: Option<Value>,
    version: u64,
    /// When it was read first as it is now.
    first_seen: Option<Instant>,
}

async fn answer(State(Api { held, takes }): State<Api>, method: Method, body: Bytes) -> Response {
    tokio::time::sleep(takes).await;
    let mut held = held.lock().unwrap();
    let refused = |code: StatusCode, reason: &str| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16() });
        (code, status.to_string()).into_response()
    };
    if method == Method::GET {
        held.first_seen.get_or_insert_with(Instant::now);
        return held
            .lease
            .as_ref()
            .map_or_else(|| refused(StatusCode::NOT_FOUND, "NotFound"), |lease| lease.to_string().into_response());
    }
    let mut lease: Value = serde_json::from_slice(&body).unwrap();
    let version = lease["metadata"]["resourceVersion"].as_str().map(ToOwned::to_owned);
    if held.lease.is_some() && version != Some(held.version.to_string()) {
        return refused(StatusCode::CONFLICT, "Conflict");
    }
    held.version += 1;
    lease["metadata"]["resourceVersion"] = held.version.to_string().into();
    (held.lease, held.first_seen) = (Some(lease.clone()), None);
    lease.to_string().into_response()
}

fn lease_holder(api: &Api, me: &str) -> LeaseHolder {
    let client = Client::new(Router::new().fallback(answer).with_state(api.clone()), "zue-system");
    LeaseHolder::new(client, "zue-operator".to_owned(), me.to_owned())
}

/// The time for which the second operator has seen a Lease that its holder leaves unchanged when it has it.
async fn taken_after() -> Duration {
    let api = Api::default();
    let (mut first, mut second) = (lease_holder(&api, "first"), lease_holder(&api, "second"));
    first.take(|| {}).await;
    let kept = tokio::select! {
        () = first.keep() => false,
        taken = timeout(EXPIRES_AFTER * 2, second.take(|| {})) => taken.is_err(),
    };
    assert!(kept, "a Lease that is renewed is taken, or was lost");
    // The first one is gone, and has left nothing behind. How long the second one has known what it last wrote, the server knows.
    let began = api.held.lock().unwrap().first_seen.unwrap_or_else(Instant::now);
    second.take(|| {}).await;
    began.elapsed()
}

#[tokio::test]
async fn the_second_operator_has_a_lease_as_soon_as_it_has_expired_and_not_before() {
    let mut late = Vec::new();
    for _ in 0..TRIES {
        let after = taken_after().await;
        assert!(after >= EXPIRES_AFTER, "a Lease that was seen for {after:?} is taken");
        if after < EXPIRES_AFTER + LATE_MAX {
            return;
        }
        late.push(after);
    }
    panic!("the Lease is taken after {late:?} and not after {EXPIRES_AFTER:?}");
}

#[tokio::test]
async fn a_slow_api_server_does_not_send_the_lease_from_one_operator_to_the_other() {
    let api = Api { takes: Duration::from_millis(1200), ..Api::default() };
    let (mut first, mut second) = (lease_holder(&api, "first"), lease_holder(&api, "second"));
    first.take(|| {}).await;
    tokio::select! {
        () = first.keep() => panic!("the Lease is lost"),
        taken = timeout(EXPIRES_AFTER * 4, second.take(|| {})) => assert!(taken.is_err(), "a Lease that is renewed is taken"),
    }
}
