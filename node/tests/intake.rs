//! Appends that come faster than there is room for them.

#![allow(clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use common::{Cluster, error_of, request, value};
use futures::StreamExt as _;
use tonic::codegen::{Bytes, Service as _, http};
use tonic::transport::Endpoint;
use zue_proto::v1::Reason;

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_refused_while_there_is_no_room_to_receive_it() {
    let mut cluster = Cluster::start(1, |config| {
        config.limits.record_bytes_max = "512KiB".parse().unwrap();
        config.limits.append_bytes_max = "1MiB".parse().unwrap();
        config.limits.appends_bytes_max = "1MiB".parse().unwrap();
    })
    .await;
    cluster.elect(Some(0)).await;
    cluster.settle(0).await;
    let append = async || cluster.client(0).await.append(request(vec![value(vec![1; 500 << 10])])).await;
    append().await.unwrap();
    // Somebody says that 600 KiB follow, and stands still.
    let prefix = [&[0][..], &(600_u32 << 10).to_be_bytes()].concat();
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(prefix))]);
    let body = axum::body::Body::from_stream(begun.chain(futures::stream::pending()));
    let call = http::Request::post("/zue.v1.Log/Append").header("content-type", "application/grpc");
    let call = call.body(tonic::body::Body::new(body)).unwrap();
    let address = format!("http://{}", cluster.configs.first().unwrap().listen.client);
    let mut channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let stalled = tokio::spawn(channel.call(call));
    let refused = loop {
        if let Err(status) = append().await {
            break status;
        }
    };
    assert_eq!(error_of(&refused).0, Reason::Overloaded, "{refused:?}");
    assert!(refused.message().contains("being received"), "{refused:?}");
    stalled.abort();
    drop(channel);
    while let Err(status) = append().await {
        assert_eq!(error_of(&status).0, Reason::Overloaded, "{status:?}");
    }
    cluster.stop_all().await;
}
