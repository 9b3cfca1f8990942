//! News of a cluster, for people: what becomes an Event of Kubernetes and a line of the log.

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterEvent {
    /// Tells whether a person may have to look.
    pub warning: bool,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
    /// The pod it is about, if it is about one.
    pub pod: Option<String>,
}

impl ClusterEvent {
    /// Something that needs nobody.
    pub fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), pod: None }
    }

    /// Something that may.
    pub fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, note) }
    }

    /// About a pod.
    #[must_use]
    pub fn about(self, pod: &str) -> Self {
        Self { pod: Some(pod.to_owned()), ..self }
    }
}
