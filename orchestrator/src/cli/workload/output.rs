//! What the verbs print: tables of the server, JSON, YAML, names.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Cell, Table, presets::NOTHING};
use serde_json::Value;

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    Wide,
    Name,
}

/// The `Accept` that asks the server for a table.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Prints an object or list as JSON or YAML.
pub fn print_object(value: &Value, output: Output) -> Result<()> {
    match output {
        Output::Yaml => print!("{}", api::decode::to_yaml(value)),
        _ => println!("{}", json_text(value)?),
    }
    Ok(())
}

/// Prints what is for people to read. Messages, annotations and the like are a pod's own words: on a
/// terminal nothing of them is a command.
pub fn print(text: &str) {
    print!("{}", printable(text));
}

/// The text with every control character but the end of a line written out: `\u{1b}`.
pub fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() && c != '\n')
}

/// The text as one line of a table or tree: the ends of lines are written out, too.
pub fn one_line(text: &str) -> String {
    escaped(text, char::is_control)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON need not escape DEL and the control characters beyond ASCII, and terminals obey them.
fn json_text(value: &Value) -> Result<String> {
    let mut out = String::new();
    for c in serde_json::to_string_pretty(value)?.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// A server's Table as aligned text. `wide` shows the columns of lower priority too; `prefix`
/// stands before each name, `namespaces` adds their column.
pub fn table_text(
    table: &Value,
    wide: bool,
    prefix: &str,
    namespaces: bool,
    header: bool,
) -> String {
    let columns = table["columnDefinitions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let shown: Vec<usize> = (0..columns.len())
        .filter(|&i| wide || columns[i]["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let mut text = aligned();
    if header {
        let names = shown
            .iter()
            .map(|&i| columns[i]["name"].as_str().unwrap_or("").to_uppercase());
        text.set_header(
            namespaces
                .then(|| "NAMESPACE".to_owned())
                .into_iter()
                .chain(names),
        );
    }
    for row in table["rows"].as_array().into_iter().flatten() {
        let namespace = row["object"]["metadata"]["namespace"]
            .as_str()
            .unwrap_or("");
        let cells = shown.iter().enumerate().map(|(nth, &i)| {
            let cell = cell_text(&row["cells"][i]);
            if nth == 0 {
                format!("{prefix}{cell}")
            } else {
                cell
            }
        });
        let all = namespaces
            .then(|| namespace.to_owned())
            .into_iter()
            .chain(cells);
        text.add_row(all.map(Cell::new));
    }
    finish(&text)
}

/// An empty table without borders, three blanks between columns.
pub fn aligned() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

/// The table's lines without trailing blanks.
pub fn finish(table: &Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => one_line(s),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_message_of_a_pod_commands_a_terminal_or_forges_a_row() {
        let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\r\nnode-1   Ready";
        let plain = r"\u{1b}]0;owned\u{7}\u{9b}2J\r\nnode-1   Ready";
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Message"}],
            "rows": [{"cells": ["web", evil]}],
        });
        let text = table_text(&table, false, "", false, false);
        assert_eq!(text, format!("web   {plain}\n"));
        assert_eq!(printable("a\tb\nc\u{1b}[1m"), "a\\tb\nc\\u{1b}[1m");
        assert_eq!(printable("é ✓ \u{a0}"), "é ✓ \u{a0}");
        let object = json!({"message": format!("{evil}\u{7f}")});
        let json = json_text(&object).unwrap();
        assert!(
            !json.contains(|c: char| c.is_control() && c != '\n'),
            "{json:?}"
        );
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), object);
        let yaml = api::decode::to_yaml(&object);
        assert!(
            !yaml.contains(|c: char| c.is_control() && c != '\n'),
            "{yaml:?}"
        );
    }

    #[test]
    fn a_table_lines_up_and_hides_what_only_wide_shows() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Age"}, {"name": "Node", "priority": 1}],
            "rows": [{"cells": ["long-name", "5s", "n1"]}, {"cells": ["x", "10s", null]}],
        });
        let narrow = table_text(&table, false, "", false, true);
        assert_eq!(narrow, "NAME        AGE\nlong-name   5s\nx           10s\n");
        let wide = table_text(&table, true, "pod/", false, false);
        assert_eq!(wide, "pod/long-name   5s    n1\npod/x           10s\n");
    }
}
