//! The quorum: how many replicas may commit.

use zue_core::quorum::majority;

/// A quorum that is not more than half and at most all of the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a quorum of {quorum} does not go with {replicas} replicas: it must be between {} and {replicas}", majority(*.replicas))]
pub struct BadQuorum {
    /// The number of replicas.
    pub replicas: usize,
    /// The number of them that were to commit.
    pub quorum: u32,
}

/// Checks that a quorum is more than half and at most all of the replicas.
///
/// # Errors
/// When it is not.
pub fn check_quorum(replicas: usize, quorum: u32) -> Result<(), BadQuorum> {
    let fits = usize::try_from(quorum).is_ok_and(|quorum| (majority(replicas)..=replicas).contains(&quorum));
    if fits { Ok(()) } else { Err(BadQuorum { replicas, quorum }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_and_at_most_all() {
        for (replicas, quorum, fits) in
            [(3, 2, true), (3, 3, true), (3, 1, false), (3, 4, false), (4, 2, false), (1, 1, true)]
        {
            assert_eq!(check_quorum(replicas, quorum).is_ok(), fits, "{quorum} of {replicas}");
        }
        let error = check_quorum(3, 1).unwrap_err().to_string();
        assert_eq!(error, "a quorum of 1 does not go with 3 replicas: it must be between 2 and 3");
    }
}
