//! Tasks that a node is nothing without. One that ends before it was told to is told of, and so is one that panics: the process
//! should end then, rather than live on without it.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Hears of every task's end.
#[derive(Clone, Debug)]
pub(crate) struct Vitals(watch::Sender<Option<Arc<str>>>);

/// Held by a task as long as it lives.
#[derive(Debug)]
pub(crate) struct Vital {
    name: &'static str,
    stop: CancellationToken,
    vitals: Vitals,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// A task of this name, which may end once it is told to stop.
    pub(crate) fn task(&self, name: &'static str, stop: &CancellationToken) -> Vital {
        Vital { name, stop: stop.clone(), vitals: self.clone() }
    }

    /// Waits until one has ended too early, and says which; for ever if none does.
    pub(crate) fn ended(&self) -> impl Future<Output = Arc<str>> + use<> {
        let mut ends = self.0.subscribe();
        async move {
            let ended = ends.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
            match ended {
                Some(ended) => ended,
                None => pending().await,
            }
        }
    }
}

impl Vital {
    /// Runs the task.
    pub(crate) async fn run(self, task: impl Future<Output = ()>) {
        task.await;
        drop(self);
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        let how = if std::thread::panicking() { "panicked" } else { "ended" };
        let ended = format!("{} {how}", self.name);
        tracing::error!("{ended}: this node can go on no longer");
        self.vitals.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(ended.into());
            }
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_told_of_and_one_that_was_stopped_is_not() {
        let (vitals, stop) = (Vitals::new(), CancellationToken::new());
        let stopped = tokio::spawn(vitals.task("one", &stop).run(stop.clone().cancelled_owned()));
        let ended = vitals.ended();
        let other = CancellationToken::new();
        tokio::spawn(vitals.task("two", &other).run(async { panic!("on purpose") }));
        assert_eq!(&*ended.await, "two panicked");
        stop.cancel();
        stopped.await.unwrap();
        let (vitals, calm) = (Vitals::new(), CancellationToken::new());
        tokio::spawn(vitals.task("three", &calm).run(calm.clone().cancelled_owned()));
        let ended = vitals.ended();
        calm.cancel();
        drop(vitals);
        assert!(timeout(Duration::from_millis(50), ended).await.is_err());
        let vitals = Vitals::new();
        vitals.task("four", &other).run(async {}).await;
        assert_eq!(&*vitals.ended().await, "four ended");
    }
}
