//! The driver's metrics: the state at each tick, and how long a cluster went without a leader or a quorum.

use std::time::{Duration, Instant};

use prometheus::IntCounter;
use zue_core::{Epoch, RoleView};
use zue_proto::v1::ElectionReason;

use crate::driver::Driver;
use crate::driver::clock::{AgreedTime, unix_ms};
use crate::driver::handle::Heard;
use crate::driver::state::Reach;
use crate::metrics::{FAILOVERS, STALLS};
use crate::num::{gauge, wide};

/// The way in which this replica came to lead.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// When it last led.
    pub(crate) led_until: Option<Instant>,
    /// The reason of its appointment, and since when nobody had led then; until it has committed something in its epoch.
    begun: Option<(ElectionReason, Instant)>,
    /// The newest epoch that it has led.
    epoch: Epoch,
    measured: Option<Instant>,
}

impl Driver {
    /// It leads an epoch, perhaps one that it led already.
    pub(crate) fn begins_to_lead(&mut self, epoch: Epoch) {
        if epoch <= self.change.epoch {
            return;
        }
        let (reason, metrics) = (self.parts.standing.elected_for, &self.parts.metrics);
        match reason {
            reason if is_failover(reason) => metrics.failovers.with_label_values(&[reason.as_str_name()]).inc(),
            ElectionReason::HandOver => metrics.switchovers.inc(),
            _ => {}
        }
        let heard = self.following.heard.as_deref().and_then(Heard::last);
        let since = [Some(self.born), self.change.led_until, heard].into_iter().flatten().max().unwrap_or(self.born);
        (self.change.epoch, self.change.begun) = (epoch, Some((reason, since)));
    }

    /// Something was committed: the first in its epoch ends the time without a leader.
    pub(crate) fn leads_for_good(&mut self) {
        let Some((reason, since)) = self.change.begun else { return };
        let RoleView::Leader { settled: true, .. } = self.engine.replica().role(self.now()) else { return };
        self.change.begun = None;
        let took = since.elapsed().as_secs_f64();
        match reason {
            reason if is_failover(reason) => self.parts.metrics.failover_duration.observe(took),
            ElectionReason::HandOver => self.parts.metrics.switchover_duration.observe(took),
            _ => {}
        }
    }

    /// Sets what is read from the replica, once a tick.
    pub(crate) fn measure(&mut self) {
        let (now, own_ms, metrics) = (self.now(), unix_ms(), &self.parts.metrics);
        let replica = self.engine.replica();
        let known = |(agreed_ms, told_end)| AgreedTime { agreed_ms, told_end };
        self.parts.handle.time.tell(replica.agreed_ms(now, own_ms).zip(replica.told_end()).map(known));
        let told_ms = replica.told_ms(now, own_ms);
        self.clocks.look((now, own_ms), told_ms, self.engine.last_timestamp_ms(), metrics);
        let catch_up = |counter: &IntCounter, now: u64| counter.inc_by(now.saturating_sub(counter.get()));
        catch_up(&metrics.isr_shrinks, replica.isr_counts().shrinks);
        catch_up(&metrics.isr_expands, replica.isr_counts().expands);
        metrics.epoch.set(gauge(replica.history().last_epoch().0));
        metrics.log_end.set(gauge(replica.log().end.0));
        metrics.commit.set(gauge(replica.commit_end().0));
        metrics.producers.set(gauge(wide(replica.producers().len())));
        metrics.restored.set(replica.is_restored().into());
        metrics.has_problem.set(self.problem().is_some().into());
        let stalled = self.troubles.full.as_ref().map(crate::storage::Stalled::reason);
        for reason in STALLS {
            let is_so = stalled == Some(reason);
            metrics.stalled.with_label_values(&[reason.as_str_name()]).set(is_so.into());
        }
        self.measure_role();
    }

    fn measure_role(&mut self) {
        let (at, metrics) = (Instant::now(), &self.parts.metrics);
        let passed = self.change.measured.replace(at).map_or(Duration::ZERO, |before| at - before).as_secs_f64();
        let role = self.engine.replica().role(self.now());
        let has_leader = match role {
            RoleView::Leader { .. } => true,
            RoleView::Follower { connected, .. } => connected,
            RoleView::Idle { .. } | RoleView::Failed => false,
        };
        metrics.failed.set(matches!(role, RoleView::Failed).into());
        metrics.is_leader.set(matches!(role, RoleView::Leader { .. }).into());
        metrics.has_leader.set(has_leader.into());
        if !has_leader {
            metrics.without_leader.inc_by(passed);
        }
        let Reach { quorum, writing } = self.reach();
        if writing < quorum {
            metrics.without_quorum.inc_by(passed);
        }
        let (voters, isr) = match &role {
            RoleView::Leader { electorate, isr, .. } => (electorate.len(), isr.len()),
            _ => (0, 0),
        };
        metrics.voters.set(gauge(wide(voters)));
        metrics.isr_size.set(gauge(wide(isr)));
        metrics.quorum.set(quorum.into());
        metrics.in_reach.set(writing.into());
    }
}

/// Tells whether nobody had planned such an election. An older controller does not say, and then it is counted as neither.
fn is_failover(reason: ElectionReason) -> bool {
    FAILOVERS.contains(&reason)
}
