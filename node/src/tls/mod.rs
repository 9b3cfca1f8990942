//! Authentication: TLS on the ports of clients and peers, who is at the other end, and what they may call. With `Off` none of it is there,
//! and everybody may do everything.

mod access;
mod call_right;
mod credentials;
mod file;
mod files;
mod port;
mod presented;
#[cfg(test)]
mod tests;
mod welcome;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use zue_proto::v1::{self, Error, Reason};
use zue_settings::{NodeConfig, TlsMode};
use zue_tls::Dial;

pub use access::AccessError;
pub(crate) use access::{Client, Rights};
pub(crate) use call_right::CallRight;
pub use credentials::TlsError;
use credentials::{Credentials, Current};
pub(crate) use file::File;
pub(crate) use port::Port;
pub(crate) use presented::PresentedIdentity;
pub(crate) use presented::Token;
use presented::{token, unauthenticated};

use crate::metrics::Metrics;
use crate::process::vital::Vital;
use crate::server::caller::Caller;
use crate::server::owner::Owner;
use crate::server::rights::{Need, Party, need};
use crate::services::errors::error;

/// The notice that a connection gets before its end, when what it has shown does not hold any more: what is under way may
/// finish, and what is new goes elsewhere.
const ENDS_AFTER: Duration = Duration::from_secs(10);
/// The most by which that is earlier or later than for others: not all of them come back at once.
const JITTER: Duration = Duration::from_secs(5);
/// The most tokens that may be shown on one connection.
const TOKENS_MAX: usize = 16;

/// The door's judge: who gets in.
#[derive(Clone, Debug)]
pub(crate) struct Security(Option<Arc<Credentials>>);

/// The caller that was let in, and whose share of what many need it takes from.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) party: Party,
    pub(crate) owner: Owner,
    /// The right by which the call goes on.
    pub(crate) call_right: CallRight,
}

impl Security {
    /// Reads the files, if there is to be TLS.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) async fn read(config: &NodeConfig) -> Result<Self, TlsError> {
        let NodeConfig { tls, access, .. } = config;
        if tls.mode == TlsMode::Off {
            return Ok(Self(None));
        }
        let folder = tls.folder.as_ref().ok_or(TlsError::NoFolder)?;
        if access.file.is_none() {
            tracing::warn!("no client has access over TLS: access.file names none");
        }
        Ok(Self(Some(Arc::new(Credentials::read(tls, access, folder).await?))))
    }

    /// The way in which this node reaches others.
    pub(crate) fn dial(&self) -> Dial {
        self.0.as_ref().map_or_else(Dial::plain, |kept| kept.dial().clone())
    }

    /// Looks after the files until the node stops.
    pub(crate) fn spawn(&self, vital: Vital, metrics: Arc<Metrics>, stop: CancellationToken) {
        let kept = self.0.clone();
        tokio::spawn(vital.run(async move {
            match kept {
                Some(kept) => kept.keep(&metrics, &stop).await,
                None => stop.cancelled().await,
            }
        }));
    }

    /// For the status.
    pub(crate) fn status(&self) -> Option<v1::TlsStatus> {
        self.0.as_ref().map(|kept| kept.status())
    }

    /// The problem of the files, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.as_ref().and_then(|kept| kept.problem())
    }

    /// Admits the caller, if they may make this call; none if there is no such method.
    pub(crate) fn admit(
        &self,
        caller: &Arc<Caller>,
        port: Port,
        path: &str,
        headers: &http::HeaderMap,
    ) -> Result<Option<Admitted>, Error> {
        let Some(kept) = &self.0 else {
            let (party, owner, call_right) = (Party::Anybody, caller.owner, CallRight::lasting());
            return Ok(Some(Admitted { party, owner, call_right }));
        };
        let asked =
            Asked { caller: Arc::clone(caller), port, need: need(path), path: path.to_owned(), token: token(headers) };
        let (party, generation) = kept.settled(|current| asked.party(kept.mode(), current));
        let Some(party) = party? else { return Ok(None) };
        let owner = match &party {
            Party::Client(client) => caller.owner.named(&client.name),
            Party::Anybody | Party::Nobody | Party::Node | Party::Controller => caller.owner,
        };
        let call_right = match &party {
            Party::Anybody | Party::Nobody => CallRight::lasting(),
            Party::Node | Party::Controller | Party::Client(_) => CallRight::of(kept, asked, generation),
        };
        Ok(Some(Admitted { party, owner, call_right }))
    }

    /// Ends when what a connection has shown does not hold any more, or soon will not: with how long it may still go on.
    pub(crate) async fn outlived(&self, caller: &Caller) -> Duration {
        let Some(kept) = self.0.as_ref().filter(|_| !matches!(caller.shown, PresentedIdentity::Plain)) else {
            return std::future::pending().await;
        };
        let mut replaced = kept.changes.subscribe();
        let begun = Basis::of(caller, &kept.current.load());
        let left = match (&caller.shown, begun.until) {
            (PresentedIdentity::Known(_), Some(until)) => until.duration_since(SystemTime::now()).unwrap_or_default(),
            (PresentedIdentity::Known(_), None) => return ENDS_AFTER,
            (PresentedIdentity::Plain | PresentedIdentity::Nobody | PresentedIdentity::Doubtful(_), _) => Duration::MAX,
        };
        let jitter = JITTER.mul_f64(rand::random::<f64>());
        // One that lives no longer than that is told in its last quarter.
        let notice = (ENDS_AFTER + jitter).min(left / 4);
        let mut expires = std::pin::pin!(wait(left.saturating_sub(notice)));
        loop {
            tokio::select! {
                () = &mut expires => return ENDS_AFTER.min(notice),
                changed = replaced.changed() => if changed.is_err() { return std::future::pending().await },
            }
            let current = kept.current.load_full();
            let now = Basis::of(caller, &current);
            if now != begun || caller.tokens().iter().any(|token| !token.holds(&current)) {
                // Whoever is believed no more is refused on this connection, and needs another one now.
                let is_of_use = now.until.is_some() || begun.until.is_none();
                wait(if is_of_use { jitter } else { Duration::ZERO }).await;
                return ENDS_AFTER;
            }
        }
    }
}

/// Sleeps, however long.
async fn wait(time: Duration) {
    match tokio::time::Instant::now().checked_add(time) {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The ground that the certificate of a connection stands on. When that changes, the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Basis {
    /// Until when it is believed, if it is.
    until: Option<SystemTime>,
    rights: Option<Rights>,
}

impl Basis {
    fn of(caller: &Caller, current: &Current) -> Self {
        let until = match &caller.shown {
            PresentedIdentity::Known(known) => known.holds(current).ok(),
            PresentedIdentity::Plain | PresentedIdentity::Nobody | PresentedIdentity::Doubtful(_) => None,
        };
        Self { until, rights: caller.shown.rights(current) }
    }
}

/// A call, and what it shows.
#[derive(Debug)]
struct Asked {
    caller: Arc<Caller>,
    port: Port,
    path: String,
    need: Option<Need>,
    token: Option<Result<[u8; 32], Error>>,
}

impl Asked {
    /// Admits the caller, if they may make it; none if there is no such method.
    fn party(&self, mode: TlsMode, current: &Current) -> Result<Option<Party>, Error> {
        let Self { caller, port, path, need, token } = self;
        let party = match (&caller.shown, token) {
            (PresentedIdentity::Plain, Some(_)) => {
                let why = "the token came without TLS, and others may have read it: replace it, and send tokens over TLS alone";
                return Err(unauthenticated(why));
            }
            (PresentedIdentity::Plain, None) if mode == TlsMode::Permissive => return Ok(Some(Party::Anybody)),
            (PresentedIdentity::Plain, None) => caller.shown.party(current)?,
            _ if *need == Some(Need::Open) => return Ok(Some(Party::Nobody)),
            (_, Some(token)) if *port == Port::Client => Party::Client(by_token(caller, current, token.clone()?)?),
            (shown, _) => shown.party(current)?,
        };
        match need {
            // Nothing that is not in the table is called, whether or not it is there.
            None => Ok(None),
            Some(need) if party.may(*need) => Ok(Some(party)),
            Some(need) => Err(denied(caller, &party, *need, path)),
        }
    }
}

/// The client whose token that is. The tokens of a connection are remembered, so that not every call searches for them.
fn by_token(caller: &Caller, current: &Current, hash: [u8; 32]) -> Result<Arc<Client>, Error> {
    let mut tokens = caller.tokens();
    let count = tokens.len();
    let known = tokens.iter_mut().find(|token| bool::from(token.hash.ct_eq(&hash)));
    if let Some(token) = known.as_ref().filter(|token| token.generation == current.generation) {
        return Ok(Arc::clone(&token.client));
    }
    let unknown = || {
        unauthenticated(
            "this node does not know the token: it is wrong, or was revoked; show another (zue --token-file FILE)",
        )
    };
    let client = Arc::clone(current.files.access.by_token(&hash).ok_or_else(unknown)?);
    match known {
        // What it stood for at first is kept: if that is not so any more, the connection ends.
        Some(token) if token.client == client => token.generation = current.generation,
        Some(_) => {}
        None if count >= TOKENS_MAX => {
            return Err(unauthenticated(format!(
                "{TOKENS_MAX} tokens were shown on this connection: open another one"
            )));
        }
        None => {
            if count == 0 {
                caller.is_of(&client.name);
            }
            tokens.push(Token { hash, client: Arc::clone(&client), generation: current.generation });
        }
    }
    Ok(client)
}

fn denied(caller: &Caller, party: &Party, need: Need, path: &str) -> Error {
    let who = match (party, &caller.shown) {
        (Party::Client(client), _) => format!("client/{}, whose rights are {},", client.name, client.rights),
        (_, PresentedIdentity::Known(known)) => known.identity.to_string(),
        _ => "who calls".to_owned(),
    };
    error(Reason::PermissionDenied, format!("{who} may not call {path}: that needs {need}"))
}
