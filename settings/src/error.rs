//! Settings of a node that cannot be used: each error names the field, the value and what to write instead.

use std::fmt::Display;
use std::path::PathBuf;

use crate::quorum::BadQuorum;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not say what a node's file says; the source names the field and the line.
    #[error("invalid configuration file {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: serde_yaml::Error,
    },
    /// The file says nothing at all, as one does that was cut off when it was written.
    #[error("{} is empty: write the node's settings, or {{}} for the defaults", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A section is named and says nothing, as one that was cut off.
    #[error("{}: {section} is empty: write its settings, or leave it out for the defaults", path.display())]
    EmptySection {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
    },
    /// A value out of its bounds.
    #[error("{field} is {value}: it must be between {min} and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The least it may be.
        min: String,
        /// The most it may be.
        max: String,
    },
    /// A value that cannot be.
    #[error("{field} is {value:?}: {remedy}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The remedy: what to write instead.
        remedy: &'static str,
    },
    /// A quorum that could let two leaders commit, or none.
    #[error(transparent)]
    Quorum(#[from] BadQuorum),
}

/// Nothing if the value is within its bounds, both included.
pub(crate) fn bounded<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, value: value.to_string(), min: min.to_string(), max: max.to_string() })
}
