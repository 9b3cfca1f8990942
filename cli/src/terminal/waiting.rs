//! Lines on standard error that tell what a command waits for, once that has taken a second. Decides nothing.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use zue_client::Client;

use crate::remedy;

/// The time after which a wait is told.
const SOON: Duration = Duration::from_secs(1);
/// The least time between two reasons that are told.
const OFTEN: Duration = Duration::from_secs(3);

pub(crate) struct Waiting {
    client: Client,
    servers: String,
    /// None gives up never.
    deadline: Option<Duration>,
    /// A problem that was reported: since when there is one, when it was reported last, and its text.
    told: Option<(Instant, Instant, String)>,
}

impl Waiting {
    pub(crate) fn new(client: &Client, servers: &[String], deadline: Option<Duration>) -> Self {
        Self { client: client.clone(), servers: servers.join(", "), deadline, told: None }
    }

    /// Does the work. An answer is due while `is_due` says so; where none is, only what fails is told.
    pub(crate) async fn on<T>(&mut self, work: impl Future<Output = T>, is_due: impl Fn() -> bool) -> T {
        let mut work = pin!(work);
        let begun = Instant::now();
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(SOON) => self.look(begun, is_due()),
            }
        }
    }

    /// Looks once, for something that was begun then.
    pub(crate) fn look(&mut self, begun: Instant, is_due: bool) {
        let trouble = self.client.trouble().filter(|trouble| is_due || trouble.since.elapsed() >= SOON);
        let (since, said) = match trouble {
            Some(trouble) => {
                let remedy = remedy(&trouble.last).map(|remedy| format!("; {remedy}")).unwrap_or_default();
                (Instant::from_std(trouble.since), format!("{}{remedy}", trouble.last))
            }
            None if is_due => (begun, format!("no answer yet from {}", self.servers)),
            None => return self.goes_on(),
        };
        let is_told = |(_, at, text): &(_, Instant, String)| *text == said || at.elapsed() < OFTEN;
        if self.told.as_ref().is_some_and(is_told) {
            return;
        }
        let until = match self.deadline {
            Some(deadline) => format!("for up to {:.0} s more", deadline.saturating_sub(since.elapsed()).as_secs_f64()),
            None => "until it works".to_owned(),
        };
        zue_telemetry::say(format!("zue: waiting, and trying {until}: {said}"));
        let since = self.told.take().map_or(since, |(since, ..)| since);
        self.told = Some((since, Instant::now(), said));
    }

    /// Something has come: what was waited for is there again.
    pub(crate) fn goes_on(&mut self) {
        if let Some((since, ..)) = self.told.take() {
            zue_telemetry::say(format!("zue: it goes on, after {:.1} s", since.elapsed().as_secs_f64()));
        }
    }
}
