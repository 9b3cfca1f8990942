//! Work that may wait for the disk, on a thread of its own. It cannot be called off: who asked for it may be gone long before it ends.

use tokio::task::JoinError;

/// Does the work on another thread, and gives the result. Its share, a turn or a place, is given back only when the work is done, even
/// if the caller has gone: otherwise callers who ask and leave could have more work under way than is allowed.
pub(crate) async fn aside<S, T>(share: S, work: impl FnOnce() -> T + Send + 'static) -> Result<(T, S), JoinError>
where
    S: Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(move || {
        let done = work();
        (done, share)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_turn_is_given_back_when_the_work_is_done_and_not_when_nobody_waits_for_it_any_more() {
        let turns = Arc::new(Semaphore::new(1));
        let (finish, wait) = mpsc::channel::<()>();
        let turn = Arc::clone(&turns).try_acquire_owned().unwrap();
        let working = aside(turn, move || wait.recv().is_ok());
        timeout(Duration::from_millis(50), working).await.unwrap_err();
        assert_eq!(turns.available_permits(), 0, "the work goes on");
        finish.send(()).unwrap();
        let turn = timeout(Duration::from_secs(5), Arc::clone(&turns).acquire_owned()).await.unwrap().unwrap();
        let (done, turn) = aside(turn, || 7).await.unwrap();
        assert_eq!((done, turns.available_permits()), (7, 0), "with the result");
        drop(turn);
        assert_eq!(turns.available_permits(), 1);
    }
}
