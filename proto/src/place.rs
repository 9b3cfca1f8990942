//! The place of a server: a name, which is looked up, and addresses at which it was before, which need nobody's answer. They race, and
//! whichever opens a connection first wins. Whether the right server answers there, the caller finds out and says.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use zue_tls::{Dial, Renewal, Stream};

use crate::lookups::{LOOKUPS, Lookups};

/// The time for which an address at which another server answered is left for last, as long as there is something else to try.
const HELD_BACK: Duration = Duration::from_millis(300);
/// The number of addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// The number of addresses that are remembered where another server answered.
const WRONG_MAX: usize = 4;

/// Why no connection was opened: each way that was tried, in words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotReached {
    why: String,
    is_distrusted: bool,
}

impl NotReached {
    /// For another reason.
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_distrusted: false }
    }

    /// Returns whether somebody answers who is not believed.
    pub fn is_distrusted(&self) -> bool {
        self.is_distrusted
    }
}

/// A server's name and the addresses known beside it. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `host:port`.
    name: String,
    beside: Mutex<Beside>,
    lookups: &'static Lookups,
    /// With or without TLS.
    dial: Dial,
}

/// The addresses beside the name.
#[derive(Clone, Debug, Default)]
struct Beside {
    /// The address at which somebody else reached it.
    told: Option<SocketAddr>,
    /// The address at which it answered here last.
    worked: Option<SocketAddr>,
    /// The addresses at which another answered, or nothing that makes sense; the latest last.
    wrong: VecDeque<SocketAddr>,
    /// The address that the last connection leads to.
    last: Option<SocketAddr>,
}

impl Place {
    /// Of a `host:port` of which nothing else is known.
    pub fn new(name: &str, dial: &Dial) -> Self {
        Self::with(name, &LOOKUPS, dial)
    }

    fn with(name: &str, lookups: &'static Lookups, dial: &Dial) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), beside: Mutex::default(), lookups, dial: dial.clone() }))
    }

    /// The name that is looked up.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns whether its name is an address itself: nothing is looked up.
    pub fn is_literal(&self) -> bool {
        self.0.name.parse::<SocketAddr>().is_ok()
    }

    /// Tells when there is something newer to open connections with than there is now.
    pub fn renewal(&self) -> Renewal {
        self.0.dial.renewal()
    }

    fn beside(&self) -> MutexGuard<'_, Beside> {
        self.0.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where somebody else reached it. That is tried even if another answered there before.
    pub fn told(&self, at: SocketAddr) {
        let mut beside = self.beside();
        if beside.told.replace(at) != Some(at) {
            beside.wrong.retain(|wrong| *wrong != at);
        }
    }

    /// The server itself has answered there.
    pub fn worked(&self, at: SocketAddr) {
        let mut beside = self.beside();
        beside.wrong.retain(|wrong| *wrong != at);
        beside.worked = Some(at);
    }

    /// Another answers there, or nothing that makes sense; whether that is news. It is tried after all else from now on.
    pub fn is_wrong(&self, at: SocketAddr) -> bool {
        let mut beside = self.beside();
        if beside.wrong.contains(&at) {
            return false;
        }
        if beside.wrong.len() == WRONG_MAX {
            beside.wrong.pop_front();
        }
        beside.wrong.push_back(at);
        true
    }

    /// The address at which it answered here last, else that at which somebody else reached it.
    pub fn known(&self) -> Option<SocketAddr> {
        let beside = self.beside();
        beside.worked.or(beside.told).filter(|at| !beside.wrong.contains(at))
    }

    /// The address of the last connection that was opened.
    pub fn last(&self) -> Option<SocketAddr> {
        self.beside().last
    }

    /// Opens a connection, with TLS where that is to be: that time is for both. Where it may be without, one without is opened if the
    /// other side cannot.
    ///
    /// # Errors
    /// None was opened within that time, or the two sides do not come to terms.
    pub async fn open(&self, within: Duration) -> Result<(Stream, SocketAddr), NotReached> {
        let begun = Instant::now();
        let (stream, at) = self.dial(within).await?;
        let Inner { name, dial, .. } = &*self.0;
        if dial.is_plain() {
            return Ok((Stream::Plain(stream), at));
        }
        let (why, is_distrusted) = match timeout_at(begun + within, dial.secure(stream, name)).await {
            Ok(Ok(stream)) => return Ok((stream, at)),
            Ok(Err(error)) => (error.to_string(), error.is_distrusted()),
            Err(_) => (format!("no TLS within {within:?}"), false),
        };
        if !dial.may_be_plain() {
            let why = if self.is_literal() { why } else { format!("{at}: {why}") };
            return Err(NotReached { why, is_distrusted });
        }
        dial.does_without(format!("{name} at {at}: {why}"));
        let (stream, at) = self.dial(within).await?;
        Ok((Stream::Plain(stream), at))
    }

    /// Opens a connection, by whichever way is there first.
    ///
    /// # Errors
    /// None was opened within that time.
    pub async fn dial(&self, within: Duration) -> Result<(TcpStream, SocketAddr), NotReached> {
        let begun = Instant::now();
        let beside = self.beside().clone();
        let mut race =
            Race { until: begun + within, beside, seen: Vec::new(), held: Vec::new(), running: JoinSet::new() };
        let literal = self.0.name.parse::<SocketAddr>().ok();
        let known = [literal, race.beside.told, race.beside.worked];
        race.enter(known.into_iter().flatten());
        let mut looking_up = std::pin::pin!(timeout_at(race.until, self.0.lookups.look_up(&self.0.name)));
        let (mut is_looked_up, mut reasons) = (literal.is_some(), Vec::new());
        loop {
            if is_looked_up && race.running.is_empty() && !race.enter_held() {
                return Err(not_reached(literal.is_some(), &reasons));
            }
            tokio::select! {
                found = &mut looking_up, if !is_looked_up => {
                    is_looked_up = true;
                    match found {
                        Ok(Ok(found)) => race.enter(found.iter().copied().take(ADDRESSES_MAX)),
                        Ok(Err(why)) => reasons.push(format!("the name {} is not resolved: {why}", self.0.name)),
                        Err(_) => reasons.push(format!("the name {} is not resolved within {within:?}", self.0.name)),
                    }
                }
                Some(ended) = race.running.join_next(), if !race.running.is_empty() => match ended {
                    Ok((at, Ok(stream))) => {
                        self.beside().last = Some(at);
                        return Ok((stream, at));
                    }
                    Ok((at, Err(why))) => reasons.push(match why.kind() {
                        io::ErrorKind::TimedOut => format!("{at}: no connection within {within:?}"),
                        _ => format!("{at}: {why}"),
                    }),
                    Err(panicked) => reasons.push(panicked.to_string()),
                },
                () = sleep_until(begun + HELD_BACK), if !race.held.is_empty() => {
                    race.enter_held();
                }
            }
        }
    }
}

/// The error that names all that was tried, one after the other. Where there is one address alone, the reason suffices.
fn not_reached(is_literal: bool, reasons: &[String]) -> NotReached {
    match reasons {
        [] => NotReached::because("it has no address"),
        [only] if is_literal => NotReached::because(only.split_once(": ").map_or(only.as_str(), |(_, why)| why)),
        reasons => NotReached::because(reasons.join("; ")),
    }
}

/// Connections that are being opened to one server.
struct Race {
    until: Instant,
    beside: Beside,
    /// The addresses that are tried or will be.
    seen: Vec<SocketAddr>,
    /// The addresses at which another answered before.
    held: Vec<SocketAddr>,
    running: JoinSet<(SocketAddr, io::Result<TcpStream>)>,
}

impl Race {
    fn enter(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        for at in addresses {
            if self.seen.contains(&at) {
                continue;
            }
            self.seen.push(at);
            if self.beside.wrong.contains(&at) {
                self.held.push(at);
            } else {
                self.open(at);
            }
        }
    }

    /// Goes on with what was left for last; false if there is nothing.
    fn enter_held(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        for at in &held {
            self.open(*at);
        }
        !held.is_empty()
    }

    fn open(&mut self, at: SocketAddr) {
        let until = self.until;
        self.running.spawn(async move {
            let opened = async {
                let stream = TcpStream::connect(at).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            (at, timeout_at(until, opened).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Where nobody ever answers: the queue of a listener that accepts nothing is full.
    struct Silent(
        SocketAddr,
        #[expect(dead_code, reason = "held open")] Vec<std::net::TcpStream>,
        #[expect(dead_code, reason = "held open")] std::net::TcpListener,
    );

    const WITHIN: Duration = Duration::from_secs(1);

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    fn silent() -> Silent {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut taken = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&at, Duration::from_millis(100)) {
            taken.push(stream);
        }
        Silent(at, taken, listener)
    }

    static HANGING: Lookups = Lookups::by(|_| {
        std::thread::sleep(Duration::from_hours(1));
        Err(io::Error::other("late"))
    });
    static NOTHING: Lookups = Lookups::by(|_| Err(io::Error::other("no such name")));
    /// The name says where it leads.
    static SAID: Lookups = Lookups::by(|name| {
        let port = name.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or_default();
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    });

    #[tokio::test]
    async fn a_name_that_nobody_resolves_is_not_needed_where_an_address_is_known() {
        let (_listener, at) = server().await;
        for lookups in [&HANGING, &NOTHING] {
            let place = Place::with("zue-0:1", lookups, &Dial::plain());
            assert!(place.dial(Duration::from_millis(100)).await.is_err());
            place.told(at);
            let begun = Instant::now();
            assert_eq!(place.dial(WITHIN).await.unwrap().1, at);
            assert!(begun.elapsed() < WITHIN / 2, "{:?}", begun.elapsed());
            // What worked is remembered, whatever is told later.
            place.worked(at);
            place.told("127.0.0.1:1".parse().unwrap());
            assert_eq!(place.dial(WITHIN).await.unwrap().1, at);
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_answers_does_not_hold_up_the_name() {
        let (_listener, at) = server().await;
        let silent = silent();
        let place = Place::with(&format!("zue-0:{}", at.port()), &SAID, &Dial::plain());
        place.told(silent.0);
        place.worked("127.0.0.1:1".parse().unwrap());
        let begun = Instant::now();
        assert_eq!(place.dial(WITHIN).await.unwrap().1, at);
        assert!(begun.elapsed() < WITHIN / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn where_another_answers_is_tried_last_and_still_tried() {
        let ((_other, wrong), (_listener, right)) = (server().await, server().await);
        let place = Place::with(&format!("zue-0:{}", right.port()), &SAID, &Dial::plain());
        place.told(wrong);
        place.worked(wrong);
        assert!(place.is_wrong(wrong));
        assert!(!place.is_wrong(wrong), "it is known");
        assert_eq!(place.dial(WITHIN).await.unwrap().1, right);
        // No name leads anywhere else: perhaps it was a mistake.
        for lookups in [&NOTHING, &HANGING] {
            let place = Place::with("zue-0:1", lookups, &Dial::plain());
            place.told(wrong);
            place.is_wrong(wrong);
            assert_eq!(place.dial(WITHIN).await.unwrap().1, wrong);
        }
        // Told anew of another and then of this one, it counts again.
        place.told(right);
        place.told(wrong);
        assert!(place.is_wrong(wrong));
    }

    #[tokio::test]
    async fn why_nobody_is_reached_names_each_way() {
        let refused = || async { server().await.1 };
        let (gone, silent) = (refused().await, silent());
        let why = |place: Place| async move { place.dial(Duration::from_millis(200)).await.unwrap_err().to_string() };
        assert_eq!(why(Place::new(&gone.to_string(), &Dial::plain())).await, "Connection refused (os error 111)");
        assert_eq!(why(Place::new(&silent.0.to_string(), &Dial::plain())).await, "no connection within 200ms");
        let place = Place::with("zue-0:1", &NOTHING, &Dial::plain());
        assert_eq!(why(place.clone()).await, "the name zue-0:1 is not resolved: no such name");
        place.told(gone);
        let both = why(place).await;
        assert!(
            both.contains("is not resolved: no such name") && both.contains(&format!("{gone}: Connection")),
            "{both}"
        );
        let hung = why(Place::with("zue-0:1", &HANGING, &Dial::plain())).await;
        assert_eq!(hung, "the name zue-0:1 is not resolved within 200ms");
    }
}
