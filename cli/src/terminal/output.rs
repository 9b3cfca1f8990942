//! Printing: lines and JSON on standard output, and a quiet end when nobody reads them.

use std::io::{self, StdoutLock, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::Serialize;
use zue_client::{Header, Record};

/// The form in which a result is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Json,
}

/// Nobody reads standard output any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output")]
pub(crate) struct BrokenPipe;

/// Standard output, buffered until it is flushed.
pub(crate) struct Out(io::BufWriter<StdoutLock<'static>>);

fn told(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return BrokenPipe.into();
    }
    anyhow::Error::new(error).context("standard output cannot be written")
}

impl Out {
    pub(crate) fn new() -> Self {
        Self(io::BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    pub(crate) fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(line).and_then(|()| self.0.write_all(b"\n")).map_err(told)
    }

    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_vec(value)?)
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.0.flush().map_err(told)
    }
}

/// One line, at once.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = Out::new();
    out.line(text.as_bytes())?;
    out.flush()
}

/// Prints the version of this program.
pub(crate) fn version(output: Output) -> anyhow::Result<()> {
    let (version, protocol) = (env!("CARGO_PKG_VERSION"), zue_proto::PROTOCOL_VERSION);
    match output {
        Output::Table => line(&format!("zue {version} (protocol {protocol})")),
        Output::Json => line(&serde_json::json!({ "version": version, "protocol": protocol }).to_string()),
    }
}

/// A record for programs.
#[derive(Serialize)]
pub(crate) struct JsonRecord<'a> {
    offset: u64,
    epoch: u64,
    timestamp_ms: u64,
    key: Option<String>,
    value: String,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    name: &'a str,
    value: String,
}

impl<'a> From<&'a Record> for JsonRecord<'a> {
    fn from(record: &'a Record) -> Self {
        let header = |header: &'a Header| JsonHeader { name: &header.name, value: STANDARD.encode(&header.value) };
        Self {
            offset: record.offset,
            epoch: record.epoch,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_ref().map(|key| STANDARD.encode(key)),
            value: STANDARD.encode(&record.value),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

/// Bytes for people: text as it is, what would disturb the terminal or the columns escaped.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() { text.extend(char.escape_default()) } else { text.push(char) }
        }
        for byte in chunk.invalid() {
            text.extend(byte.escape_ascii().map(char::from));
        }
    }
    text
}

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_the_rest_escaped() {
        assert_eq!(text_of("grün".as_bytes()), "grün");
        assert_eq!(text_of(b"a\tb\x1b[0m\xff"), "a\\tb\\u{1b}[0m\\xff");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["NAME", "X"]), row(["a", ""]), row(["longer", "1"])]), ["NAME    X", "a", "longer  1"]);
    }

    #[test]
    fn json_has_an_absent_key_as_null_and_bytes_in_base64() {
        let record = Record { offset: 7, value: "hi".into(), ..Record::default() };
        let json = serde_json::to_string(&JsonRecord::from(&record)).unwrap();
        assert!(json.contains("\"key\":null") && json.contains("\"value\":\"aGk=\""), "{json}");
    }
}
