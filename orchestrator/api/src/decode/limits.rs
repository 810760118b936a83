//! How much a document may be, whatever it is written in: what is decoded from it takes many times
//! its bytes, and what is stored must be readable for every client.

use serde_json::Value;

/// Objects and lists inside each other. Clients' parsers give up at 128, and a list of objects is
/// deeper than they are.
pub const MAX_DEPTH: usize = 100;
/// Objects and lists of a document: each may become a value of a thousand bytes.
pub const MAX_PARTS: usize = 100_000;
/// Texts and keys of a document. Only aliases of YAML can make more of a body.
pub const MAX_TEXT_BYTES: usize = 3 * 1024 * 1024;
/// The path of a field is reported up to this length.
const MAX_PATH_BYTES: usize = 1024;

/// What a document has so far.
#[derive(Debug, Default)]
pub struct Limits {
    parts: usize,
    text: usize,
}

impl Limits {
    /// An object or list begins, inside so many others.
    pub fn part(&mut self, depth: usize) -> Result<(), String> {
        self.parts += 1;
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        if self.parts > MAX_PARTS {
            return Err(format!(
                "the document has more than {MAX_PARTS} objects and lists: split it"
            ));
        }
        Ok(())
    }

    /// So many bytes of text.
    pub fn text(&mut self, bytes: usize) -> Result<(), String> {
        self.text += bytes;
        if self.text > MAX_TEXT_BYTES {
            return Err(format!(
                "the document contains excessive aliasing: written out it has more than \
                 {MAX_TEXT_BYTES} bytes"
            ));
        }
        Ok(())
    }
}

/// What is said of a document of more than `MAX_DEPTH` levels.
pub fn too_deep() -> String {
    format!("exceeded max depth: more than {MAX_DEPTH} objects and lists are inside each other")
}

/// Checks a value that was not read by `document`.
pub fn check(value: &Value) -> Result<(), String> {
    walk(value, 0, &mut Limits::default())
}

fn walk(value: &Value, depth: usize, limits: &mut Limits) -> Result<(), String> {
    match value {
        Value::Array(list) => {
            limits.part(depth)?;
            list.iter()
                .try_for_each(|item| walk(item, depth + 1, limits))
        }
        Value::Object(object) => {
            limits.part(depth)?;
            object
                .values()
                .try_for_each(|item| walk(item, depth + 1, limits))
        }
        _ => Ok(()),
    }
}

/// About what the value takes as text, without numbers.
pub fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|item| 1 + text_bytes(item)).sum(),
        Value::Object(object) => object
            .iter()
            .map(|(key, item)| key.len() + 1 + text_bytes(item))
            .sum(),
        _ => 1,
    }
}

/// Levels of objects and lists; a text has none.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The beginning of a path. Two keys of a million bytes must not be compared a million times.
pub fn path_shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_PATH_BYTES)]
}
