//! Connections of the Engine that become the streams of a process, and what a container has written.
//!
//! Not through bollard: it guesses from each piece of a terminal's bytes whether it has a header, so that a
//! container could make the agent wait for 4 GiB. Here the caller says whether there is a terminal, and no frame is
//! kept whole.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, split};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::StreamReader;

use crate::runtime::RuntimeError;
use crate::runtime::streams::{Output, Process};
use sys::front::AnyStream;

/// How much of a process's output is taken at once.
const PIECE_BYTES: usize = 32 * 1024;
/// Of the text of a refusal.
const ERROR_BYTES: usize = 16 * 1024;

/// Asks the Engine at `host` to give its connection away, with a POST to `path`.
pub async fn process(
    host: &str,
    path: &str,
    body: &Value,
    tty: bool,
) -> Result<Process, RuntimeError> {
    let stream = upgrade(host, path, body).await?;
    let (reader, writer) = split(stream);
    let frames = Frames {
        reader,
        tty,
        stderr: false,
        left: 0,
    };
    Ok(Process {
        input: Box::pin(writer),
        output: frames.output(),
    })
}

/// What the Engine at `host` answers a GET of a log with.
pub fn log(
    host: String,
    path: String,
    tty: impl Future<Output = Result<bool, RuntimeError>> + Send + 'static,
) -> BoxStream<'static, Result<Output, RuntimeError>> {
    let opening = async move {
        let tty = tty.await?;
        let request = Request::get(path).body(Full::default());
        let request = request.map_err(|error| lost(&error))?;
        let answer = send(&host, request).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let body = answer.into_body().into_data_stream();
        let frames = Frames {
            reader: StreamReader::new(body.map_err(io::Error::other)),
            tty,
            stderr: false,
            left: 0,
        };
        Ok(frames.output())
    };
    stream::once(opening).try_flatten().boxed()
}

async fn upgrade(host: &str, path: &str, body: &Value) -> Result<AnyStream, RuntimeError> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| lost(&error))?;
    let answer = send(host, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    let upgraded = hyper::upgrade::on(answer).await;
    let upgraded = upgraded.map_err(|error| lost(&error))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

fn lost(error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Unreachable(error.to_string())
}

async fn send(
    host: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, RuntimeError> {
    let stream = dial(host).await.map_err(|error| lost(&error))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| lost(&error))?;
    tokio::spawn(connection.with_upgrades());
    let name = http::HeaderValue::from_static("docker");
    request.headers_mut().insert(header::HOST, name);
    let answer = sender.send_request(request).await;
    answer.map_err(|error| lost(&error))
}

async fn refusal(answer: Response<Incoming>) -> RuntimeError {
    let code = answer.status();
    let text = Limited::new(answer.into_body(), ERROR_BYTES)
        .collect()
        .await;
    let text = text.map(|text| text.to_bytes()).unwrap_or_default();
    let said: Option<Value> = serde_json::from_slice(&text).ok();
    let message = said.as_ref().and_then(|said| said["message"].as_str());
    let message = message.map_or_else(|| format!("the Engine answered {code}"), str::to_owned);
    match code {
        StatusCode::NOT_FOUND => RuntimeError::NotFound(message),
        code => RuntimeError::Refused {
            status: code.as_u16(),
            message,
        },
    }
}

async fn dial(host: &str) -> io::Result<AnyStream> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let address = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"));
    let address = address.ok_or_else(|| io::Error::other(format!("{host}: not a socket")))?;
    let address = address.trim_end_matches('/');
    Ok(Box::new(TcpStream::connect(address).await?))
}

/// The Engine's frames: a byte for the stream, three of nothing, four for the length, then the bytes. Those of a
/// terminal come as they are.
struct Frames<R> {
    reader: R,
    tty: bool,
    stderr: bool,
    left: usize,
}

impl<R: AsyncRead + Unpin + Send + 'static> Frames<R> {
    fn output(self) -> BoxStream<'static, Result<Output, RuntimeError>> {
        stream::unfold(Some(self), |frames| {
            async move {
                let mut frames = frames?;
                match frames.next().await {
                    Ok(Some(output)) => Some((Ok(output), Some(frames))),
                    Ok(None) => None,
                    Err(error) => {
                        let lost = RuntimeError::Unreachable(error.to_string());
                        Some((Err(lost), None))
                    }
                }
            }
            .boxed()
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Output>> {
        let mut most = PIECE_BYTES;
        if !self.tty {
            while self.left == 0 {
                let mut head = [0; 8];
                match self.reader.read_exact(&mut head).await {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    read => read?,
                };
                let [kind, _, _, _, length @ ..] = head;
                self.stderr = kind == 2;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            most = most.min(self.left);
        }
        let mut piece = BytesMut::zeroed(most);
        let length = self.reader.read(&mut piece).await?;
        if length == 0 {
            return Ok(None);
        }
        piece.truncate(length);
        self.left = self.left.saturating_sub(length);
        let piece = piece.freeze();
        Ok(Some(match self.stderr {
            true => Output::Stderr(piece),
            false => Output::Stdout(piece),
        }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(said: &[u8], tty: bool) -> Vec<Output> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(said).await.expect("written");
        drop(far);
        let frames = Frames {
            reader: split(near).0,
            tty,
            stderr: false,
            left: 0,
        };
        frames.output().try_collect().await.expect("no error")
    }

    #[tokio::test]
    async fn the_bytes_of_a_terminal_are_never_taken_for_frames() {
        // Read as a frame, it would be 4 GiB long.
        let said = [1, 0, 0, 0, 255, 255, 255, 255, b'x'];
        let heard = read(&said, true).await;
        assert_eq!(heard, [Output::Stdout(Bytes::copy_from_slice(&said))]);
    }

    #[tokio::test]
    async fn a_frame_is_told_as_it_comes_and_not_kept_whole() {
        let mut said = vec![1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 2, 0, 0, 0, 0, 1, 0, 0];
        said.extend(vec![b'e'; 65_536]);
        said.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, b'c']);
        let heard = read(&said, false).await;
        assert_eq!(heard[0], Output::Stdout(Bytes::from_static(b"ab")));
        let of = |output: &Output| match output {
            Output::Stderr(piece) => piece.len(),
            Output::Stdout(_) => 0,
        };
        assert_eq!(heard.iter().map(of).sum::<usize>(), 65_536);
        assert!(heard.iter().all(|output| of(output) <= PIECE_BYTES));
        assert_eq!(
            heard.last(),
            Some(&Output::Stdout(Bytes::from_static(b"c")))
        );
    }
}
