use std::time::{Duration, Instant};

use serde_json::json;

use super::super::limits;
use super::*;

const MIB: usize = 1024 * 1024;
/// What a parser may look ahead before it knows that a bracket begins no key.
const LOOKAHEAD: usize = 2_048;

fn yaml(text: &str) -> Value {
    parse(text.as_bytes(), Format::Yaml)
        .map(|parsed| parsed.value)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &[u8]) -> String {
    match parse(text, Format::Yaml) {
        Ok(parsed) => panic!("{}", parsed.value),
        Err(e) => e,
    }
}

/// Where reading stopped, of "… at line 1 column 2".
fn stopped_at(error: &str) -> (usize, usize) {
    let words: Vec<&str> = error.rsplit(' ').collect();
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{error}"));
    (number(words[2]), number(words[0]))
}

fn time(text: &str, format: Format) -> Duration {
    let began = Instant::now();
    let _ = parse(text.as_bytes(), format);
    began.elapsed()
}

#[test]
fn reading_stops_where_a_document_gets_too_deep() {
    let words = [
        "[", r#"{"a":"#, "{a: ", "- ", "? ", "[a, ", "{? ", "[\n", "&a [", "!!seq [",
    ];
    for word in words {
        let error = refused(word.repeat(MIB / word.len()).as_bytes());
        assert!(error.contains("exceeded max depth"), "{word}: {error}");
        let (line, column) = stopped_at(&error);
        let farthest = LOOKAHEAD.max(word.len() * (limits::MAX_DEPTH + 2));
        assert!(line <= farthest && column <= farthest, "{word}: {error}");
    }
    let lines: String = (0..1_000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    let error = refused(lines.as_bytes());
    assert!(error.contains("exceeded max depth"), "{error}");
    assert!(stopped_at(&error).0 <= limits::MAX_DEPTH + 2, "{error}");
}

#[test]
fn the_time_that_yaml_takes_grows_with_its_bytes_only() {
    const SIZE: usize = MIB / 2;
    // JSON of that many tokens is the measure; no less than a pause of the machine.
    let json = format!("[{}0]", "0,".repeat(SIZE / 2));
    let measure = time(&json, Format::Json).max(Duration::from_millis(200));
    let deep = limits::MAX_DEPTH - 10;
    let behind = |open: &str, close: &str, item: &str, end: &str| {
        let items = item.repeat(SIZE / item.len());
        format!("{}{items}{end}{}\n", open.repeat(deep), close.repeat(deep))
    };
    let shapes = [
        "[".repeat(SIZE),
        r#"{"a":"#.repeat(SIZE / 5),
        format!("{}{}", "[".repeat(4_000), "a,".repeat(SIZE / 2)),
        behind("[", "]", "a,", "b"),
        behind("[", "]", "'a b', ", "b"),
        behind("{a: ", "}", "? a, ", "b"),
        behind("- ", "", "a ", "b"),
        behind("[", "]", "a\n", "b"),
        behind("[", "]", "{a: b}, ", "b"),
        behind("[", "]", "[],", "b"),
        format!("a: |\n{}", "  [{[{\n".repeat(SIZE / 7)),
        format!("a: \"{}\"", "\\n".repeat(SIZE / 2)),
        format!("a: {}", "b\n ".repeat(SIZE / 3)),
        "#\n".repeat(SIZE / 2),
        "\n".repeat(SIZE),
        "a:\n".repeat(SIZE / 3),
        "- \n".repeat(SIZE / 3),
        "--- \n".repeat(SIZE / 5),
        "&a ".repeat(SIZE / 3),
        "!a ".repeat(SIZE / 3),
        "%TAG !a! b\n".repeat(SIZE / 11),
        (0..SIZE / 16)
            .map(|n| format!("- &a{n} b\n- *a{n}\n"))
            .collect(),
        (0..SIZE / 8).map(|n| format!("k{n}: b\n")).collect(),
    ];
    for shape in shapes {
        let took = time(&shape, Format::Yaml);
        assert!(
            took < measure * 20,
            "{took:?}, JSON {measure:?}: {shape:.40}"
        );
    }
}

#[test]
fn a_document_may_have_as_many_levels_in_yaml_as_in_json() {
    for levels in [limits::MAX_DEPTH, limits::MAX_DEPTH + 1] {
        let list = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let map = format!("{}1{}", "{a: ".repeat(levels), "}".repeat(levels));
        let block: String = (0..levels)
            .map(|n| format!("{}a:\n", " ".repeat(n)))
            .collect();
        let items = format!("{}1", "- ".repeat(levels));
        let same = parse(list.as_bytes(), Format::Json).is_ok();
        assert_eq!(same, levels == limits::MAX_DEPTH);
        for text in [&list, &map, &block, &items] {
            let read = parse(text.as_bytes(), Format::Yaml);
            assert_eq!(read.is_ok(), same, "{levels}: {text:.40}");
        }
    }
    // A map, then a list and a map each.
    for (pairs, fits) in [
        (limits::MAX_DEPTH / 2 - 1, true),
        (limits::MAX_DEPTH / 2, false),
    ] {
        let lines = (0..pairs).map(|n| format!("{0}a:\n{0}- b: c\n", "  ".repeat(n)));
        let read = parse(lines.collect::<String>().as_bytes(), Format::Yaml);
        assert_eq!(read.is_ok(), fits, "{pairs}");
    }
}

#[test]
fn a_body_that_is_json_is_read_as_json_by_those_who_say_yaml() {
    let text = r#"{"a":"\ud83d\ude00","y":"\/","n":[1,-1,1.5,true,null],"n":2}"#;
    let (json, yaml) = (Format::Json, Format::Yaml);
    let json = parse(text.as_bytes(), json).unwrap();
    let yaml = parse(text.as_bytes(), yaml).unwrap();
    assert_eq!(yaml.value, json.value);
    assert_eq!(yaml.duplicates, ["n"]);
    let deep = format!(r#"{}1{}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    assert_eq!(
        refused(deep.as_bytes()),
        parse(deep.as_bytes(), Format::Json).err().unwrap()
    );
}

#[test]
fn plain_words_of_yaml_are_read_as_kubernetes_reads_them() {
    let cases = [
        ("true", json!(true)),
        ("Yes", json!(true)),
        ("on", json!(true)),
        ("y", json!(true)),
        ("FALSE", json!(false)),
        ("no", json!(false)),
        ("Off", json!(false)),
        ("N", json!(false)),
        ("yEs", json!("yEs")),
        ("", json!(null)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("nULL", json!("nULL")),
        ("12", json!(12)),
        ("-12", json!(-12)),
        ("+12", json!(12)),
        ("-0", json!(0)),
        ("1_000", json!(1000)),
        ("0x1F", json!(31)),
        ("-0X1f", json!(-31)),
        ("0o17", json!(15)),
        ("017", json!(15)),
        ("-0b11", json!(-3)),
        ("08", json!(8.0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551616", json!(18446744073709551616.0)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        ("-1.5e-3", json!(-0.0015)),
        ("1e3", json!(1000.0)),
        ("1e999", json!("1e999")),
        ("0x", json!("0x")),
        ("0x-1", json!("0x-1")),
        ("-", json!([null])),
        ("+", json!("+")),
        (".", json!(".")),
        ("inf", json!("inf")),
        ("-inf", json!("-inf")),
        ("nan", json!("nan")),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("10:30", json!("10:30")),
        ("2026-11-29", json!("2026-11-29")),
        ("2026-11-29T20:05:00Z", json!("2026-11-29T20:05:00Z")),
        ("100m", json!("100m")),
        ("a b", json!("a b")),
    ];
    for (text, expected) in cases {
        assert_eq!(
            yaml(&format!("a: 1\nb:\n  {text}\n"))["b"],
            expected,
            "{text}"
        );
        if text.len() > 1 {
            assert_eq!(yaml(&format!("[x, '{text}']"))[1], text, "{text}");
            assert_eq!(yaml(&format!("[x, \"{text}\"]"))[1], text, "{text}");
        }
    }
    for text in [".inf", "-.INF", ".NaN"] {
        let error = refused(format!("a: {text}").as_bytes());
        assert!(error.contains("a number must be finite"), "{error}");
    }
}

#[test]
fn keys_that_are_no_texts_become_texts() {
    let read = yaml("1: a\ntrue: b\n1.5: c\n-2: d\n'on': e\noff: f\n");
    let expected = json!({"1": "a", "true": "b", "1.5": "c", "-2": "d", "on": "e", "false": "f"});
    assert_eq!(read, expected);
    for text in ["~: a", "[a]: b", "{a: b}: c", "? [a]\n: b"] {
        let error = refused(text.as_bytes());
        assert!(error.contains("expected a key"), "{text}: {error}");
    }
}

#[test]
fn tags_say_what_a_scalar_is() {
    let cases = [
        ("!!str 1", json!("1")),
        ("!!str", json!("")),
        ("!!int '1'", json!(1)),
        ("!!float 1", json!(1.0)),
        ("!!bool 'yes'", json!(true)),
        ("!!null ''", json!(null)),
        ("!!binary YQ==", json!("YQ==")),
        ("!!seq [1]", json!([1])),
        ("!!map {a: 1}", json!({"a": 1})),
    ];
    for (text, expected) in cases {
        assert_eq!(yaml(&format!("a: {text}"))["a"], expected, "{text}");
    }
    for text in [
        "!!int a",
        "!!bool 1",
        "!!null a",
        "!!float a",
        "!mine a",
        "!mine [a]",
    ] {
        refused(format!("a: {text}").as_bytes());
    }
}

#[test]
fn texts_of_several_lines_keep_what_their_style_says() {
    let read = yaml(
        "a: |\n  x\n   y\n\nb: >-\n  x\n  y\nc: \"x\n  y\\n\\u00e9\"\nd: 'it''s'\ne: x\n  y\n",
    );
    let expected = json!({"a": "x\n y\n", "b": "x y", "c": "x y\n\u{e9}", "d": "it's", "e": "x y"});
    assert_eq!(read, expected);
}

#[test]
fn an_alias_is_what_its_anchor_was_and_cannot_hold_itself() {
    let read = yaml("a: &a {b: [1, &c 2]}\nd: *a\ne: *c\nf: &a 3\ng: *a\n");
    let expected = json!({
        "a": {"b": [1, 2]}, "d": {"b": [1, 2]}, "e": 2, "f": 3, "g": 3,
    });
    assert_eq!(read, expected);
    for text in [
        "a: *b",
        "a: &a [*a]",
        "a: &a {b: *a, c: *a}",
        "&a [*a, *a, *a]",
    ] {
        refused(text.as_bytes());
    }
    let paths = |text: &str| parse(text.as_bytes(), Format::Yaml).unwrap().duplicates;
    assert_eq!(
        paths("a: {b: 1, b: 2}\nc:\n- d: 1\n  d: 2\n"),
        ["a.b", "c[0].d"]
    );
}

#[test]
fn only_the_first_document_counts_and_an_empty_one_is_null() {
    assert_eq!(yaml("---\na: 1\n---\nb: [\n"), json!({"a": 1}));
    assert_eq!(yaml("%YAML 1.1\n---\na: 1\n...\n"), json!({"a": 1}));
    for text in ["", "\n", "# nothing\n", "---\n", "---\n---\na: 1"] {
        assert_eq!(yaml(text), json!(null), "{text}");
    }
}

#[test]
fn a_file_may_have_several_documents_with_anchors_of_their_own() {
    let text = "a: &a 1\n---\n---\nb: &a 0644\nc: *a\n...\n---\n{\"d\": 2}\n";
    let expected = [
        json!({"a": 1}),
        json!(null),
        json!({"b": 420, "c": 420}),
        json!({"d": 2}),
    ];
    assert_eq!(all(text.as_bytes()).unwrap(), expected);
    assert!(all(b"a: 1\n---\nb: *a\n").is_err());
    assert!(all(b"# nothing\n").unwrap().is_empty());
}

#[test]
fn bytes_may_be_utf8_or_utf16_with_a_mark() {
    let text = "a: \u{e9}\u{1f600}\n";
    let expected = json!({"a": "\u{e9}\u{1f600}"});
    assert_eq!(yaml(&format!("\u{feff}{text}")), expected);
    let units: Vec<u16> = format!("\u{feff}{text}").encode_utf16().collect();
    let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    for bytes in [&little, &big] {
        assert_eq!(parse(bytes, Format::Yaml).unwrap().value, expected);
        refused(&bytes[..bytes.len() - 1]);
    }
    for bytes in [
        &b"a: \xff"[..],
        b"a: b\0c: d",
        b"a: \x01",
        b"\xff\xfe\x00\xd8",
    ] {
        refused(bytes);
    }
}

#[test]
fn what_is_wrong_in_yaml_is_said_with_its_place() {
    for text in [
        "a: b: c",
        "a: [1",
        "{a: 1",
        "a:\n\t- b",
        "a: 'b",
        "- a\nb: c",
        "a: `b",
        "a: @b",
    ] {
        let error = refused(text.as_bytes());
        let (line, column) = stopped_at(&error);
        assert!(line >= 1 && column >= 1, "{text}: {error}");
    }
}

#[test]
fn a_map_takes_in_what_its_merge_keys_name_and_the_last_that_is_said_counts() {
    let base = "base: &b {a: 1, o: {x: 1}}\nmore: &m {a: 2, c: 3}\n";
    let merged = |text: &str| yaml(&format!("{base}out:\n{text}"))["out"].clone();
    for (text, expected) in [
        ("  <<: *b\n  d: 4\n", json!({"a": 1, "o": {"x": 1}, "d": 4})),
        // What stands behind replaces, on either side.
        ("  <<: *b\n  a: 9\n", json!({"a": 9, "o": {"x": 1}})),
        ("  a: 9\n  <<: *b\n", json!({"a": 1, "o": {"x": 1}})),
        // Of several the first counts.
        ("  <<: [*m, *b]\n", json!({"a": 2, "c": 3, "o": {"x": 1}})),
        (
            "  <<: {a: 5, <<: *m}\n  e: {<<: *m, a: 6}\n",
            json!({"a": 2, "c": 3, "e": {"a": 6, "c": 3}}),
        ),
        ("  <<: []\n  a: 7\n", json!({"a": 7})),
        ("  o: {p: 2}\n  <<: {o: {z: 3}}\n", json!({"o": {"z": 3}})),
        ("  !!merge <<: *m\n", json!({"a": 2, "c": 3})),
        // A text in quotes is a key.
        ("  \"<<\": 1\n  '<<': 2\n", json!({"<<": 2})),
    ] {
        assert_eq!(merged(text), expected, "{text}");
    }
    let duplicates = parse(
        format!("{base}out:\n  <<: *b\n  a: 9\n").as_bytes(),
        Format::Yaml,
    );
    assert_eq!(duplicates.unwrap().duplicates, ["out.a"]);
}

#[test]
fn a_merge_of_what_is_no_map_or_has_no_end_is_refused() {
    for text in [
        "<<: 1",
        "<<: [1]",
        "l: &l [{a: 1}]\nm: {<<: *l}",
        "<<: *nothing",
        "a: {<<: [{a: 1}, [b]]}",
    ] {
        refused(text.as_bytes());
    }
    let endless = "m: &m {<<: *m}";
    assert!(refused(endless.as_bytes()).contains("max depth"));
    let endless = "m: &m {a: 1, <<: [*m, *m]}";
    refused(endless.as_bytes());
    // Maps of nothing, in numbers that double with each line.
    let lines = (1..40).map(|n| format!("m{n}: &m{n} {{<<: [*m{0}, *m{0}]}}\n", n - 1));
    let text = format!("m0: &m0 {{}}\n{}", lines.collect::<String>());
    assert!(refused(text.as_bytes()).contains("are merged"));
}
