//! WebSocket as Kubernetes uses it: each message begins with the number of its channel, or carries SPDY.
//!
//! Channels of exec and attach: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize; of port-forward: 2i data and
//! 2i+1 error of the i-th port. In `v5.channel.k8s.io` channel 255 says which channel the client has finished.

mod frame;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

use crate::session::Fault;
use crate::spdy::Spdy;
use crate::table::{Id, Output, Table};
use frame::{Event, Opcode, Reader, write_head};

/// The channel whose message names a channel that the client has finished.
const CLOSE_CHANNEL: u8 = 255;
/// The client ends in order (RFC 6455, section 7.4.1); Go's server says it without a reason, too.
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// What messages carry.
pub(crate) enum Content {
    Channels { base64: bool, close_signal: bool },
    Spdy(Box<Spdy>),
}

pub(crate) struct WebSocket {
    content: Content,
    reader: Reader,
    message: Message,
    control: BytesMut,
    /// Bytes of `control` that the peer has caused.
    replies: usize,
    peer_closed: bool,
    said_goodbye: bool,
}

/// The message that is being read.
#[derive(Default)]
struct Message {
    channel: Option<u8>,
    /// Base64 that makes no whole group of four yet.
    group: Vec<u8>,
    /// Nothing may follow padding.
    padded: bool,
}

impl WebSocket {
    pub(crate) fn new(content: Content) -> Self {
        Self {
            content,
            reader: Reader::default(),
            message: Message::default(),
            control: BytesMut::new(),
            replies: 0,
            peer_closed: false,
            said_goodbye: false,
        }
    }

    pub(crate) fn input(&mut self, mut input: &[u8], table: &mut Table) -> Result<(), Fault> {
        while let Some(event) = self.reader.next(&mut input)? {
            match event {
                Event::Data(data) => match &mut self.content {
                    Content::Spdy(spdy) => spdy.input(data, table)?,
                    Content::Channels {
                        base64,
                        close_signal,
                    } => self.message.data(data, *base64, *close_signal, table)?,
                },
                Event::EndOfMessage => self.message.end()?,
                Event::Ping(data) => {
                    write_head(Opcode::Pong, data.len(), &mut self.control);
                    self.control.extend_from_slice(data);
                    self.replies += data.len() + 2;
                }
                Event::Pong => {}
                Event::Close(_) => {
                    // The answer is the same close.
                    self.say_goodbye(NORMAL);
                    self.peer_closed = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn output(
        &mut self,
        table: &mut Table,
        out: &mut BytesMut,
        frame: usize,
        chunk: usize,
    ) {
        // Nothing follows a close frame, and a close frame waits until nothing is left to send.
        out.extend_from_slice(&self.control.split());
        self.replies = 0;
        match &mut self.content {
            Content::Spdy(spdy) if !self.said_goodbye => {
                let mut inner = BytesMut::new();
                spdy.output(table, &mut inner, frame, chunk);
                if !inner.is_empty() {
                    write_head(Opcode::Binary, inner.len(), out);
                    out.extend_from_slice(&inner);
                }
            }
            Content::Channels { base64, .. } if !self.said_goodbye => {
                let base64 = *base64;
                while out.len() < chunk
                    && let Some(output) = table.next_output(frame)
                {
                    channel(output, base64, out);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn reply_bytes(&self) -> usize {
        let inner = match &self.content {
            Content::Spdy(spdy) => spdy.reply_bytes(),
            Content::Channels { .. } => 0,
        };
        self.replies + inner
    }

    pub(crate) fn ping(&mut self) {
        if !self.said_goodbye {
            write_head(Opcode::Ping, 0, &mut self.control);
        }
    }

    pub(crate) fn goodbye(&mut self, fault: Option<Fault>) {
        if let Content::Spdy(spdy) = &mut self.content {
            spdy.goodbye(fault);
            let last = spdy.take_control();
            write_head(Opcode::Binary, last.len(), &mut self.control);
            self.control.extend_from_slice(&last);
        }
        self.say_goodbye(match fault {
            None => NORMAL,
            Some(Fault::Protocol(_)) => PROTOCOL_ERROR,
            Some(Fault::Encoding(_)) => INVALID_PAYLOAD,
            Some(Fault::TooLarge(_)) => TOO_BIG,
        });
    }

    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// A message of its own on that channel, before all others.
    pub(crate) fn greet(&mut self, id: Id, data: &[u8]) {
        if let Content::Channels { base64, .. } = self.content {
            let data = Bytes::copy_from_slice(data);
            let output = Output::Data {
                id,
                data,
                fin: false,
            };
            channel(output, base64, &mut self.control);
        }
    }

    fn say_goodbye(&mut self, code: u16) {
        if !self.said_goodbye {
            self.said_goodbye = true;
            write_head(Opcode::Close, 2, &mut self.control);
            self.control.put_u16(code);
        }
    }
}

/// One message of a channel. The end of a channel is the end of the connection: there is no message for it.
fn channel(output: Output, base64: bool, out: &mut BytesMut) {
    let Output::Data { id, data, fin } = output else {
        return;
    };
    let Ok(id) = u8::try_from(id) else {
        return;
    };
    if fin && data.is_empty() {
        return;
    }
    if base64 {
        let text = STANDARD.encode(&data);
        write_head(Opcode::Text, text.len() + 1, out);
        out.put_u8(b'0' + id);
        out.extend_from_slice(text.as_bytes());
    } else {
        write_head(Opcode::Binary, data.len() + 1, out);
        out.put_u8(id);
        out.extend_from_slice(&data);
    }
}

impl Message {
    fn data(
        &mut self,
        mut data: &[u8],
        base64: bool,
        close_signal: bool,
        table: &mut Table,
    ) -> Result<(), Fault> {
        let channel = match (self.channel, data.split_first()) {
            (_, None) => return Ok(()),
            (Some(channel), _) => channel,
            (None, Some((first, rest))) => {
                data = rest;
                let number = if base64 {
                    first.wrapping_sub(b'0')
                } else {
                    *first
                };
                *self.channel.insert(number)
            }
        };
        if channel == CLOSE_CHANNEL && close_signal {
            for closed in data {
                table.finish(Id::from(*closed));
            }
            return Ok(());
        }
        // What the client sends on a channel that it has finished is thrown away.
        if base64 {
            let decoded = self.decode(data)?;
            table.receive(Id::from(channel), &decoded);
        } else {
            table.receive(Id::from(channel), data);
        }
        Ok(())
    }

    /// The bytes of all whole groups of four. Line ends are skipped, as Go's decoder does.
    fn decode(&mut self, data: &[u8]) -> Result<Vec<u8>, Fault> {
        const FAULT: Fault = Fault::Encoding("a message is not base64");
        let symbols = data.iter().filter(|byte| !b"\r\n".contains(byte));
        self.group.extend(symbols);
        let rest = self.group.split_off(self.group.len() / 4 * 4);
        let whole = std::mem::replace(&mut self.group, rest);
        if self.padded && !whole.is_empty() {
            return Err(FAULT);
        }
        self.padded |= whole.last() == Some(&b'=');
        STANDARD.decode(&whole).map_err(|_| FAULT)
    }

    fn end(&mut self) -> Result<(), Fault> {
        let whole = self.group.is_empty();
        *self = Self::default();
        if !whole {
            return Err(Fault::Encoding("a message is not base64"));
        }
        Ok(())
    }
}
