//! Another replica is to lead: asks for it, and waits until it does.

use tokio::time::Instant;
use zue_proto::v1;

use crate::client::Failures;
use crate::{Client, Error};

/// The requested leader leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwitchedOver {
    /// The epoch in which it leads.
    pub epoch: u64,
    /// True if it was found to lead before anything was asked for.
    pub led_before: bool,
}

impl Client {
    /// Asks the leader to hand over to the replica of this name, and waits until that leads. Appends go on meanwhile: for the moment of
    /// the change they wait.
    pub async fn switch_over(&self, to: &str) -> Result<SwitchedOver, Error> {
        let begun = Instant::now();
        let mut failures = Failures::default();
        let mut led_before = true;
        loop {
            match self.switch_over_once(begun, to).await {
                Err(error) => {
                    led_before = false;
                    self.again(begun, &mut failures, error).await?;
                }
                Ok(epoch) => {
                    self.goes_on();
                    return Ok(SwitchedOver { epoch, led_before });
                }
            }
        }
    }

    async fn switch_over_once(&self, begun: Instant, to: &str) -> Result<u64, Error> {
        let (leader, epoch) = self.servers().find_leader(self.time_left(begun)).await?;
        if leader.name == to {
            return Ok(epoch);
        }
        let within = self.time_left(begun);
        let within_ms =
            u32::try_from(self.config().deadline.saturating_sub(begun.elapsed()).as_millis()).unwrap_or(u32::MAX);
        let request = v1::SwitchOverRequest { to: to.to_owned(), within_ms };
        let mut client = self.servers().client(&leader.address)?;
        self.call(&leader, within, client.switch_over(request)).await?;
        Err(Error::NotSwitched { to: to.to_owned(), leader: leader.name })
    }
}
