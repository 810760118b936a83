//! Messages as they are on the wire (RFC 1035, RFC 6891): what is asked, and what fits into an answer. Pure.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use super::zone::Answer;

/// What we take in one datagram and send in one: no path cuts that (RFC 9715, section 3).
pub const PAYLOAD: u16 = 1232;

/// What a datagram holds for a client that says nothing (RFC 1035, section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

const HEADER: usize = 12;

/// A record with a compressed name and no data.
const SMALLEST_RECORD: usize = 12;

/// A question with all that its answer must repeat.
#[derive(Debug, Clone)]
pub struct Asked {
    pub question: Query,
    /// The client wants signatures, and would read them.
    pub dnssec: bool,
    pub checking_disabled: bool,
    id: u16,
    recursion_desired: bool,
    has_edns: bool,
    payload: u16,
}

/// What became of a datagram.
#[derive(Debug)]
pub enum Read {
    Asked(Box<Asked>),
    /// To be answered with this.
    Refused(Vec<u8>),
    /// Not a query: whoever answers it may never stop.
    Ignored,
}

/// By which transport an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Reads a query.
pub fn read(bytes: &[u8]) -> Read {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Read::Ignored;
    };
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Read::Ignored;
    }
    // More than one question has no meaning (RFC 9619); counted before anything is read.
    let counts = [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
    if op_code != OpCode::Query {
        return refused(header, ResponseCode::NotImp);
    }
    if counts[0] != 1 || counts[1] != 0 || counts[2] != 0 || counts[3] > 2 {
        return refused(header, ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        return refused(header, ResponseCode::FormErr);
    };
    let (Some(question), MessageType::Query) =
        (message.queries.pop(), message.metadata.message_type)
    else {
        return refused(header, ResponseCode::FormErr);
    };
    let asked = Asked {
        dnssec: message.edns.as_ref().is_some_and(|it| it.flags().dnssec_ok),
        checking_disabled: message.metadata.checking_disabled,
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        has_edns: message.edns.is_some(),
        payload: message.max_payload().min(PAYLOAD),
        question,
    };
    let code = match asked.question.query_type() {
        _ if message.version() > 0 => Some(ResponseCode::BADVERS),
        _ if asked.question.query_class() != DNSClass::IN => Some(ResponseCode::Refused),
        // Whole zones are not handed out; nor do transactions belong into a question.
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG => {
            Some(ResponseCode::Refused)
        }
        _ => None,
    };
    match code {
        None => Read::Asked(Box::new(asked)),
        Some(code) => match asked.answer(Answer::of_code(code), Transport::Udp) {
            Some(bytes) => Read::Refused(bytes),
            None => Read::Ignored,
        },
    }
}

/// An answer to what could not be read: the header alone.
fn refused(header: &[u8; HEADER], code: ResponseCode) -> Read {
    let mut answer = *header;
    answer[2] = 0x80 | header[2] & 0x79;
    answer[3] = 0x80 | header[3] & 0x10 | code.low();
    answer[4..].fill(0);
    Read::Refused(answer.to_vec())
}

impl Asked {
    /// The bytes of an answer. The name is as it was asked, with its capitals. `None`: it cannot be written.
    pub fn answer(&self, answer: Answer, transport: Transport) -> Option<Vec<u8>> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.authoritative = answer.authoritative;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = answer.code;
        message.queries = vec![self.question.clone()];
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        message.edns = self.has_edns.then(|| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            edns.set_dnssec_ok(self.dnssec);
            edns
        });
        let limit = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp if self.has_edns => usize::from(self.payload.max(PLAIN_PAYLOAD)),
            Transport::Udp => usize::from(PLAIN_PAYLOAD),
        };
        fit(message, limit)
    }

    /// A question for another server, without a number.
    pub fn forward(&self, question: &Query) -> Message {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.queries = vec![question.clone()];
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns.set_dnssec_ok(self.dnssec);
        message.edns = Some(edns);
        message
    }
}

/// What of a message fits. Additional records may go without a word (RFC 2181, section 9). As many answers
/// as fit are left, since some resolvers do not ask again by TCP.
fn fit(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok();
    if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= limit) {
        return Some(bytes);
    }
    message.additionals.clear();
    let all = message.answers.len();
    // No more can be in it.
    message.answers.truncate(limit / SMALLEST_RECORD);
    message.metadata.truncation = message.answers.len() < all;
    loop {
        let length = match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => return Some(bytes),
            Ok(bytes) => bytes.len(),
            // More than a message can hold.
            Err(_) => usize::from(u16::MAX) + 1,
        };
        message.metadata.truncation = true;
        if message.authorities.is_empty() && message.answers.is_empty() {
            return None;
        }
        message.authorities.clear();
        let kept = message.answers.len() * limit / length.max(1);
        let fewer = message.answers.len().saturating_sub(1);
        message.answers.truncate(kept.min(fewer));
    }
}
