//! The examples, against servers in memory.

use super::fake::Fake;

#[allow(dead_code, reason = "its main is for people")]
#[path = "../../examples/append_and_read.rs"]
mod append_and_read;
#[allow(dead_code, reason = "its main is for people")]
#[path = "../../examples/pipeline.rs"]
mod pipeline;

#[tokio::test]
async fn the_examples_do_what_they_say() {
    let fake = Fake::start(3).await;
    assert_eq!(append_and_read::run(fake.addresses.clone()).await.unwrap(), ["first", "second"]);
    assert_eq!(pipeline::run(fake.addresses.clone()).await.unwrap(), 1000);
    assert_eq!(fake.state().log.len(), 1002);
}
