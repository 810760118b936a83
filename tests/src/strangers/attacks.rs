//! The attacks: one row each, with what its client should hear.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::{Target, Who};

/// Something that many clients do over and over.
pub struct Attack {
    pub name: &'static str,
    /// Clients at once.
    pub clients: usize,
    /// How long each waits before it does it again.
    pub pause: Duration,
    /// What it hears in the end: the status of an answer, or that it was cut off.
    pub hears: &'static str,
    once: fn(Target) -> Once,
}

type Once = Pin<Box<dyn Future<Output = Result<String>> + Send>>;

/// What a client says that got no answer.
pub const CUT_OFF: &str = "cut off";
/// A client that hears nothing gives up, and has succeeded.
const PATIENCE: Duration = Duration::from_secs(90);
const DRIP: Duration = Duration::from_millis(500);
const EVENTS: &str = "/api/v1/namespaces/default/events";
const JOIN: &str = "/orchestrator/v1/join";
const JSON: &str = "content-type: application/json\r\n";
const YAML: &str = "content-type: application/yaml\r\n";
const MIB: usize = 1024 * 1024;

macro_rules! once {
    (|$target:ident| $what:expr) => {
        |$target: Target| Box::pin(async move { $what.await })
    };
}

const fn attack(
    name: &'static str,
    (clients, pause_ms): (usize, u64),
    hears: &'static str,
    once: fn(Target) -> Once,
) -> Attack {
    Attack {
        name,
        clients,
        pause: Duration::from_millis(pause_ms),
        hears,
        once,
    }
}

pub const ATTACKS: &[Attack] = &[
    attack(
        "10,000 connections that say nothing",
        (10_000, 60_000),
        CUT_OFF,
        once!(|to| silent(to)),
    ),
    attack(
        "idle after the handshake",
        (1500, 60_000),
        CUT_OFF,
        once!(|to| idle(to, Who::Stranger, "h2")),
    ),
    attack(
        "the same with a certificate",
        (1500, 60_000),
        CUT_OFF,
        once!(|to| idle(to, Who::Node, "http/1.1")),
    ),
    attack(
        "slow hellos",
        (500, 100),
        CUT_OFF,
        once!(|to| slow_hello(to)),
    ),
    attack("slow heads", (200, 100), "408", once!(|to| slow_head(to))),
    attack(
        "slow bodies of a node",
        (200, 100),
        "504",
        once!(|to| slow_body(to, Who::Node, EVENTS)),
    ),
    attack(
        "slow bodies to join",
        (50, 1000),
        "401",
        once!(|to| slow_body(to, Who::Stranger, JOIN)),
    ),
    attack(
        "bodies of 100 MiB",
        (4, 250),
        "403",
        once!(|to| large_body(to, Who::Stranger)),
    ),
    attack(
        "bodies of 100 MiB of a node",
        (4, 250),
        "413",
        once!(|to| large_body(to, Who::Node)),
    ),
    attack("gzip bombs", (8, 100), "415", once!(|to| gzip(to))),
    attack(
        "JSON of 10,000 levels",
        (8, 100),
        "400",
        once!(|to| deep(to)),
    ),
    attack("aliases of YAML", (8, 250), "400", once!(|to| aliases(to))),
    attack(
        "bodies of a million parts",
        (4, 250),
        "400",
        once!(|to| parts(to)),
    ),
    attack(
        "selectors of 1 MiB",
        (8, 100),
        "431",
        once!(|to| selector(to)),
    ),
    attack(
        "floods of header fields",
        (8, 100),
        "431",
        once!(|to| fields(to)),
    ),
    attack(
        "streams that are reset at once",
        (8, 250),
        CUT_OFF,
        once!(|to| resets(to)),
    ),
    attack(
        "answers that are not read",
        (500, 1000),
        CUT_OFF,
        once!(|to| unread(to)),
    ),
];

impl Attack {
    /// The same of at most so many clients: each handshake costs the attacker as much as the server, and
    /// here they share a machine.
    pub fn of(&self, clients: usize) -> Self {
        Self {
            clients: self.clients.min(clients),
            ..*self
        }
    }

    /// Attacks until it is dropped; tells what each client hears.
    pub async fn run(&self, target: &Target, mut heard: impl FnMut(String)) {
        let (sender, mut answers) = tokio::sync::mpsc::channel(16);
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..self.clients {
            let (target, sender) = (target.clone(), sender.clone());
            let (once, pause) = (self.once, self.pause);
            clients.spawn(async move {
                // Not all in one moment: that would be an attack on the attacker.
                sleep(Duration::from_micros(client as u64 * 200)).await;
                loop {
                    let answer = timeout(PATIENCE, once(target.clone())).await;
                    let answer = match answer {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(_)) => CUT_OFF.to_owned(),
                        Err(_) => "nothing".to_owned(),
                    };
                    let _ = sender.send(answer).await;
                    sleep(pause).await;
                }
            });
        }
        while let Some(answer) = answers.recv().await {
            heard(answer);
        }
    }

    /// Does it once.
    pub async fn once(&self, target: &Target) -> String {
        let answer = timeout(PATIENCE, (self.once)(target.clone())).await;
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => CUT_OFF.to_owned(),
            Err(_) => "nothing".to_owned(),
        }
    }
}

async fn silent(target: Target) -> Result<String> {
    hear(&mut target.dial().await?).await
}

async fn idle(target: Target, who: Who, protocol: &str) -> Result<String> {
    hear(&mut target.secure(who, protocol).await?).await
}

async fn slow_hello(target: Target) -> Result<String> {
    let stream = target.dial().await?;
    // The head of a record of 16,000 bytes, and then its bytes.
    drip(stream, &[22, 3, 1, 0x3e, 0x80, 1], 1).await
}

async fn slow_head(target: Target) -> Result<String> {
    let stream = target.secure(Who::Stranger, "http/1.1").await?;
    drip(stream, b"GET /version HTTP/1.1\r\nx: ", b'y').await
}

async fn slow_body(target: Target, who: Who, path: &str) -> Result<String> {
    let stream = target.secure(who, "http/1.1").await?;
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 1000\r\n\r\n");
    drip(stream, head.as_bytes(), b' ').await
}

async fn large_body(target: Target, who: Who) -> Result<String> {
    let stream = target.secure(who, "http/1.1").await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let length = 100 * MIB;
    let head =
        format!("POST {EVENTS} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: {length}\r\n\r\n");
    writer.write_all(head.as_bytes()).await?;
    let pushing = async {
        // Goes on whatever it is told, but not as fast as the machine is.
        for _ in 0..length / 65_536 {
            if writer.write_all(&[b' '; 65_536]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let (heard, ()) = tokio::join!(hear(&mut reader), pushing);
    heard
}

async fn gzip(target: Target) -> Result<String> {
    // A thousand million zeros begin so; how it goes on nobody should look at.
    let mut bomb = vec![0; MIB];
    bomb[..4].copy_from_slice(&[0x1f, 0x8b, 8, 0]);
    let encoded = format!("{JSON}content-encoding: gzip\r\n");
    post(&target, &encoded, &bomb).await
}

async fn deep(target: Target) -> Result<String> {
    let levels = 10_000;
    let body = r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
    post(&target, JSON, body.as_bytes()).await
}

async fn aliases(target: Target) -> Result<String> {
    let (anchor, aliases) = ("0,".repeat(10_000), "*x,".repeat(100_000));
    let body = format!("kind: Event\nx: &x [{anchor}]\ny: [{aliases}]\n");
    post(&target, YAML, body.as_bytes()).await
}

async fn parts(target: Target) -> Result<String> {
    let body = format!(r#"{{"x":[{}{{}}]}}"#, "{},".repeat(1_000_000));
    post(&target, JSON, body.as_bytes()).await
}

async fn selector(target: Target) -> Result<String> {
    // Made once, here and below: elsewhere the attackers' own work would cost this machine nothing.
    static HEAD: LazyLock<String> = LazyLock::new(|| {
        let selector = format!("labelSelector={}", "a%2C".repeat(MIB / 4));
        format!("GET /api/v1/nodes?{selector} HTTP/1.1\r\nhost: x\r\n\r\n")
    });
    ask(target.secure(Who::Node, "http/1.1").await?, HEAD.as_bytes()).await
}

async fn fields(target: Target) -> Result<String> {
    static HEAD: LazyLock<String> = LazyLock::new(|| {
        let fields: String = (0..20_000)
            .map(|n| format!("x-{n}: {n:0>40}\r\n"))
            .collect();
        format!("GET /version HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
    });
    ask(
        target.secure(Who::Stranger, "http/1.1").await?,
        HEAD.as_bytes(),
    )
    .await
}

/// CVE-2023-44487, in frames of HTTP/2 made by hand.
async fn resets(target: Target) -> Result<String> {
    let stream = target.secure(Who::Stranger, "h2").await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let mut text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    text.extend(frame(4, 0, 0, &[]));
    // GET, https, /, and the authority `x`: of HPACK's static table.
    let request = [0x82, 0x87, 0x84, 0x41, 1, b'x'];
    for number in 0..5000u32 {
        let stream = 2 * number + 1;
        text.extend(frame(1, 5, stream, &request));
        text.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    let pushing = async {
        let _ = writer.write_all(&text).await;
        let _ = writer.flush().await;
    };
    let ((), heard) = tokio::join!(pushing, hear(&mut reader));
    heard.map(|_| CUT_OFF.to_owned())
}

/// Asks on and on and reads no answer: the server stops reading, and ends the connection.
async fn unread(target: Target) -> Result<String> {
    let mut stream = target.secure(Who::Stranger, "http/1.1").await?;
    let ask = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    loop {
        stream.write_all(&ask).await?;
        sleep(Duration::from_millis(10)).await;
    }
}

async fn post(target: &Target, fields: &str, body: &[u8]) -> Result<String> {
    let stream = target.secure(Who::Node, "http/1.1").await?;
    let length = body.len();
    let mut text = format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    text.extend(body);
    ask(stream, &text).await
}

/// Sends all of it, whatever it hears meanwhile.
async fn ask(stream: impl AsyncRead + AsyncWrite, text: &[u8]) -> Result<String> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        let _ = writer.write_all(text).await;
        let _ = writer.flush().await;
    };
    let ((), heard) = tokio::join!(sending, hear(&mut reader));
    heard
}

/// Sends the beginning, and then a byte now and then.
async fn drip(stream: impl AsyncRead + AsyncWrite, beginning: &[u8], byte: u8) -> Result<String> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    writer.write_all(beginning).await?;
    writer.flush().await?;
    let dripping = async {
        loop {
            sleep(DRIP).await;
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        heard = hear(&mut reader) => heard,
        () = dripping => Ok(CUT_OFF.to_owned()),
    }
}

/// The status of the answer.
async fn hear(reader: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = [0; 12];
    reader.read_exact(&mut head).await?;
    let text = std::str::from_utf8(&head).context("not HTTP")?;
    let code = text.split(' ').nth(1).context("no status")?;
    Ok(code.to_owned())
}
