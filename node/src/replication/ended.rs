//! Why a stream to a follower ended, and what that says of the place where it was looked for.

use std::time::Duration;

use tonic::Status;
use zue_proto::place::NotReached;
use zue_proto::v1::{self, Reason};

use crate::driver::state::DriverEnded;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("no connection: {0}")]
    Connect(NotReached),
    #[error("the call failed: {0}")]
    Call(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("refused: {0}")]
    Refused(String),
    /// Another replica answers there.
    #[error("refused: {0}")]
    Stranger(String),
    #[error("refused: {0}")]
    NeedsOrigin(String),
    #[error("the follower answered out of turn")]
    OutOfTurn,
    #[error("the follower closed the stream")]
    Closed,
    #[error("the log cannot be read: {0}")]
    Read(String),
    #[error(transparent)]
    Gone(#[from] DriverEnded),
}

impl Ended {
    /// All names that [`Ended::name`] gives.
    pub(crate) const NAMES: [&str; 12] = [
        "CONNECT",
        "DISTRUSTED",
        "CALL",
        "TIMEOUT",
        "REFUSED",
        "STRANGER",
        "NEEDS_ORIGIN",
        "OUT_OF_TURN",
        "CLOSED",
        "READ",
        "GONE",
        "PANIC",
    ];

    /// The reason, as a metric names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connect(why) if why.is_distrusted() => "DISTRUSTED",
            Self::Connect(_) => "CONNECT",
            Self::Call(_) => "CALL",
            Self::Timeout(_) => "TIMEOUT",
            Self::Refused(_) => "REFUSED",
            Self::Stranger(_) => "STRANGER",
            Self::NeedsOrigin(_) => "NEEDS_ORIGIN",
            Self::OutOfTurn => "OUT_OF_TURN",
            Self::Closed => "CLOSED",
            Self::Read(_) => "READ",
            Self::Gone(_) => "GONE",
        }
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Call(zue_proto::error_of(&status).map_or_else(|| status.to_string(), |error| error.message))
    }
}

impl Ended {
    /// The follower's own words.
    pub(crate) fn refused(refused: v1::Refused) -> Self {
        let reason = refused.error.as_ref().map(v1::Error::reason);
        let message = refused.error.map_or_else(|| "without a reason".to_owned(), |error| error.message);
        match reason {
            Some(Reason::NeedsOrigin) => Self::NeedsOrigin(message),
            Some(Reason::WrongTarget) => Self::Stranger(message),
            _ => Self::Refused(message),
        }
    }

    /// Tells whether the server at that address failed to prove its identity: then nothing more is sent to it, on any stream.
    pub(crate) fn is_distrusted(&self) -> bool {
        matches!(self, Self::Connect(why) if why.is_distrusted())
    }

    /// Tells whether the follower is where it was looked for, or that somebody else is; if it says anything about that.
    pub(crate) fn is_of_the_follower(&self) -> Option<bool> {
        match self {
            Self::Refused(_) | Self::NeedsOrigin(_) => Some(true),
            Self::Stranger(_) | Self::Call(_) | Self::Timeout(_) | Self::OutOfTurn | Self::Closed => Some(false),
            Self::Connect(_) | Self::Read(_) | Self::Gone(_) => None,
        }
    }
}
