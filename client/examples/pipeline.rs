//! Appends many records without waiting for each: `cargo run -p zue-client --example pipeline -- 127.0.0.1:9440`

use std::error::Error;

use zue_client::{Client, ClientConfig, NewRecord};

/// The number of records that are appended.
const RECORDS: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{} records are committed", run(std::env::args().skip(1).collect()).await?);
    Ok(())
}

/// Gives how many records were acknowledged.
pub(crate) async fn run(servers: Vec<String>) -> Result<usize, Box<dyn Error>> {
    let client = Client::new(servers, ClientConfig::default())?;
    let (appender, mut acks) = client.appender();
    tokio::spawn(async move {
        for number in 0..RECORDS {
            let record = NewRecord { value: number.to_string().into(), ..NewRecord::default() };
            // It waits while much is under way. It fails once the acknowledgements have ended; those say why.
            if appender.push(record).await.is_err() {
                return;
            }
        }
    });
    let mut acknowledged = 0;
    while let Some(ack) = acks.next().await {
        acknowledged += usize::try_from(ack?.count)?;
    }
    Ok(acknowledged)
}
