//! Header blocks of SPDY/3 (draft 3.1, section 2.6.10): names and values with their lengths, compressed by one
//! zlib stream a direction that begins with a dictionary.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use crate::session::Fault;
use crate::table::Headers;

/// The dictionary of SPDY/3.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// A block's most, compressed; kubectl's take some 100 bytes.
pub(super) const MAX_COMPRESSED: usize = 16 * 1024;
/// A block's most, decompressed: a few bytes of zlib stand for a thousand.
const MAX_DECOMPRESSED: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// The most that a block stored in one piece may have.
const MAX_STORED: usize = u16::MAX as usize;

pub(super) struct Decompressor {
    zlib: Decompress,
    block: Vec<u8>,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
            block: vec![0; MAX_DECOMPRESSED],
        }
    }

    /// The headers of the next block. Every block has to be given, also of a stream that is refused, since
    /// each is compressed with what the blocks before it said.
    pub(super) fn headers(&mut self, compressed: &[u8]) -> Result<Headers, Fault> {
        let length = self.inflate(compressed)?;
        parse(&self.block[..length])
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> Result<usize, Fault> {
        const CORRUPT: Fault = Fault::Encoding("a header block is not zlib");
        let mut written = 0;
        loop {
            let (read_before, written_before) = (self.zlib.total_in(), self.zlib.total_out());
            let room = &mut self.block[written..];
            let result = self
                .zlib
                .decompress(compressed, room, FlushDecompress::Sync);
            let read = (self.zlib.total_in() - read_before) as usize;
            compressed = &compressed[read.min(compressed.len())..];
            written += (self.zlib.total_out() - written_before) as usize;
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    let known = self.zlib.set_dictionary(DICTIONARY);
                    known.map_err(|_| Fault::Encoding("a header block's dictionary is unknown"))?;
                    continue;
                }
                Err(_) => return Err(CORRUPT),
                Ok(Status::StreamEnd) if !compressed.is_empty() => return Err(CORRUPT),
                Ok(_) => {}
            }
            if written == MAX_DECOMPRESSED {
                return Err(Fault::TooLarge("a header block is too large"));
            }
            if compressed.is_empty() {
                return Ok(written);
            }
            if read == 0 {
                return Err(CORRUPT);
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Fault> {
    const SHORT: Fault = Fault::Protocol("a header block ends early");
    let count = block.try_get_u32().map_err(|_| SHORT)?;
    if count as usize > MAX_HEADERS {
        return Err(Fault::TooLarge("a header block has too many headers"));
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block).ok_or(SHORT)?.to_ascii_lowercase();
        let value = text(&mut block).ok_or(SHORT)?;
        if name.is_empty() || headers.insert(name, value).is_some() {
            return Err(Fault::Protocol("a header is twice there, or has no name"));
        }
    }
    if !block.is_empty() {
        return Err(Fault::Protocol("a header block has more than its headers"));
    }
    Ok(headers)
}

fn text(block: &mut &[u8]) -> Option<String> {
    let length = block.try_get_u32().ok()? as usize;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Writes header blocks as a zlib stream of stored blocks: ours are empty or small, and a compressor would
/// take a quarter of a mebibyte for each connection.
#[derive(Default)]
pub(super) struct Compressor {
    begun: bool,
}

impl Compressor {
    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.extend_from_slice(text.as_bytes());
        }
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            // RFC 1950: deflate with a window of 32 KiB, no dictionary, and the check of these two bytes.
            out.extend_from_slice(&[0x78, 0x01]);
        }
        for part in block.chunks(MAX_STORED) {
            store(part, &mut out);
        }
        // A flush: Go's reader gives what it has only once it sees the empty block.
        store(&[], &mut out);
        out
    }
}

/// RFC 1951, section 3.2.4: not the last block, stored, its length and the complement of that.
fn store(part: &[u8], out: &mut BytesMut) {
    let length = part.len() as u16;
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
    out.extend_from_slice(part);
}
