//! Waiting for what rarely happens, beside what happens all the time: a future that is polled with every message costs more than it is
//! asked for. Here it is polled again only once it has something to say.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use tokio::task::coop::unconstrained;

/// A future that is polled only when it has woken whoever waits.
pub(crate) struct Rarely<T> {
    /// Never locked, as whoever polls it has it alone: so that this can be shared.
    future: Mutex<Pin<Box<dyn Future<Output = T> + Send>>>,
    called: Arc<Called>,
    waker: Waker,
}

/// True if the future has called, and whom it calls.
#[derive(Debug)]
struct Called {
    has_called: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_called.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T> Rarely<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        // What is polled in front of it may have used all that tokio allows a task in one turn: then it would never get to see what it
        // was called for. And it is polled once before it can call.
        let future = unconstrained(future);
        let called = Arc::new(Called { has_called: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Mutex::new(Box::pin(future)), waker: Arc::clone(&called).into(), called }
    }
}

impl<T> Future for Rarely<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // First: a call that comes in between wakes this task.
        self.called.task.register(cx.waker());
        if !self.called.has_called.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        let future = future.get_mut().unwrap_or_else(PoisonError::into_inner);
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures::poll;
    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_at_first_and_when_it_has_called_and_never_in_between() {
        let (end, mut ended) = oneshot::channel();
        let polled = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polled);
        let mut rarely = Rarely::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut ended).poll(cx)
        }));
        for _ in 0..5 {
            assert!(poll!(&mut rarely).is_pending());
        }
        assert_eq!(polled.load(Ordering::Relaxed), 1);
        let waits = tokio::spawn(rarely);
        tokio::task::yield_now().await;
        end.send(7).unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), 7);
        assert_eq!(polled.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_call_while_another_task_waits_reaches_the_one_that_polled_last() {
        let (end, ended) = oneshot::channel::<()>();
        let mut rarely = Rarely::new(ended);
        assert!(poll!(&mut rarely).is_pending());
        let waits = tokio::spawn(rarely);
        tokio::task::yield_now().await;
        end.send(()).unwrap();
        waits.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn it_is_heard_beside_what_uses_the_whole_budget_of_its_task() {
        let (leaves, stops) = (CancellationToken::new(), CancellationToken::new());
        let (left, stopped) = (leaves.clone(), stops.clone());
        let mut rarely = Rarely::new(async move {
            tokio::select! {
                () = left.cancelled() => "left",
                () = stopped.cancelled() => "stopped",
            }
        });
        // As a socket that always has more.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let busy = async move {
            loop {
                sender.send(()).unwrap();
                receiver.recv().await;
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = busy => "ended",
                ended = &mut rarely => ended,
            }
        });
        tokio::task::yield_now().await;
        leaves.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
        assert_eq!(ended.expect("it is heard").unwrap(), "left");
    }
}
