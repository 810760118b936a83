//! The limits that no server passes on this machine with this generator: what the kernel takes for the writes of a
//! watch, and the rates of a server that answers everything at once with bytes that are ready.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use sys::certificates::Credentials;
use sys::tls::{ClientCertificate, ShownCertificate, server_config};
use tokio_rustls::TlsAcceptor;

/// The first argument of the process that answers without looking: `ready-answers ADDRESS DIRECTORY`.
pub const MODE: &str = "ready-answers";
/// A config map of the bench as our server writes it, and a list of 3,000.
const OBJECT_BYTES: usize = 1_300;
const LIST_BYTES: usize = 4_400_000;

/// An event of the bench's object in a TLS record.
const EVENT_BYTES: usize = 1024;

/// Microseconds of the writer's CPU for one event to one of `watchers` connections over loopback, plain and
/// from a buffer that is ready; each connection is written to `events` times.
///
/// # Errors
///
/// Those of the sockets.
pub fn write_us(watchers: usize, events: usize) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut sockets = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..watchers {
        let reader = TcpStream::connect(address)?;
        let (writer, _) = listener.accept()?;
        writer.set_nodelay(true)?;
        sockets.push(writer);
        readers.push(read(reader));
    }
    let before = cpu_us()?;
    for _ in 0..events {
        for socket in &mut sockets {
            socket.write_all(&[b'x'; EVENT_BYTES])?;
        }
    }
    let took = cpu_us()? - before;
    drop(sockets);
    for reader in readers {
        let ended = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        ended?;
    }
    Ok(took / (watchers * events) as f64)
}

/// Answers each request on `ADDRESS` at once, with the certificate in `DIRECTORY`: an object, or a list if it asks for
/// a label. The runtime is that of our server: two threads.
///
/// # Errors
///
/// Those of the files and of the socket.
pub fn serve(arguments: &[String]) -> Result<()> {
    let [address, directory] = arguments else {
        bail!("{MODE} ADDRESS DIRECTORY");
    };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let file = |name: &str| {
        let path = Path::new(directory).join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (certificate, key) = (file("server.crt")?, file("server.key")?);
    let shown = ShownCertificate::new(&Credentials { certificate, key })?;
    let tls = server_config(shown, &file("ca.crt")?, ClientCertificate::Optional)?;
    let tls = TlsAcceptor::from(Arc::new(tls));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let answers = Answers::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, answers) = (tls.clone(), answers.clone());
            // A client that is gone is of no interest.
            tokio::spawn(async move {
                let stream = tls.accept(stream).await?;
                let service = service_fn(move |request| answers.clone().answer(request));
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                anyhow::Ok(served.await?)
            });
        }
    })
}

/// What is answered.
#[derive(Clone)]
struct Answers {
    object: Bytes,
    list: Bytes,
}

impl Answers {
    fn new() -> Self {
        let text = |bytes| Bytes::from(vec![b'x'; bytes]);
        Self {
            object: text(OBJECT_BYTES),
            list: text(LIST_BYTES),
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_list = request
            .uri()
            .query()
            .is_some_and(|it| it.contains("labelSelector"));
        // A body that breaks off ends its connection.
        let _ = request.into_body().collect().await;
        let body = if is_list { self.list } else { self.object };
        Ok(Response::new(Full::new(body)))
    }
}

/// Reads until the end.
fn read(mut socket: TcpStream) -> JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        let mut buffer = [0; 4 * EVENT_BYTES];
        while socket.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

/// Of this thread; to the nanosecond, where getrusage(2) may count by ticks.
fn cpu_us() -> Result<f64> {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(used.num_nanoseconds() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_write_takes_some_time() {
        assert!(super::write_us(3, 200).unwrap() > 0.0);
    }
}
