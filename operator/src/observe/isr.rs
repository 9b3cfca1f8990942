//! Who left and who joined the replicas in sync, by what the operator itself sees.

/// The replicas in sync as last seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IsrTracker {
    isr: Vec<String>,
    has_begun: bool,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IsrChange {
    /// Pods that are no longer in sync.
    pub left: Vec<String>,
    /// Pods that are now.
    pub joined: Vec<String>,
}

impl IsrTracker {
    /// Begins with who was in sync when the operator last wrote it down.
    pub fn new(isr: Vec<String>) -> Self {
        Self { has_begun: !isr.is_empty(), isr }
    }

    /// Who was in sync when last seen.
    pub fn isr(&self) -> &[String] {
        &self.isr
    }

    /// Takes note of who is in sync now. Before anyone was, nobody joins: the cluster begins.
    pub fn see(&mut self, isr: Vec<String>) -> IsrChange {
        if self.isr.is_empty() && !self.has_begun {
            self.has_begun = !isr.is_empty();
            self.isr = isr;
            return IsrChange::default();
        }
        let missing_in = |these: &[String], those: &[String]| -> Vec<String> {
            those.iter().filter(|pod| !these.contains(pod)).cloned().collect()
        };
        let change = IsrChange { left: missing_in(&isr, &self.isr), joined: missing_in(&self.isr, &isr) };
        self.isr = isr;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_cluster_that_begins_expands_nothing_but_one_that_was_lost_does() {
        let mut tracker = IsrTracker::new(Vec::new());
        assert_eq!(tracker.see(Vec::new()), IsrChange::default());
        assert_eq!(tracker.see(pods(&["a", "b"])), IsrChange::default());
        assert_eq!(tracker.see(Vec::new()).left, pods(&["a", "b"]));
        assert_eq!(tracker.see(pods(&["a", "b"])).joined, pods(&["a", "b"]));
    }

    #[test]
    fn who_left_and_who_joined_is_told_each_time() {
        let mut tracker = IsrTracker::new(pods(&["a", "b", "c"]));
        assert_eq!(tracker.see(pods(&["a", "b", "c"])), IsrChange::default());
        assert_eq!(tracker.see(pods(&["a"])), IsrChange { left: pods(&["b", "c"]), joined: vec![] });
        assert_eq!(tracker.see(pods(&["b"])), IsrChange { left: pods(&["a"]), joined: pods(&["b"]) });
        assert_eq!(tracker.see(pods(&["a", "b", "c"])).joined, pods(&["a", "c"]));
    }
}
