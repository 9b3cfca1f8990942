//! Lines of bytes from a file or a pipe, each within a bound.

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// No server takes a larger record.
const LINE_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes, the most that a record may have")]
    TooLong { line: u64 },
    #[error("line {line} cannot be read")]
    Io { line: u64, source: std::io::Error },
}

/// The lines of a reader, without their newlines. A last line without one is a line, unless it is empty.
pub(crate) struct Lines<R> {
    reader: R,
    line: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        self.line += 1;
        let line = self.line;
        let mut text = Vec::new();
        loop {
            let chunk = self.reader.fill_buf().await.map_err(|source| LineError::Io { line, source })?;
            if chunk.is_empty() {
                return Ok(Some(text).filter(|text| !text.is_empty()).map(Bytes::from));
            }
            let (part, taken, is_whole) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(end) => (chunk.split_at(end).0, end + 1, true),
                None => (chunk, chunk.len(), false),
            };
            if text.len() + part.len() > LINE_BYTES_MAX {
                return Err(LineError::TooLong { line });
            }
            text.extend_from_slice(part);
            self.reader.consume(taken);
            if is_whole {
                return Ok(Some(Bytes::from(text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    async fn lines(text: &[u8]) -> Vec<Bytes> {
        let mut lines = Lines::new(BufReader::with_capacity(4, text));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn every_newline_ends_a_line_and_an_empty_one_counts() {
        assert_eq!(lines(b"").await, Vec::<Bytes>::new());
        assert_eq!(lines(b"\n").await, [""]);
        assert_eq!(lines(b"a\n\nlonger than the buffer\n").await, ["a", "", "longer than the buffer"]);
        assert_eq!(lines(b"a\nlast").await, ["a", "last"]);
        assert_eq!(lines(b"\xff\r\n").await, [b"\xff\r".as_slice()]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_by_its_number() {
        let endless = tokio::io::AsyncReadExt::chain(b"a\n".as_slice(), tokio::io::repeat(b'x'));
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, endless));
        lines.next().await.unwrap();
        assert!(matches!(lines.next().await, Err(LineError::TooLong { line: 2 })));
    }
}
