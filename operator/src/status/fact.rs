//! The content of a condition.

/// The content of a condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// The condition.
    pub type_: &'static str,
    /// True if it holds.
    pub holds: bool,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

pub(super) fn fact(type_: &'static str, holds: bool, reason: &'static str, message: String) -> Fact {
    Fact { type_, holds, reason, message }
}
