//! Answers on their way from the driver to those who wait. Each that is given to a waiter of another thread wakes that thread by a system
//! call; so those of a turn are handed over together, and given where the waiters are.

use tokio::sync::{mpsc, oneshot};
use zue_core::Reply;

/// Whoever waits, and the answer. Nobody may wait any more.
pub(crate) type Answer = (oneshot::Sender<Reply>, Reply);

/// The driver's end.
#[derive(Debug)]
pub(crate) struct AnswerSender(mpsc::UnboundedSender<Vec<Answer>>);

/// The waiters' end.
#[derive(Debug)]
pub(crate) struct AnswerReceiver(mpsc::UnboundedReceiver<Vec<Answer>>);

/// Both ends. What is between them is bounded by the requests that are taken on.
pub(crate) fn answers() -> (AnswerSender, AnswerReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (AnswerSender(sender), AnswerReceiver(receiver))
}

impl AnswerSender {
    /// Gives the answers of a turn.
    pub(crate) fn give(&self, answers: &mut Vec<Answer>) {
        if answers.len() <= 1 {
            return answers.drain(..).for_each(deliver);
        }
        if let Err(mpsc::error::SendError(answers)) = self.0.send(std::mem::take(answers)) {
            answers.into_iter().for_each(deliver);
        }
    }
}

impl AnswerReceiver {
    /// Gives the waiters what comes, until the driver has ended.
    pub(crate) async fn run(mut self) {
        while let Some(answers) = self.0.recv().await {
            answers.into_iter().for_each(deliver);
        }
    }
}

fn deliver((waiter, reply): Answer) {
    let _ = waiter.send(reply);
}

#[cfg(test)]
mod tests {
    use zue_core::Offset;

    use super::*;

    #[tokio::test]
    async fn every_answer_reaches_its_waiter_whether_the_receiver_runs_or_has_ended() {
        for (count, runs) in [(1, false), (1, true), (3, false), (3, true)] {
            let (sender, receiver) = answers();
            let running = runs.then(|| tokio::spawn(receiver.run()));
            let (mut given, mut waiters) = (Vec::new(), Vec::new());
            for at in 0..count {
                let (waiter, waits) = oneshot::channel();
                given.push((waiter, Reply::Trimmed(Offset(at))));
                waiters.push(waits);
            }
            sender.give(&mut given);
            drop(sender);
            for (at, waits) in (0..).zip(waiters) {
                assert_eq!(waits.await.unwrap(), Reply::Trimmed(Offset(at)), "{count} answers, it runs: {runs}");
            }
            if let Some(running) = running {
                running.await.unwrap();
            }
        }
    }
}
