//! Every bound on what a frame or a batch may be, in one place.

/// The most voters that an epoch start names, and the most old voters.
pub const VOTERS_MAX: usize = 64;

/// Bounds on what is appended and on what a peer may send. Checked on the way in; what is in the log is not checked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Key, value and headers of one record together, bytes.
    pub record_bytes_max: u32,
    /// A key, bytes.
    pub key_bytes_max: u32,
    /// Headers of one record.
    pub headers_max: u16,
    /// A header's name, bytes of UTF-8.
    pub header_name_bytes_max: u16,
    /// A header's value, bytes.
    pub header_value_bytes_max: u32,
    /// Records of one append.
    pub append_records_max: u32,
    /// A batch as encoded, bytes: one append, or what a peer sends at once.
    pub batch_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_bytes_max: 1 << 20,
            key_bytes_max: 64 << 10,
            headers_max: 64,
            header_name_bytes_max: 256,
            header_value_bytes_max: 64 << 10,
            append_records_max: 10_000,
            batch_bytes_max: 8 << 20,
        }
    }
}

impl Limits {
    /// For frames that were checked when they were written.
    pub(crate) const NONE: Self = Self {
        record_bytes_max: u32::MAX,
        key_bytes_max: u32::MAX,
        headers_max: u16::MAX,
        header_name_bytes_max: u16::MAX,
        header_value_bytes_max: u32::MAX,
        append_records_max: u32::MAX,
        batch_bytes_max: u32::MAX,
    };
}

/// What a limit bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// [`Limits::record_bytes_max`].
    RecordBytes,
    /// [`Limits::key_bytes_max`].
    KeyBytes,
    /// [`Limits::headers_max`].
    Headers,
    /// [`Limits::header_name_bytes_max`].
    HeaderNameBytes,
    /// [`Limits::header_value_bytes_max`].
    HeaderValueBytes,
    /// [`Limits::append_records_max`].
    AppendRecords,
    /// [`Limits::batch_bytes_max`].
    BatchBytes,
}

impl std::fmt::Display for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RecordBytes => "bytes of a record's key, value and headers",
            Self::KeyBytes => "bytes of a key",
            Self::Headers => "headers of a record",
            Self::HeaderNameBytes => "bytes of a header's name",
            Self::HeaderValueBytes => "bytes of a header's value",
            Self::AppendRecords => "records of an append",
            Self::BatchBytes => "bytes of a batch",
        })
    }
}

/// Something larger than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{size} {what} are more than the limit of {max}")]
pub struct LimitError {
    /// What is bounded.
    pub what: Bounded,
    /// How large it is.
    pub size: u64,
    /// How large it may be.
    pub max: u64,
}

impl Bounded {
    /// Nothing if `size` is within `max`.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(self, size: usize, max: impl Into<u64>) -> Result<(), LimitError> {
        let (size, max) = (crate::num::wide(size), max.into());
        if size > max { Err(LimitError { what: self, size, max }) } else { Ok(()) }
    }
}
