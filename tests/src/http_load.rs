//! Requests to a Service, one connection each, or one connection for all; every outcome counted.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// What came of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many requests each pod answered.
    pub by_pod: BTreeMap<String, usize>,
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn answered(&self) -> usize {
        self.by_pod.values().sum()
    }

    fn count(&mut self, result: io::Result<String>) {
        match result {
            Ok(pod) => *self.by_pod.entry(pod).or_default() += 1,
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(3);

/// `requests` connections with one request each, in the calling thread's network namespace.
pub fn connections(to: impl Into<SocketAddr>, requests: usize) -> Outcome {
    let to = to.into();
    let mut outcome = Outcome::default();
    for _ in 0..requests {
        outcome.count(connect(to).and_then(|mut stream| request(&mut stream)));
    }
    outcome
}

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Load {
    /// A new connection for every request. `enter` puts the thread where the client is.
    pub fn connections(to: impl Into<SocketAddr>, enter: impl FnOnce() + Send + 'static) -> Self {
        let to = to.into();
        Self::start(enter, move |stop, outcome| {
            while !stop.load(Ordering::Relaxed) {
                outcome.count(connect(to).and_then(|mut stream| request(&mut stream)));
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    }

    /// One connection that must live through everything.
    pub fn one_connection(
        to: impl Into<SocketAddr>,
        enter: impl FnOnce() + Send + 'static,
    ) -> Self {
        let to = to.into();
        Self::start(enter, move |stop, outcome| {
            let mut stream = match connect(to) {
                Ok(stream) => stream,
                Err(error) => return outcome.count(Err(error)),
            };
            // nginx ends a connection of its own accord after a thousand requests.
            for _ in 0..900 {
                if stop.load(Ordering::Relaxed) || !outcome.failures.is_empty() {
                    return;
                }
                outcome.count(request(&mut stream));
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    }

    fn start(
        enter: impl FnOnce() + Send + 'static,
        run: impl FnOnce(&AtomicBool, &mut Outcome) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            enter();
            let mut outcome = Outcome::default();
            run(&stopped, &mut outcome);
            outcome
        });
        Self { stop, thread }
    }

    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load does not panic")
    }
}

fn connect(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// One request; the name of the pod that answered.
fn request(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    stream
        .get_mut()
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut pod = None;
    let mut chunked = false;
    let mut length = 0;
    loop {
        let line = read_line(stream)?;
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-served-by" => pod = Some(value.to_owned()),
            "transfer-encoding" => chunked = value == "chunked",
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    while chunked {
        let size = usize::from_str_radix(&read_line(stream)?, 16).unwrap_or(0);
        io::copy(&mut stream.by_ref().take(size as u64 + 2), &mut io::sink())?;
        chunked = size > 0;
    }
    io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
    pod.ok_or_else(|| io::Error::other("the answer names no pod"))
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
