//! YAML text → the events of its documents → values, in time linear in the text.
//!
//! ```text
//! bytes ─▶ text ─▶ scanner, stopped by `limits` ─▶ events ─▶ Reader (writes aliases out) ─▶ visitor
//! ```
//!
//! Nothing here builds a value: the visitor does, and it counts what aliases make of the text.

mod merge;
mod plain;
pub mod writer;

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{
    ErrorKind, Event as Parsed, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag,
};
use k8s_openapi::serde::{
    de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Unexpected, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::limits::{self, Limits, MAX_DEPTH};
use merge::Mapping;
use plain::Plain;

const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// The text of a body: UTF-8, or UTF-16 that begins with its byte order mark.
pub fn text(body: &[u8]) -> Result<Cow<'_, str>, String> {
    let text = match body {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)?),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)?),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            Cow::Borrowed(str::from_utf8(rest).map_err(|e| e.to_string())?)
        }
    };
    // A parser may take a NUL for the end of its input, and would then not see the rest.
    match text.chars().find(|it| !is_printable(*it)) {
        Some(it) => Err(format!("control characters are not allowed: {it:?}")),
        None => Ok(text),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|it| unit(*it)).collect();
    match String::from_utf16(&units) {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err("invalid UTF-16".into()),
    }
}

/// Whether a document may contain the character unescaped (YAML 1.2.2, 5.1).
fn is_printable(it: char) -> bool {
    matches!(it, '\t' | '\n' | '\r' | '\u{85}') || !it.is_control()
}

/// The documents of a stream; none is read before it is asked for.
pub struct Stream<'a>(Parser<'a, StrInput<'a>>);

/// What a document consists of.
#[derive(Default)]
pub struct Document<'a> {
    events: Vec<Event<'a>>,
    /// Number of an anchor → index of its event.
    anchors: BTreeMap<usize, usize>,
}

/// A node begins or ends.
struct Event<'a> {
    what: What<'a>,
    line: u32,
    column: u32,
}

enum What<'a> {
    Scalar(Cow<'a, str>, Type),
    List,
    Map,
    End,
    /// The number of an anchor.
    Alias(usize),
}

/// How a scalar's text is to be understood.
#[derive(Clone, Copy)]
enum Type {
    /// By what it looks like.
    Plain,
    Text,
    Null,
    Bool,
    Int,
    Float,
}

impl<'a> Stream<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        Self(Parser::new_from_str_with_options(text, options))
    }

    /// Reads up to the end of a document, or to its first event that is beyond `limits`.
    pub fn next_document(&mut self) -> Result<Option<Document<'a>>, String> {
        let mut document = Document::default();
        let (mut limits, mut depth) = (Limits::default(), 0);
        while let Some(next) = self.0.next_event() {
            let (event, span) = next.map_err(|e| scan_error(&e))?;
            let place = span.start;
            let (what, anchor) = match event {
                Parsed::DocumentEnd => return Ok(Some(document)),
                Parsed::Scalar(text, style, anchor, tag) => {
                    let as_type = type_of(style, tag.as_deref()).map_err(|e| at(&place, &e))?;
                    (What::Scalar(text, as_type), anchor)
                }
                Parsed::SequenceStart(_, anchor, tag) => {
                    (collection(What::List, tag, &place)?, anchor)
                }
                Parsed::MappingStart(_, anchor, tag) => {
                    (collection(What::Map, tag, &place)?, anchor)
                }
                Parsed::SequenceEnd | Parsed::MappingEnd => (What::End, 0),
                Parsed::Alias(anchor) => (What::Alias(anchor), 0),
                _ => continue,
            };
            match what {
                What::List | What::Map => {
                    limits.part(depth).map_err(|e| at(&place, &e))?;
                    depth += 1;
                }
                What::End => depth -= 1,
                What::Scalar(..) | What::Alias(_) => {}
            }
            if anchor > 0 {
                document.anchors.insert(anchor, document.events.len());
            }
            document.events.push(Event::new(what, &place));
        }
        Ok(None)
    }
}

impl Document<'_> {
    /// Hands the document to a seed.
    pub fn give<'de, S: DeserializeSeed<'de>>(&self, seed: S) -> Result<S::Value, String> {
        let mut reader = Reader {
            document: self,
            next: 0,
            merged: 0,
        };
        seed.deserialize(&mut reader).map_err(|e| {
            let read = self.events.get(reader.next.saturating_sub(1));
            let (line, column) = read.map_or((1, 1), |event| (event.line, event.column));
            format!("{e} at line {line} column {column}")
        })
    }
}

impl<'a> Event<'a> {
    fn new(what: What<'a>, place: &Marker) -> Self {
        let short = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            what,
            line: short(place.line()),
            column: short(place.col() + 1),
        }
    }
}

fn at(place: &Marker, error: &str) -> String {
    format!(
        "{error} at line {} column {}",
        place.line(),
        place.col() + 1
    )
}

fn scan_error(error: &ScanError) -> String {
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => at(error.marker(), &limits::too_deep()),
        _ => at(error.marker(), &error.info()),
    }
}

fn collection<'a>(
    what: What<'a>,
    tag: Option<Cow<'_, Tag>>,
    place: &Marker,
) -> Result<What<'a>, String> {
    match tag.as_deref() {
        Some(tag) if core(tag).is_none() => Err(at(place, &unknown(tag))),
        _ => Ok(what),
    }
}

fn type_of(style: ScalarStyle, tag: Option<&Tag>) -> Result<Type, String> {
    let Some(tag) = tag else {
        let is_plain = style == ScalarStyle::Plain;
        return Ok(if is_plain { Type::Plain } else { Type::Text });
    };
    match core(tag).ok_or_else(|| unknown(tag))?.as_ref() {
        "null" => Ok(Type::Null),
        "bool" => Ok(Type::Bool),
        "int" => Ok(Type::Int),
        "float" => Ok(Type::Float),
        "merge" => Ok(Type::Plain),
        _ => Ok(Type::Text),
    }
}

/// The name of a tag of YAML's own.
fn core(tag: &Tag) -> Option<Cow<'_, str>> {
    tag.suffix_in_namespace(CORE_TAGS)
}

fn unknown(tag: &Tag) -> String {
    format!("the tag {:?} is not one of YAML's own", tag.original())
}

/// Gives the node at `next` to a visitor.
struct Reader<'e> {
    document: &'e Document<'e>,
    next: usize,
    /// How many maps were merged into others.
    merged: usize,
}

impl<'e> Reader<'e> {
    fn peek(&self) -> Option<&'e What<'e>> {
        self.document.events.get(self.next).map(|event| &event.what)
    }

    /// Whether the list or map ends here, then passes its end.
    fn ends(&mut self) -> bool {
        let ends = matches!(self.peek(), None | Some(What::End));
        self.next += usize::from(ends);
        ends
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let what = self.peek();
        self.next += 1;
        match what {
            // A stream without a document.
            None => visitor.visit_unit(),
            Some(What::Scalar(text, as_type)) => scalar(text, *as_type, visitor),
            Some(What::List) => visitor.visit_seq(self),
            Some(What::Map) => visitor.visit_map(Mapping::new(self)),
            Some(What::End) => Err(Error::custom("a node is missing")),
            Some(What::Alias(anchor)) => {
                // An anchor inside its own node never ends: the visitor counts levels.
                let back = self.next;
                let start = self.document.anchors.get(anchor);
                self.next = *start.ok_or_else(|| Error::custom("unknown anchor"))?;
                let value = (&mut *self).deserialize_any(visitor)?;
                self.next = back;
                Ok(value)
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> SeqAccess<'de> for &mut Reader<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if self.ends() {
            return Ok(None);
        }
        seed.deserialize(&mut **self).map(Some)
    }
}

fn scalar<'de, V: Visitor<'de>>(text: &str, as_type: Type, visitor: V) -> Result<V::Value, Error> {
    let wrong = |expected: &str| Err(Error::invalid_value(Unexpected::Str(text), &expected));
    match (as_type, Plain::of(text)) {
        (Type::Text, _) | (Type::Plain, Plain::Text) => visitor.visit_str(text),
        (Type::Plain | Type::Null, Plain::Null) => visitor.visit_unit(),
        (Type::Plain | Type::Bool, Plain::Bool(value)) => visitor.visit_bool(value),
        (Type::Plain | Type::Int, Plain::Unsigned(value)) => visitor.visit_u64(value),
        (Type::Plain | Type::Int, Plain::Negative(value)) => visitor.visit_i64(value),
        (Type::Plain | Type::Float, Plain::Float(value)) => visitor.visit_f64(value),
        (Type::Float, Plain::Unsigned(value)) => visitor.visit_f64(value as f64),
        (Type::Float, Plain::Negative(value)) => visitor.visit_f64(value as f64),
        (Type::Null, _) => wrong("null"),
        (Type::Bool, _) => wrong("a boolean"),
        (Type::Int, _) => wrong("an integer"),
        (Type::Float, _) => wrong("a float"),
    }
}
