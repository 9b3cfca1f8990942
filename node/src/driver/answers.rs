//! Answers on their way from the driver to those who wait. Each that is given to a waiter of another thread wakes that thread by a system
//! call; so those to the appends of a turn are handed over together, and given where the waiters are. Controllers wait on the replica's
//! thread, and for nothing that clients do.

use tokio::sync::{mpsc, oneshot};
use zue_core::Reply;

/// An answer, and the caller to send it to, who may have gone.
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
        answers.extract_if(.., |(_, reply)| !matches!(reply, Reply::Appended { .. })).for_each(deliver);
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
    use zue_core::{Epoch, Offset};

    use super::*;

    fn appended(base: u64) -> Reply {
        Reply::Appended { base: Offset(base), count: 1, epoch: Epoch(1), duplicate: false }
    }

    /// Answers, and those who wait for them.
    fn waited_for(replies: Vec<Reply>) -> (Vec<Answer>, Vec<oneshot::Receiver<Reply>>) {
        let one = |reply| {
            let (waiter, waits) = oneshot::channel();
            ((waiter, reply), waits)
        };
        replies.into_iter().map(one).unzip()
    }

    #[tokio::test]
    async fn every_answer_reaches_its_waiter_whether_the_receiver_runs_or_has_ended() {
        for (count, runs) in [(1, false), (1, true), (3, false), (3, true)] {
            let (sender, receiver) = answers();
            let running = runs.then(|| tokio::spawn(receiver.run()));
            let (mut given, waiters) = waited_for((0..count).map(appended).collect());
            sender.give(&mut given);
            drop(sender);
            for (at, waits) in (0..).zip(waiters) {
                assert_eq!(waits.await.unwrap(), appended(at), "{count} answers, it runs: {runs}");
            }
            if let Some(running) = running {
                running.await.unwrap();
            }
        }
    }

    #[test]
    fn a_controller_waits_for_nothing_that_clients_do() {
        let (sender, _not_running) = answers();
        let (mut given, mut waiters) = waited_for(vec![appended(0), Reply::Trimmed(Offset(7)), appended(1)]);
        sender.give(&mut given);
        assert_eq!(waiters[1].try_recv(), Ok(Reply::Trimmed(Offset(7))));
        assert!(waiters[0].try_recv().is_err() && waiters[2].try_recv().is_err());
    }
}
