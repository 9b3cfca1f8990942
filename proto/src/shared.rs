//! A stream of appends whose requests their sender keeps, to send them again: they are encoded where they are, and no record is copied.

use std::sync::Arc;

use prost::Message as _;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, EncodeBuf, Encoder, Streaming};
use tonic::codegen::{Body, Bytes, StdError, http::uri::PathAndQuery};
use tonic::{IntoStreamingRequest, Response, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use crate::v1::{AppendRequest, AppendStreamResponse};

/// Calls `zue.v1.Log/AppendStream`. An answer may have `answer_bytes_max` bytes.
///
/// # Errors
/// As for every call.
pub async fn append_stream<S>(
    service: S,
    requests: impl IntoStreamingRequest<Message = Arc<AppendRequest>>,
    answer_bytes_max: usize,
) -> Result<Response<Streaming<AppendStreamResponse>>, Status>
where
    S: GrpcService<tonic::body::Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let mut client = Grpc::new(service).max_decoding_message_size(answer_bytes_max);
    client.ready().await.map_err(|error| {
        let error: StdError = error.into();
        Status::unknown(format!("the connection is not ready: {error}"))
    })?;
    let path = PathAndQuery::from_static("/zue.v1.Log/AppendStream");
    client.streaming(requests.into_streaming_request(), path, SharedCodec).await
}

/// Requests by reference, answers as everywhere.
#[derive(Clone, Copy, Debug)]
struct SharedCodec;

/// Encodes a request where it is.
#[derive(Clone, Copy, Debug)]
struct SharedEncoder;

impl Codec for SharedCodec {
    type Encode = Arc<AppendRequest>;
    type Decode = AppendStreamResponse;
    type Encoder = SharedEncoder;
    type Decoder = ProstDecoder<AppendStreamResponse>;

    fn encoder(&mut self) -> SharedEncoder {
        SharedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<AppendRequest, AppendStreamResponse>::default().decoder()
    }
}

impl Encoder for SharedEncoder {
    type Item = Arc<AppendRequest>;
    type Error = Status;

    fn encode(&mut self, request: Arc<AppendRequest>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}
