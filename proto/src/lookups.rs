//! Names are looked up on threads of their own, a few at most and one a name: a resolver that does not answer holds its callers up for
//! many seconds, and neither the tasks of a program nor its pool of threads may wait with them.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// The number of names that are looked up at once. Whoever comes later waits.
const LOOKUPS_MAX: usize = 16;

/// The addresses of a name, or in words why there are none.
type Resolved = Result<Arc<[SocketAddr]>, Arc<str>>;
type Pending = watch::Receiver<Option<Resolved>>;

/// A look-up by the system.
type Resolver = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// The look-ups of a program.
#[derive(Debug)]
pub(crate) struct Lookups {
    look: Resolver,
    turns: Semaphore,
    /// Those that have not been answered yet.
    pending: Mutex<Option<HashMap<String, Pending>>>,
}

/// Those of this program.
pub(crate) static LOOKUPS: Lookups = Lookups::by(|name| Ok(name.to_socket_addrs()?.collect()));

impl Lookups {
    pub(crate) const fn by(look: Resolver) -> Self {
        Self { look, turns: Semaphore::const_new(LOOKUPS_MAX), pending: Mutex::new(None) }
    }

    /// The addresses of a `host:port`. Who stops waiting does not stop the look-up: whoever asks for the name meanwhile has its answer.
    pub(crate) async fn look_up(&'static self, name: &str) -> Resolved {
        let mut pending = if let Some(pending) = self.join(name) {
            pending
        } else {
            // Never closed.
            let turn = self.turns.acquire().await.map_err(|closed| Arc::from(closed.to_string()))?;
            self.begin(name, turn)?
        };
        let answered = pending.wait_for(Option::is_some).await;
        answered.ok().and_then(|found| found.clone()).unwrap_or_else(|| Err("its look-up panicked".into()))
    }

    fn pending(&self) -> MutexGuard<'_, Option<HashMap<String, Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, name: &str) -> Option<Pending> {
        self.pending().as_ref()?.get(name).cloned()
    }

    fn begin(&'static self, name: &str, turn: SemaphorePermit<'static>) -> Result<Pending, Arc<str>> {
        let mut guard = self.pending();
        let pending = guard.get_or_insert_default();
        // Another may have begun while this one waited for its turn.
        if let Some(pending) = pending.get(name) {
            return Ok(pending.clone());
        }
        let (told, answer) = watch::channel(None);
        let asked = PendingLookup { lookups: self, name: name.to_owned(), _turn: turn };
        let look = self.look;
        let run = move || {
            let found = look(&asked.name);
            // Whoever asks from now on is answered anew.
            drop(asked);
            told.send_replace(Some(found.map(Arc::from).map_err(|error| error.to_string().into())));
        };
        pending.insert(name.to_owned(), answer.clone());
        drop(guard);
        let begun = std::thread::Builder::new().name("look-up".to_owned()).spawn(run);
        begun.map_err(|error| Arc::from(format!("no thread for its look-up: {error}")))?;
        Ok(answer)
    }
}

/// A name that is being looked up; however that ends, it is no more.
struct PendingLookup {
    lookups: &'static Lookups,
    name: String,
    _turn: SemaphorePermit<'static>,
}

impl Drop for PendingLookup {
    fn drop(&mut self) {
        if let Some(pending) = self.lookups.pending().as_mut() {
            pending.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_a_name_and_a_few_names_at_once() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static HANGING: Lookups = Lookups::by(|_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_hours(1));
            Err(io::Error::other("late"))
        });
        for _ in 0..3 {
            let same = tokio::time::timeout(SOON, HANGING.look_up("one:1")).await;
            assert!(same.is_err(), "it hangs");
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        let names: Vec<String> = (0..LOOKUPS_MAX * 2).map(|n| format!("name-{n}:1")).collect();
        let mut others = tokio::task::JoinSet::new();
        for name in names {
            others.spawn(async move { tokio::time::timeout(SOON, HANGING.look_up(&name)).await.is_err() });
        }
        assert!(others.join_all().await.into_iter().all(|hung| hung));
        assert_eq!(ASKED.load(Ordering::Relaxed), LOOKUPS_MAX);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_anew_each_time_and_a_failure_is_told() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static COUNTED: Lookups = Lookups::by(|name| {
            let port = u16::try_from(ASKED.fetch_add(1, Ordering::Relaxed)).map_err(io::Error::other)?;
            match name {
                "none:1" => Err(io::Error::other("no such name")),
                "panics:1" => panic!("as the test wants it"),
                _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
            }
        });
        for port in 0..2 {
            let found = COUNTED.look_up("one:1").await.map(|found| found.to_vec());
            assert_eq!(found, Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]));
        }
        assert_eq!(COUNTED.look_up("none:1").await, Err("no such name".into()));
        assert!(COUNTED.look_up("panics:1").await.is_err());
        assert!(COUNTED.look_up("panics:1").await.is_err(), "and it is free again");
    }
}
