//! Frames of WebSocket on the server's side (RFC 6455, section 5), as a stream: the data of a message is
//! handed on as it comes, so that a message of any size takes no memory.

use bytes::{BufMut, BytesMut};

use crate::session::Fault;

/// A control frame's most (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Text = TEXT as isize,
    Binary = BINARY as isize,
    Close = CLOSE as isize,
    Ping = PING as isize,
    Pong = PONG as isize,
}

/// What has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A part of a message, unmasked, in the order of the bytes.
    Data(&'a [u8]),
    EndOfMessage,
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bytes of a frame's head, as far as they have come.
    head: BytesMut,
    frame: Option<Frame>,
    /// The payload of a control frame, as far as it has come.
    control: BytesMut,
    /// A message has begun and has not ended.
    in_message: bool,
    scratch: BytesMut,
}

#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the payload that have been read.
    read: u64,
    length: u64,
}

impl Reader {
    /// Reads from `input` until there is an event; None when all of it is read.
    pub(super) fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Event<'a>>, Fault> {
        loop {
            if self.frame.is_none() {
                let Some(frame) = self.head(input)? else {
                    return Ok(None);
                };
                self.frame = Some(frame);
                self.control.clear();
            }
            let Some(frame) = &mut self.frame else {
                return Ok(None);
            };
            let left = usize::try_from(frame.length - frame.read).unwrap_or(usize::MAX);
            if left == 0 {
                let (fin, opcode) = (frame.fin, frame.opcode);
                self.frame = None;
                match opcode {
                    PING => return Ok(Some(Event::Ping(&self.control))),
                    PONG => return Ok(Some(Event::Pong)),
                    CLOSE => return Ok(Some(Event::Close(&self.control))),
                    _ if fin => return Ok(Some(Event::EndOfMessage)),
                    _ => continue,
                }
            }
            let (part, rest) = input.split_at(left.min(input.len()));
            *input = rest;
            if part.is_empty() {
                return Ok(None);
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(part);
            unmask(&mut self.scratch, frame.mask, frame.read);
            frame.read += part.len() as u64;
            if frame.opcode < CLOSE {
                return Ok(Some(Event::Data(&self.scratch)));
            }
            self.control.extend_from_slice(&self.scratch);
        }
    }

    /// The head of the next frame, once it is there.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Fault> {
        loop {
            let needed = match *self.head {
                [_, second, ..] => 2 + extra_length(second) + 4,
                _ => 2,
            };
            if self.head.len() == needed && needed > 2 {
                let frame = parse(&self.head, &mut self.in_message);
                self.head.clear();
                return frame.map(Some);
            }
            let missing = (needed - self.head.len()).min(input.len());
            if missing == 0 {
                return Ok(None);
            }
            let (part, rest) = input.split_at(missing);
            self.head.extend_from_slice(part);
            *input = rest;
        }
    }
}

fn extra_length(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// `head` is as long as its own length field says.
fn parse(head: &[u8], in_message: &mut bool) -> Result<Frame, Fault> {
    let (first, second) = (head[0], head[1]);
    let (length, mask) = head[2..].split_at(extra_length(second));
    let length = match length.len() {
        0 => u64::from(second & 0x7f),
        _ => length
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    let mut key = [0; 4];
    key.copy_from_slice(mask);
    let frame = Frame {
        fin: first & 0x80 != 0,
        opcode: first & 0x0f,
        mask: key,
        read: 0,
        length,
    };
    if first & 0x70 != 0 {
        return Err(Fault::Protocol("an extension bit that was not agreed on"));
    }
    if second & 0x80 == 0 {
        return Err(Fault::Protocol("a client's frame is not masked"));
    }
    if length > i64::MAX as u64 {
        return Err(Fault::Protocol("a frame's length has its first bit set"));
    }
    match frame.opcode {
        CLOSE | PING | PONG if frame.fin && length <= MAX_CONTROL as u64 => {}
        CLOSE | PING | PONG => return Err(Fault::Protocol("a control frame is long or in parts")),
        TEXT | BINARY if !*in_message => *in_message = !frame.fin,
        CONTINUATION if *in_message => *in_message = !frame.fin,
        TEXT | BINARY | CONTINUATION => {
            return Err(Fault::Protocol("messages are mixed"));
        }
        _ => return Err(Fault::Protocol("an unknown opcode")),
    }
    Ok(frame)
}

fn unmask(data: &mut [u8], mask: [u8; 4], offset: u64) {
    let mut key = [0; 4];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = mask[(offset as usize + index) % 4];
    }
    for chunk in data.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}

/// The head of a whole message of the server, which masks nothing.
pub(super) fn write_head(opcode: Opcode, length: usize, out: &mut BytesMut) {
    out.put_u8(0x80 | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < 126 => out.put_u8(length),
        (_, Ok(length)) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}
