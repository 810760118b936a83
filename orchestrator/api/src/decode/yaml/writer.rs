//! Values → YAML text in block style that parsers of YAML 1.1 and of 1.2 read as the same value.

use std::borrow::Cow;

use serde_json::Value;

use super::plain::Plain;

/// Spaces that a level is indented by.
const STEP: usize = 2;
/// Parsers of YAML 1.1 see no `key:` after more characters than these.
const MAX_SIMPLE_KEY: usize = 1_000;

/// The value as a document; lists are not indented below their key, as kubectl writes them.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    if is_block(value) {
        block(&mut out, value, 0);
    } else {
        out.push_str(&scalar(value, 0));
        out.push('\n');
    }
    out
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(object) => !object.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// Writes an object or list whose first line is indented already.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Array(list) => {
            for (n, item) in list.iter().enumerate() {
                new_line(out, n > 0, indent);
                out.push('-');
                below(out, item, indent, false);
            }
        }
        Value::Object(object) => {
            for (n, (name, item)) in object.iter().enumerate() {
                new_line(out, n > 0, indent);
                let name = one_line(name);
                if name.chars().count() > MAX_SIMPLE_KEY {
                    out.push_str(&format!("? {name}\n{}", " ".repeat(indent)));
                } else {
                    out.push_str(&name);
                }
                out.push(':');
                below(out, item, indent, true);
            }
        }
        _ => {}
    }
}

fn new_line(out: &mut String, not_first: bool, indent: usize) {
    if not_first {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// Writes what comes after `-` or `key:`, with the end of its line.
fn below(out: &mut String, value: &Value, indent: usize, is_key: bool) {
    if !is_block(value) {
        out.push(' ');
        out.push_str(&scalar(value, indent));
        out.push('\n');
        return;
    }
    let deeper = if is_key && value.is_array() {
        indent
    } else {
        indent + STEP
    };
    if is_key {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', deeper));
    } else {
        out.push(' ');
    }
    block(out, value, deeper);
}

fn scalar(value: &Value, indent: usize) -> Cow<'_, str> {
    match value {
        Value::String(text) if is_literal(text) => literal(text, indent + STEP).into(),
        Value::String(text) => one_line(text),
        other => other.to_string().into(),
    }
}

fn one_line(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_escaped) || is_ambiguous(text) {
        return quoted(text).into();
    }
    if is_plain(text) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', "''")).into()
}

/// Whether a parser of YAML 1.1 may take the text for something else than a text.
fn is_ambiguous(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let number = digits.bytes().take_while(u8::is_ascii_digit).count();
    let is_date = number == 4 && digits[number..].starts_with('-');
    let is_base_60 = number > 0 && digits[number..].starts_with(':');
    // Parsers of 1.2 know no `_` in numbers, and differ in what they take for octal.
    let is_digits = number > 0 && digits.bytes().all(|it| it.is_ascii_digit() || it == b'_');
    is_date || is_base_60 || is_digits || Plain::of(text) != Plain::Text
}

/// Whether the text means itself without quotes, wherever it stands outside flow collections.
fn is_plain(text: &str) -> bool {
    let begins = |it: char| it.is_alphanumeric() || "/._($+".contains(it);
    let is_option = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|it: char| begins(it) || it == '-'));
    (text.starts_with(begins) || is_option)
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
}

/// Whether the character cannot stand for itself in one line.
fn is_escaped(it: char) -> bool {
    it.is_control()
        || matches!(
            it,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for it in text.chars() {
        match it {
            '"' | '\\' => out.extend(['\\', it]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            it if is_escaped(it) => out.push_str(&format!("\\u{:04x}", u32::from(it))),
            it => out.push(it),
        }
    }
    out.push('"');
    out
}

/// Whether a text of several lines can be written line by line.
fn is_literal(text: &str) -> bool {
    let fits = |line: &str| !line.chars().any(|it| is_escaped(it) && it != '\t');
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && text
            .split('\n')
            .all(|line| fits(line) && !line.ends_with([' ', '\t']))
}

/// A literal block, without the end of its last line.
fn literal(text: &str, indent: usize) -> String {
    let (body, keep) = match text.strip_suffix('\n') {
        Some(body) if body.ends_with('\n') => (body, "|+"),
        Some(body) => (body, "|"),
        None => (text, "|-"),
    };
    let mut out = keep.to_owned();
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::decode::{Format, document};

    fn read(text: &str) -> Value {
        document::parse(text.as_bytes(), Format::Yaml)
            .map(|parsed| parsed.value)
            .unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    fn any_text() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "y",
            "No",
            "on",
            "~",
            "",
            "1",
            "0644",
            "1_0",
            "0x1f",
            "1e3",
            ".inf",
            "2026-11-29",
            "10:30",
            "<<",
            "a: b",
            "a #b",
            "- a",
            "-c",
            "---",
            "--- a",
            "...",
            "a:",
            " a",
            "a ",
            "'",
            "\"",
            "a\nb",
            "a\n\nb\n\n",
            "\na",
            "a\n b\n",
            "a \nb",
            "a\tb",
            "\t",
            "\r\n",
            "#",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "[a",
            "{a",
            "?",
            "? a",
            ":",
            ",",
            "=",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{7f}",
            "\u{1f600}",
            "a\n---\nb",
            "a\n\u{85}b",
        ]);
        prop_oneof![
            words.prop_map(str::to_owned),
            any::<String>(),
            "[ a#:'\"\n\t-]{0,9}"
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // serde_json rounds others by a bit.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
            any_text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any_text(), inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_by_two_parsers(value in any_value()) {
            let text = to_yaml(&value);
            prop_assert_eq!(&read(&text), &value, "{}", text);
            let other: Value = serde_yaml::from_str(&text)
                .map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert_eq!(&other, &value, "{}", text);
        }
    }

    #[test]
    fn an_object_is_written_as_kubectl_writes_it() {
        let object = json!({
            "kind": "ConfigMap",
            "metadata": {
                "name": "a", "creationTimestamp": "2026-11-29T20:05:00Z", "labels": {},
                "finalizers": ["example.com/wait"],
            },
            "data": {
                "on": "yes", "mode": "0644", "text": "a\n b\n", "note": "a: b", "n": "1",
            },
            "args": ["--a=b", "-c", ["x", {"y": 1, "z": [true]}], [], "", "10.0.0.1:80"],
        });
        let expected = r#"args:
- --a=b
- -c
- - x
  - "y": 1
    z:
    - true
- []
- ""
- 10.0.0.1:80
data:
  mode: "0644"
  "n": "1"
  note: 'a: b'
  "on": "yes"
  text: |
    a
     b
kind: ConfigMap
metadata:
  creationTimestamp: "2026-11-29T20:05:00Z"
  finalizers:
  - example.com/wait
  labels: {}
  name: a
"#;
        let read_back = read(expected);
        assert_eq!(read_back, object);
        let sorted = to_yaml(&object);
        assert_eq!(read(&sorted), object);
        assert_eq!(sorted.lines().count(), expected.lines().count());
        for line in expected.lines() {
            assert!(sorted.lines().any(|it| it == line), "{line}: {sorted}");
        }
    }

    #[test]
    fn a_key_of_any_length_is_read_back() {
        let object = json!({"a".repeat(2_000): {"b": [1]}, "c".repeat(1_100): "d"});
        assert_eq!(read(&to_yaml(&object)), object);
    }
}
