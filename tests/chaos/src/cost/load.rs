//! Appends as fast as they are answered, or at a fixed rate whatever is answered; with the time that each took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use zue_bench::stats::percentile;
use zue_client::{Client, NewRecord};

/// Connections that the load is spread over.
const LINES: u32 = 4;
pub(crate) const VALUE_BYTES: usize = 1024;
/// Records of one line that may be unanswered, when the answers give the pace.
const UNANSWERED_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next one when one is answered.
    Closed,
    /// So many records a second. What cannot be sent in time counts from when it should have been.
    Open(f64),
}

/// An acknowledged record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    pub(crate) epoch: u64,
}

/// A load that goes on until it is stopped.
pub(crate) struct Load {
    lines: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

/// The counts of a time span.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// Records a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) fn start(client: &Client, pace: Pace) -> Self {
        let (mut lines, stop, samples) = (JoinSet::new(), Arc::<AtomicBool>::default(), Arc::default());
        for _ in 0..LINES {
            lines.spawn(line(client.clone(), pace, Arc::clone(&stop), Arc::clone(&samples)));
        }
        Self { lines, stop, samples }
    }

    /// All that was acknowledged since the last time.
    pub(crate) fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts from now on, for so long.
    pub(crate) async fn window(&self, lasting: Duration) -> Window {
        drop(self.take());
        let begun = Instant::now();
        tokio::time::sleep(lasting).await;
        Window::of(&self.take(), begun.elapsed())
    }

    /// Waits for what is under way.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(line) = self.lines.join_next().await {
            line??;
        }
        Ok(())
    }
}

impl Window {
    pub(crate) fn of(samples: &[Sample], lasting: Duration) -> Self {
        let times: Vec<_> = samples.iter().map(|sample| sample.took.as_secs_f64() * 1e3).collect();
        let rate = samples.len() as f64 / lasting.as_secs_f64();
        Self { rate, p50_ms: percentile(&times, 0.5), p99_ms: percentile(&times, 0.99) }
    }
}

async fn line(client: Client, pace: Pace, stop: Arc<AtomicBool>, samples: Arc<Mutex<Vec<Sample>>>) -> Result<()> {
    let (appender, mut acks) = client.appender();
    let (sent, mut waiting) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(UNANSWERED_MAX));
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let push = async {
        let begun = tokio::time::Instant::now();
        let mut count = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            let (due, permit) = match pace {
                Pace::Closed => {
                    let permit = Arc::clone(&room).acquire_owned().await.ok();
                    (tokio::time::Instant::now(), permit)
                }
                Pace::Open(a_second) => {
                    let due = begun + Duration::from_secs_f64(f64::from(count) * f64::from(LINES) / a_second);
                    tokio::time::sleep_until(due).await;
                    (due, None)
                }
            };
            count = count.wrapping_add(1);
            // The receiver lives as long as this runs.
            let _ = sent.send((due, permit));
            if appender.push(NewRecord { value: value.clone(), ..NewRecord::default() }).await.is_err() {
                break;
            }
        }
        drop((appender, sent));
    };
    let take = async {
        while let Some(answer) = acks.next().await {
            let batch = answer.map_err(|error| anyhow!(error).context("an append failed"))?;
            let at = tokio::time::Instant::now();
            let mut taken = Vec::new();
            for _ in 0..batch.count {
                if let Some((due, _permit)) = waiting.recv().await {
                    taken.push(Sample { at: at.into_std(), took: at - due, epoch: batch.epoch });
                }
            }
            samples.lock().unwrap_or_else(PoisonError::into_inner).append(&mut taken);
        }
        Ok(())
    };
    tokio::join!(push, take).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_of_its_samples() {
        let at = Instant::now();
        let took = |ms| Sample { at, took: Duration::from_millis(ms), epoch: 1 };
        let samples: Vec<_> = (0..=100).map(took).collect();
        let Window { rate, p50_ms, p99_ms } = Window::of(&samples, Duration::from_secs(2));
        assert!((rate - 50.5).abs() < 1e-9 && (p50_ms - 50.0).abs() < 1e-9 && (p99_ms - 99.0).abs() < 1e-9);
    }
}
