//! Who gets in: TLS on the ports of clients and peers, who is at the other end, and what they may call. With `Off` none of it is there,
//! and everybody may do everything.

mod access;
mod counts;
mod kept;
mod settings;
mod shown;
mod welcome;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use zue_proto::v1::{self, Error, Reason};
use zue_tls::Dial;

pub use access::{AccessClient, AccessError, AccessFile, Right};
pub(crate) use access::{Client, Rights};
pub use counts::TlsMetrics;
pub use kept::TlsError;
use kept::{Current, Kept};
pub use settings::{AccessSettings, TlsMode, TlsSettings};
pub(crate) use shown::Shown;
pub(crate) use shown::Token;
use shown::{token, unauthenticated};
pub(crate) use welcome::Port;

use crate::config::NodeConfig;
use crate::errors::error;
use crate::listener::Caller;
use crate::metrics::Metrics;
use crate::owner::Owner;
use crate::rights::{Need, Party, need};
use crate::vital::Vital;

/// How long before its end a connection is told so, that ends because what it has shown does not hold any more: what is under way may
/// finish, and what is new goes elsewhere.
const ENDS_AFTER: Duration = Duration::from_secs(10);
/// How much earlier or later than others that may be, at most: not all of them come back at once.
const JITTER: Duration = Duration::from_secs(5);
/// How many tokens may be shown on one connection.
const TOKENS_MAX: usize = 16;

/// Who gets in.
#[derive(Clone, Debug)]
pub(crate) struct Security(Option<Arc<Kept>>);

/// Who makes a call, and whose share of what many need it takes from.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) party: Party,
    pub(crate) owner: Owner,
}

impl Security {
    /// Reads the files, if there is to be TLS.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) async fn read(config: &NodeConfig) -> Result<Self, TlsError> {
        let NodeConfig { tls, access, .. } = config;
        let Some(folder) = tls.folder.as_ref().filter(|_| tls.mode != TlsMode::Off) else { return Ok(Self::off()) };
        if access.file.is_none() {
            tracing::warn!("no client has access over TLS: access.file names none");
        }
        Ok(Self(Some(Arc::new(Kept::read(tls, access, folder).await?))))
    }

    /// Everybody gets in.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// How this node reaches others.
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

    /// What a person should know.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.as_ref().and_then(|kept| kept.problem())
    }

    /// Who makes this call, if they may make it; none if there is no such method.
    pub(crate) fn admit(
        &self,
        caller: &Caller,
        port: Port,
        path: &str,
        headers: &http::HeaderMap,
    ) -> Result<Option<Admitted>, Error> {
        let anybody = || Some(Admitted { party: Party::Anybody, owner: caller.owner });
        let Some(kept) = &self.0 else { return Ok(anybody()) };
        let (token, need) = (token(headers), need(path));
        let current = kept.current.load();
        let party = match (&caller.shown, token) {
            (Shown::Plain, Some(_)) => {
                Err(unauthenticated("a token is taken over TLS alone, and others may have read this one: replace it"))
            }
            (Shown::Plain, None) if kept.mode() == TlsMode::Permissive => return Ok(anybody()),
            (Shown::Plain, None) => caller.shown.party(&current),
            _ if need == Some(Need::Open) => return Ok(anybody()),
            (_, Some(token)) if port == Port::Client => by_token(caller, &current, token?).map(Party::Client),
            (shown, _) => shown.party(&current),
        }?;
        let owner = match &party {
            Party::Client(client) => caller.owner.named(&client.name),
            Party::Anybody | Party::Node | Party::Controller => caller.owner,
        };
        match need {
            // Nothing that is not in the table is called, whether or not it is there.
            None => Ok(None),
            Some(need) if party.may(need) => Ok(Some(Admitted { party, owner })),
            Some(need) => Err(denied(caller, &party, need, path)),
        }
    }

    /// Ends when what a connection has shown does not hold any more, or soon will not: with how long it may still go on.
    pub(crate) async fn outlived(&self, caller: &Caller, port: Port) -> Duration {
        let Some(kept) = self.0.as_ref().filter(|_| !matches!(caller.shown, Shown::Plain)) else {
            return std::future::pending().await;
        };
        let mut replaced = kept.changes.subscribe();
        let begun = Basis::of(caller, port, &kept.current.load());
        if matches!(caller.shown, Shown::Known(_)) && !begun.is_believed {
            return ENDS_AFTER;
        }
        let left = match &caller.shown {
            Shown::Known(known) => known.not_after.duration_since(SystemTime::now()).unwrap_or_default(),
            Shown::Plain | Shown::Nobody | Shown::Doubtful(_) => Duration::MAX,
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
            if Basis::of(caller, port, &current) != begun || caller.tokens().iter().any(|token| !token.holds(&current))
            {
                wait(jitter).await;
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

/// What the certificate of a connection stands on. When that changes, the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Basis {
    is_believed: bool,
    rights: Option<Rights>,
}

impl Basis {
    fn of(caller: &Caller, port: Port, current: &Current) -> Self {
        let is_believed = match &caller.shown {
            Shown::Known(known) => known.is_believed(port.bundle(current)),
            Shown::Plain | Shown::Nobody | Shown::Doubtful(_) => false,
        };
        Self { is_believed, rights: caller.shown.rights(current) }
    }
}

/// Whose token that is. Those of a connection are remembered, so that they are not looked for with every call.
fn by_token(caller: &Caller, current: &Current, hash: [u8; 32]) -> Result<Arc<Client>, Error> {
    let mut tokens = caller.tokens();
    let count = tokens.len();
    let known = tokens.iter_mut().find(|token| bool::from(token.hash.ct_eq(&hash)));
    if let Some(token) = known.as_ref().filter(|token| token.generation == current.generation) {
        return Ok(Arc::clone(&token.client));
    }
    let unknown = || unauthenticated("the token is none that this node knows: it is wrong, or was revoked");
    let client = Arc::clone(current.access.by_token(&hash).ok_or_else(unknown)?);
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
        (_, Shown::Known(known)) => known.identity.to_string(),
        _ => "who calls".to_owned(),
    };
    error(Reason::PermissionDenied, format!("{who} may not call {path}: that needs {need}"))
}
