//! The thread of the replica: its driver, and all that comes on the port of the peers. Clients are served on others, so nothing that
//! they do keeps a heartbeat or an appointment waiting; and what the driver and the streams of its peers hand to each other wakes no
//! other thread.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread with a runtime of its own, until this is dropped.
#[derive(Debug)]
pub(crate) struct ReplicaThread {
    runtime: Handle,
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

impl ReplicaThread {
    /// Starts the thread for the node of this name.
    ///
    /// # Errors
    /// When the system gives no further thread.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        thread::Builder::new().name(format!("replica {name}")).spawn(move || {
            let _ = runtime.block_on(ended);
            // A disk that hangs must not keep it.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// The handle by which tasks are spawned on it.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
