//! Appends two records as one, and reads them back. Run it beside `make run`:
//! `cargo run -p zue-client --example append_and_read -- 127.0.0.1:9440`

use std::error::Error;

use zue_client::{Client, ClientConfig, NewRecord, ReadOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for value in run(std::env::args().skip(1).collect()).await? {
        println!("{value}");
    }
    Ok(())
}

/// Gives the values that were read.
pub(crate) async fn run(servers: Vec<String>) -> Result<Vec<String>, Box<dyn Error>> {
    let client = Client::new(servers, ClientConfig::default())?;
    let record = |value: &str| NewRecord { value: value.to_owned().into(), ..NewRecord::default() };
    // Both or none, and once, however often it has to be tried.
    let appended = client.append(vec![record("first"), record("second")]).await?;
    let options =
        ReadOptions { from: appended.base_offset, max: Some(appended.count.into()), ..ReadOptions::default() };
    let mut reader = client.read(options);
    let mut values = Vec::new();
    while let Some(batch) = reader.next().await {
        values.extend(batch?.records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()));
    }
    Ok(values)
}
