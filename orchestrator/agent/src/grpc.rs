//! One unary gRPC call over a stream that is connected: to drivers of volumes, and to what a probe asks. The
//! other side may hang and lie: the caller has the deadline, and answers have a limit.

use std::error::Error as _;
use std::io;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What is asked, and how.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom the request names.
    pub authority: &'a str,
    /// Service and method.
    pub path: &'static str,
    pub user_agent: &'static str,
    /// The largest answer that is read, in bytes.
    pub answer_limit: usize,
}

/// Asks once. The connection ends with the call.
///
/// # Errors
///
/// The status that the server gives, or what gRPC calls it where there is no answer.
pub async fn ask<S, Q, A>(stream: S, call: Call<'_>, question: Q) -> Result<A, Status>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let endpoint = Endpoint::from_shared(format!("http://{}", call.authority));
    let endpoint = endpoint.and_then(|endpoint| endpoint.user_agent(call.user_agent));
    let mut stream = Some(TokioIo::new(stream));
    // One that has ended is not opened again: this is one call.
    let open = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)) }
    });
    let endpoint = endpoint.map_err(unavailable)?;
    let channel = endpoint.connect_with_connector(open).await;
    let mut grpc =
        Grpc::new(channel.map_err(unavailable)?).max_decoding_message_size(call.answer_limit);
    grpc.ready().await.map_err(unavailable)?;
    let path = PathAndQuery::from_static(call.path);
    let answer = grpc.unary(Request::new(question), path, ProstCodec::default());
    answer.await.map(Response::into_inner)
}

/// What lies behind an error of the transport says more than itself.
fn unavailable(error: tonic::transport::Error) -> Status {
    let text = match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    Status::unavailable(text)
}
