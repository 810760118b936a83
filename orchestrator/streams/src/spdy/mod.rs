//! SPDY/3.1 as kubectl and client-go speak it (moby/spdystream), both sides.
//!
//! Facts about moby/spdystream, which is what speaks to us:
//! * It has no flow control. It sends no WINDOW_UPDATE and no SETTINGS, ignores both, and sends as much as the
//!   transport takes. Who honours the window of 64 KiB that the draft begins with would wait for ever, so
//!   neither side of ours has windows: what holds a sender back is the transport. Hence a stream that is not
//!   read holds up the others of its connection, once its inbox is full.
//! * It drops data of a stream for which it has not yet had a SYN_REPLY.
//! * It pings every five seconds and waits for each answer (client-go 1.20 and newer).
//! * Its end is RST_STREAM for each stream and GOAWAY; ours is the end of each stream and GOAWAY.

mod headers;

use bytes::{Buf, BufMut, BytesMut};

use crate::session::Fault;
use crate::table::{Headers, Id, Output, Table};
use headers::{Compressor, Decompressor, MAX_COMPRESSED};

const VERSION: u16 = 3;
const HEAD: usize = 8;
const FIN: u8 = 1;
/// The most data of a frame, by its length field of 24 bits.
const MAX_LENGTH: usize = (1 << 24) - 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is reset (draft 3.1, section 2.6.3).
#[derive(Clone, Copy)]
enum Reason {
    Refused = 3,
    Cancel = 5,
    AlreadyClosed = 9,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the bytes that come next belong to.
enum Reading {
    Head,
    Control {
        kind: u16,
        flags: u8,
        length: usize,
    },
    Data {
        id: Id,
        fin: bool,
        left: usize,
    },
    /// A frame that says nothing to us.
    Skip(usize),
}

pub(crate) struct Spdy {
    role: Role,
    reading: Reading,
    /// A head or a control frame, as far as it has come.
    buffer: BytesMut,
    decompressor: Decompressor,
    compressor: Compressor,
    control: BytesMut,
    /// Bytes of `control` that the peer has caused.
    replies: usize,
    /// The last stream that the peer has opened.
    last_opened: Id,
    next_id: Id,
    next_ping: u32,
    /// One of us opens no more streams.
    going_away: bool,
}

impl Spdy {
    pub(crate) fn new(role: Role) -> Self {
        let first = if role == Role::Client { 1 } else { 2 };
        Self {
            role,
            reading: Reading::Head,
            buffer: BytesMut::new(),
            decompressor: Decompressor::new(),
            compressor: Compressor::default(),
            control: BytesMut::new(),
            replies: 0,
            last_opened: 0,
            next_id: first,
            next_ping: first,
            going_away: false,
        }
    }

    pub(crate) fn input(&mut self, mut input: &[u8], table: &mut Table) -> Result<(), Fault> {
        loop {
            match &mut self.reading {
                Reading::Head => {
                    if !fill(&mut self.buffer, &mut input, HEAD) {
                        return Ok(());
                    }
                    let mut head = self.buffer.split();
                    let (first, second) = (head.get_u32(), head.get_u32());
                    self.reading = begin(first, second)?;
                }
                Reading::Control {
                    kind,
                    flags,
                    length,
                } => {
                    let (kind, flags, length) = (*kind, *flags, *length);
                    if !fill(&mut self.buffer, &mut input, length) {
                        return Ok(());
                    }
                    self.reading = Reading::Head;
                    let body = self.buffer.split();
                    self.control_frame(kind, flags, &body, table)?;
                }
                Reading::Data { id, fin, left } => {
                    let (part, rest) = input.split_at((*left).min(input.len()));
                    input = rest;
                    *left -= part.len();
                    let (id, fin, left) = (*id, *fin, *left);
                    if !table.receive(id, part) {
                        table.reset(id);
                        self.reset(id, Reason::AlreadyClosed);
                        self.reading = Reading::Skip(left);
                        continue;
                    }
                    if left > 0 {
                        return Ok(());
                    }
                    if fin {
                        table.finish(id);
                    }
                    self.reading = Reading::Head;
                }
                Reading::Skip(left) => {
                    let length = (*left).min(input.len());
                    input = &input[length..];
                    *left -= length;
                    if *left > 0 {
                        return Ok(());
                    }
                    self.reading = Reading::Head;
                }
            }
        }
    }

    pub(crate) fn output(
        &mut self,
        table: &mut Table,
        out: &mut BytesMut,
        frame: usize,
        chunk: usize,
    ) {
        out.extend_from_slice(&self.take_control());
        while out.len() < chunk
            && let Some(output) = table.next_output(frame.min(MAX_LENGTH))
        {
            match output {
                Output::Reset { id } => {
                    self.reset(id, Reason::Cancel);
                    out.extend_from_slice(&self.take_control());
                }
                Output::Data { id, data, fin } => {
                    out.put_u32(id);
                    let flags = if fin { u32::from(FIN) << 24 } else { 0 };
                    out.put_u32(flags | data.len() as u32);
                    out.extend_from_slice(&data);
                }
            }
        }
    }

    pub(crate) fn take_control(&mut self) -> BytesMut {
        self.replies = 0;
        self.control.split()
    }

    pub(crate) fn reply_bytes(&self) -> usize {
        self.replies
    }

    pub(crate) fn ping(&mut self) {
        self.head(PING, 0, 4);
        self.control.put_u32(self.next_ping);
        self.next_ping = (self.next_ping + 2) & 0x7fff_ffff;
    }

    pub(crate) fn goodbye(&mut self, fault: Option<Fault>) {
        self.going_away = true;
        self.head(GOAWAY, 0, 8);
        self.control.put_u32(self.last_opened);
        self.control.put_u32(u32::from(fault.is_some()));
    }

    /// Opens a stream; None when the ids are used up or the peer takes no more. The client's side only.
    pub(crate) fn open(&mut self, headers: &[(&str, &str)], table: &mut Table) -> Option<Id> {
        let id = self.next_id;
        if id > i32::MAX as u32 || self.going_away || self.role == Role::Server {
            return None;
        }
        self.next_id += 2;
        table.insert(id);
        let block = self.compressor.block(headers);
        self.head(SYN_STREAM, 0, 10 + block.len());
        self.control.put_u32(id);
        self.control.put_u32(0);
        self.control.put_u16(0);
        self.control.extend_from_slice(&block);
        Some(id)
    }

    fn control_frame(
        &mut self,
        kind: u16,
        flags: u8,
        mut body: &[u8],
        table: &mut Table,
    ) -> Result<(), Fault> {
        const SHORT: Fault = Fault::Protocol("a control frame ends early");
        let id = body.try_get_u32().map_err(|_| SHORT)? & 0x7fff_ffff;
        match kind {
            SYN_STREAM => {
                // The stream that this one belongs to, the priority and the slot say nothing to us.
                let compressed = body.get(6..).ok_or(SHORT)?;
                let headers = self.decompressor.headers(compressed)?;
                self.opened(id, headers, flags, table)?;
            }
            SYN_REPLY | HEADERS => {
                self.decompressor.headers(body)?;
                if flags & FIN != 0 {
                    table.finish(id);
                }
            }
            RST_STREAM => table.reset(id),
            PING => {
                let ours = id % 2 == self.next_ping % 2;
                if !ours {
                    self.head(PING, 0, 4);
                    self.control.put_u32(id);
                    self.replies += HEAD + 4;
                }
            }
            GOAWAY => self.going_away = true,
            // WINDOW_UPDATE is about a flow control that is not there.
            _ => {}
        }
        Ok(())
    }

    fn opened(
        &mut self,
        id: Id,
        headers: Headers,
        flags: u8,
        table: &mut Table,
    ) -> Result<(), Fault> {
        let theirs = if self.role == Role::Server { 1 } else { 0 };
        if id == 0 || id % 2 != theirs || id <= self.last_opened {
            return Err(Fault::Protocol("a stream's id is not the next"));
        }
        self.last_opened = id;
        if self.going_away {
            return Ok(());
        }
        if self.role == Role::Client || !table.open(id, headers) {
            self.reset(id, Reason::Refused);
            return Ok(());
        }
        let block = self.compressor.block(&[]);
        self.head(SYN_REPLY, 0, 4 + block.len());
        self.control.put_u32(id);
        self.control.extend_from_slice(&block);
        self.replies += HEAD + 4 + block.len();
        if flags & FIN != 0 {
            table.finish(id);
        }
        Ok(())
    }

    fn reset(&mut self, id: Id, reason: Reason) {
        self.head(RST_STREAM, 0, 8);
        self.control.put_u32(id);
        self.control.put_u32(reason as u32);
        self.replies += HEAD + 8;
    }

    fn head(&mut self, kind: u16, flags: u8, length: usize) {
        self.control.put_u16(0x8000 | VERSION);
        self.control.put_u16(kind);
        self.control.put_u32(u32::from(flags) << 24 | length as u32);
    }
}

/// What a frame's head says of the bytes behind it.
fn begin(first: u32, second: u32) -> Result<Reading, Fault> {
    let flags = (second >> 24) as u8;
    let length = (second & 0xff_ffff) as usize;
    if first & 0x8000_0000 == 0 {
        if first == 0 {
            return Err(Fault::Protocol("data for stream 0"));
        }
        return Ok(Reading::Data {
            id: first,
            fin: flags & FIN != 0,
            left: length,
        });
    }
    let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
    if version != VERSION {
        return Err(Fault::Protocol("a frame is not of SPDY/3"));
    }
    let limit = match kind {
        SYN_STREAM | SYN_REPLY | HEADERS => MAX_COMPRESSED,
        RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
        PING => 4,
        // SETTINGS, and what a later version may have.
        _ => return Ok(Reading::Skip(length)),
    };
    if length > limit {
        return Err(Fault::TooLarge("a control frame is too long"));
    }
    Ok(Reading::Control {
        kind,
        flags,
        length,
    })
}

/// Moves bytes until `buffer` has `length` of them.
fn fill(buffer: &mut BytesMut, input: &mut &[u8], length: usize) -> bool {
    let missing = length - buffer.len();
    let (part, rest) = input.split_at(missing.min(input.len()));
    buffer.extend_from_slice(part);
    *input = rest;
    buffer.len() == length
}
