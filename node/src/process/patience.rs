//! A node that starts waits a while for a process that still holds its directory or its ports: the one before it may be about to
//! end. Alive and not ready meanwhile, it says for whom it waits.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use zue_engine::room::full;
use zue_log::OpenError;
use zue_settings::Time;

use crate::process::node::StartError;
use crate::process::open::OpenNodeError;
use crate::process::port_holder::port_holder;
use crate::server::http::Readiness;

/// The interval of its tries: nothing tells when a lock or a port becomes free.
const RETRY: Duration = Duration::from_millis(200);

/// The time that is left to wait, and who is told.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    end: Instant,
    max: Duration,
    readiness: &'a watch::Sender<Readiness>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(max: Duration, readiness: &'a watch::Sender<Readiness>) -> Self {
        Self { end: Instant::now() + max, max, readiness }
    }

    /// Tries until it works, fails for another reason than another process, or that has taken too long.
    pub(crate) async fn until_free<T, E, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, E>
    where
        E: HeldByAnother,
        F: Future<Output = Result<T, E>>,
    {
        let mut told = None;
        loop {
            let tried = attempt().await;
            let held = match &tried {
                Err(error) if error.is_held() && Instant::now() < self.end => full(error),
                _ => {
                    self.readiness.send_replace(Readiness::Opening);
                    return tried;
                }
            };
            if told.as_ref() != Some(&held) {
                let (max, holder) = (Time(self.max), tried.err().map(|error| error.holder()).unwrap_or_default());
                tracing::warn!("{held}{holder}: waiting until it is free, {max} at most (limits.startWaitMax)");
                self.readiness.send_replace(Readiness::Waiting(format!("{held}{holder}")));
                told = Some(held);
            }
            sleep(RETRY).await;
        }
    }
}

/// An error that another process may be the cause of, which holds something.
pub(crate) trait HeldByAnother: Error {
    fn is_held(&self) -> bool;
    /// The process that holds it, if the error does not say so itself.
    fn holder(&self) -> String {
        String::new()
    }
}

impl HeldByAnother for StartError {
    fn is_held(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    fn holder(&self) -> String {
        if let Self::Listen { address, .. } = self { port_holder(*address) } else { String::new() }
    }
}

impl HeldByAnother for OpenNodeError {
    fn is_held(&self) -> bool {
        matches!(self, Self::Log(OpenError::Locked { .. }))
    }
}
