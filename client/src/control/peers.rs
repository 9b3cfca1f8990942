//! Connections to the replicas' control port, kept from turn to turn.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use tonic::transport::Channel;
use tonic::{Response, Status};
use zue_proto::v1;
use zue_proto::v1::control_client::ControlClient;

use super::NodeAddress;
use crate::net;

/// One connection an address.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<String, Channel>);

impl Peers {
    pub(super) fn client(&mut self, node: &NodeAddress) -> Result<ControlClient<Channel>, String> {
        if let Some(channel) = self.0.get(node.dialled()) {
            return Ok(ControlClient::new(channel.clone()));
        }
        let channel = net::channel(node.dialled()).map_err(|bad| bad.to_string())?;
        self.0.insert(node.dialled().clone(), channel.clone());
        Ok(ControlClient::new(channel))
    }

    /// The status of every node, asked at the same time.
    pub(super) async fn poll(
        &mut self,
        nodes: &[NodeAddress],
        timeout: Duration,
    ) -> Vec<Result<v1::StatusResponse, String>> {
        self.0.retain(|address, _| nodes.iter().any(|node| node.dialled() == address));
        let clients: Vec<_> = nodes.iter().map(|node| self.client(node)).collect();
        let statuses = join_all(
            clients.into_iter().map(|client| async move { call(timeout, client?.status(v1::StatusRequest {})).await }),
        )
        .await;
        for (node, status) in nodes.iter().zip(&statuses) {
            // The pod may have moved: the next turn looks its name up again instead of waiting for a dead connection.
            if status.is_err() {
                self.0.remove(node.dialled());
            }
        }
        statuses
    }
}

/// The answer, or in words why there is none.
pub(super) async fn call<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::why(&status)),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}
