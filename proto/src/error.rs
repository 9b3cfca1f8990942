//! Errors on the wire: a `zue.v1.Error` inside the details of a gRPC status, so that a program reads facts and a person reads
//! the message.

use prost::Message as _;
use tonic::{Code, Status};

use crate::v1::{self, Reason};

const TYPE_URL: &str = "type.googleapis.com/zue.v1.Error";

/// The most that a message for people has: it may repeat what somebody sent, and travels in headers.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// The text, cut to what a message may have.
pub fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// The gRPC code of a reason. Retriable ones are the codes that generic clients retry.
fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified => Code::Unknown,
        Reason::NotLeader
        | Reason::NoQuorum
        | Reason::StaleEpoch
        | Reason::SequenceGap
        | Reason::WrongTarget
        | Reason::NeedsOrigin => Code::FailedPrecondition,
        Reason::SteppedDown | Reason::ShuttingDown | Reason::StorageFailed | Reason::StorageRefused => {
            Code::Unavailable
        }
        Reason::Overloaded | Reason::DiskFull | Reason::TooManyFiles => Code::ResourceExhausted,
        Reason::TimedOut => Code::DeadlineExceeded,
        Reason::TooLarge | Reason::Invalid => Code::InvalidArgument,
        Reason::OffsetOutOfRange => Code::OutOfRange,
        Reason::UnknownProducer => Code::NotFound,
        Reason::Duplicate => Code::AlreadyExists,
        Reason::Corrupt => Code::DataLoss,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
    }
}

/// The gRPC status of an error.
pub fn status_of(error: v1::Error) -> Status {
    status_with(code_of(error.reason()), error)
}

/// The same, with the code that gRPC has for it.
pub fn status_with(code: Code, error: v1::Error) -> Status {
    let error = v1::Error { message: cut(error.message), ..error };
    let message = error.message.clone();
    let any = prost_types::Any { type_url: TYPE_URL.to_owned(), value: error.encode_to_vec() };
    let details = tonic_types::pb::Status { code: i32::from(code), message: message.clone(), details: vec![any] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// The error inside a gRPC status, if a Zue node made it.
pub fn error_of(status: &Status) -> Option<v1::Error> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?;
    let any = details.details.iter().find(|any| any.type_url == TYPE_URL)?;
    v1::Error::decode(any.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_status() {
        let error = v1::Error { message: "no quorum".to_owned(), log_start: 3, ..Default::default() };
        assert_eq!(error_of(&status_of(error.clone())), Some(error));
        assert_eq!(error_of(&Status::unavailable("a proxy's words")), None);
    }

    #[test]
    fn a_message_is_cut_between_two_characters() {
        for text in ["x".repeat(5000), "äö".repeat(5000), format!("x{}", "語".repeat(5000))] {
            let status = status_of(v1::Error { message: text.clone(), ..Default::default() });
            assert!(status.message().len() <= MESSAGE_BYTES_MAX, "{}", status.message().len());
            assert!(text.starts_with(status.message().strip_suffix('…').unwrap()));
            assert_eq!(error_of(&status).unwrap().message, status.message());
        }
        assert_eq!(cut("short".to_owned()), "short");
    }
}
