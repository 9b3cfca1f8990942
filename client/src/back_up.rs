//! A backup beside those that are made anyway: asks a replica for it, and waits until it is made.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use zue_proto::v1;
use zue_proto::v1::asked_backup::Outcome;

use crate::client::Failures;
use crate::servers::Server;
use crate::{Client, Error};

/// The pause between two looks whether it is made.
const LOOK: Duration = Duration::from_millis(300);

/// A backup that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackedUp {
    /// Its name in the store.
    pub id: String,
    /// The offset up to which it has the log.
    pub end: u64,
    /// The replica that made it.
    pub replica: String,
}

impl Client {
    /// Has a backup made by a replica that follows, or by the leader where none does, and waits until it is made, however long that takes:
    /// the deadline is that for an answer. It goes to the store that the nodes' configuration names.
    pub async fn back_up(&self) -> Result<BackedUp, Error> {
        let (mut begun, mut failures, mut asked) = (Instant::now(), Failures::default(), None);
        let name = format!("{:032x}", rand::random::<u128>());
        loop {
            match self.back_up_once(begun, &name, &mut asked).await {
                Ok((_, Outcome::Running(_))) => {
                    self.goes_on();
                    sleep(LOOK).await;
                    (begun, failures) = (Instant::now(), Failures::default());
                }
                Ok((server, Outcome::Made(v1::BackupMade { id, end, .. }))) => {
                    self.goes_on();
                    return Ok(BackedUp { id, end, replica: server.name });
                }
                Ok((server, Outcome::Failed(why))) => {
                    self.goes_on();
                    return Err(Error::NotBackedUp { server: server.name, why });
                }
                Err(error) => {
                    // Another may answer.
                    asked = None;
                    self.again(begun, &mut failures, error).await?;
                }
            }
        }
    }

    /// Asks for the progress at the replica that was named, or at one that is chosen.
    async fn back_up_once(
        &self,
        begun: Instant,
        name: &str,
        asked: &mut Option<Server>,
    ) -> Result<(Server, Outcome), Error> {
        let server = match asked {
            Some(server) => server.clone(),
            None => self.who_backs_up(begun).await?,
        };
        *asked = Some(server.clone());
        let request = v1::AskBackupRequest { log: String::new(), name: name.to_owned() };
        let mut client = self.servers().client(&server.address)?;
        let answer = self.call(&server, self.time_left(begun), client.back_up(request)).await?;
        let outcome = answer.outcome.unwrap_or(Outcome::Running(v1::BackupRunning {}));
        Ok((server, outcome))
    }

    async fn who_backs_up(&self, begun: Instant) -> Result<Server, Error> {
        let leader = self.leader(begun).await?;
        let follows =
            |answer: &v1::DescribeResponse| answer.leader_connected == Some(true) && answer.name != leader.name;
        let replicas = self.status().await;
        let follower = replicas.into_iter().find(|replica| replica.answer.as_ref().is_ok_and(follows));
        let server = follower.and_then(|replica| Some(Server { name: replica.name?, address: replica.address }));
        Ok(server.unwrap_or(leader))
    }
}
