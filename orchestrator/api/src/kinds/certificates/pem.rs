//! Blocks of PEM, as far as an object's validation looks into them.

use base64::Engine as _;

/// A block: its type, whether it has headers, and what it holds.
#[derive(Debug, PartialEq)]
pub struct Block<'a> {
    pub kind: &'a str,
    pub headers: bool,
    pub bytes: Vec<u8>,
}

/// The next block of a text and what follows it; text before a block is passed over.
pub fn next(text: &str) -> Option<(Block<'_>, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (kind, rest) = rest.split_once("-----")?;
    let (body, rest) = rest.split_once(&format!("-----END {kind}-----"))?;
    let (headers, body) = match body.split_once("\n\n") {
        Some((headers, body)) if headers.contains(':') => (true, body),
        _ => (false, body),
    };
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(body).ok()?;
    let block = Block {
        kind,
        headers,
        bytes,
    };
    Some((block, rest))
}

/// The DER of the request for a certificate with which the text begins.
pub fn request(text: &str) -> Result<Vec<u8>, &'static str> {
    match next(text) {
        Some((block, _)) if block.kind == "CERTIFICATE REQUEST" => Ok(block.bytes),
        _ => Err("PEM block type must be CERTIFICATE REQUEST"),
    }
}

/// Whether the text has certificates and no other blocks.
pub fn certificates(text: &str) -> Result<(), String> {
    let (mut rest, mut count) = (text, 0);
    while let Some((block, after)) = next(rest) {
        if block.kind != "CERTIFICATE" {
            let kind = block.kind;
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {kind:?}"
            ));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".into());
        }
        (rest, count) = (after, count + 1);
    }
    match count {
        0 => Err("must contain at least one CERTIFICATE PEM block".into()),
        _ => Ok(()),
    }
}

/// A block of that kind, in lines of 64 characters (RFC 7468).
pub fn block(kind: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut block = format!("-----BEGIN {kind}-----\n");
    for line in text.as_bytes().chunks(64) {
        block.push_str(&String::from_utf8_lossy(line));
        block.push('\n');
    }
    block + &format!("-----END {kind}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = "x\n-----BEGIN A B-----\nYQ==\n-----END A B-----\ny";
        let (block, rest) = next(text).unwrap();
        assert_eq!((block.kind, block.headers, rest), ("A B", false, "\ny"));
        for broken in [
            "",
            "-----BEGIN A-----\n!\n-----END A-----",
            "-----BEGIN A-----\nYQ==",
        ] {
            assert_eq!(next(broken), None, "{broken}");
        }
    }
}
