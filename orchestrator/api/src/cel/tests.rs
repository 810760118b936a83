//! The language, its libraries, its types, and what an evaluation may cost.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{typing::Decl, *};

/// An environment with `self` of a schema, and `object` of which nothing is known.
fn env(schema: &Json) -> Env {
    let mut env = Env::default();
    let decl = Arc::new(Decl::of_schema(schema, false).expect("declared"));
    env.variables.insert("self".into(), decl.into());
    env.variables.insert("object".into(), Type::Dyn.into());
    env
}

fn schema() -> Json {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 10},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "on": {"type": "boolean"},
        "data": {"type": "string", "format": "byte"},
        "since": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "wait": {"type": "string", "format": "duration"},
        "port": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "items": {"type": "integer"}, "maxItems": 10},
        "words": {"type": "array", "items": text},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "labels": {"type": "object", "additionalProperties": text},
        "a.b": {"type": "integer"},
        "namespace": text,
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "inner": {"type": "object", "properties": {"x": {"type": "integer"}}},
    }})
}

fn value() -> Json {
    json!({
        "name": "abc", "count": 3, "ratio": 2, "on": true, "data": "YWJj",
        "since": "2024-01-02T03:04:05Z", "day": "2024-01-02", "wait": "1h30m", "port": "80%",
        "list": [1, 2, 3], "words": ["a", "b"], "set": ["x", "y"], "labels": {"k": "v", "a.b/c": "w"},
        "a.b": 7, "namespace": "n", "inner": {"x": 1},
    })
}

fn compiled(source: &str) -> Result<Program, String> {
    Program::compile(source, &env(&schema()), Wanted::Any)
}

fn evaluated(source: &str) -> Result<Json, String> {
    metered(source, CALL_LIMIT).0
}

/// The result, and what it cost.
fn metered(source: &str, limit: u64) -> (Result<Json, String>, u64) {
    let program = match compiled(source) {
        Ok(program) => program,
        Err(why) => return (Err(why), 0),
    };
    let (decl, value) = (Decl::of_schema(&schema(), false).unwrap(), value());
    let mut scope = Scope::default();
    scope
        .values
        .insert("self", Value::of(&value, &decl).unwrap());
    scope.values.insert("object", Value::of_json(&value));
    let mut meter = Meter::new(limit);
    let outcome = program.run(&scope, &mut meter);
    let json = outcome.map(|value| value.to_json().unwrap_or(json!(format!("{value:?}"))));
    (
        json.map_err(|failure| failure.text().to_owned()),
        meter.spent(),
    )
}

#[track_caller]
fn assert_true(sources: &[&str]) {
    for source in sources {
        assert_eq!(evaluated(source), Ok(json!(true)), "{source}");
    }
}

#[track_caller]
fn assert_fails(cases: &[(&str, &str)]) {
    for (source, why) in cases {
        assert_eq!(evaluated(source).unwrap_err(), *why, "{source}");
    }
}

#[test]
fn arithmetic_is_that_of_the_language() {
    assert_true(&[
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && -7 % 2 == -1",
        "7.0 / 2.0 == 3.5",
        "2u + 3u == 5u",
        "0x1f == 31",
        "1e3 == 1000.0",
        "-9223372036854775808 < 0",
        "1 < 1.5 && 2u > 1 && 2.0 >= 2",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab'",
        "[1] + [2] == [1, 2]",
        "!false && --1 == 1 && !!true",
        "true ? 1 == 1 : 1 / 0 == 1",
        "1 in [1, 2] && !(3 in [1, 2]) && 'k' in {'k': 1}",
        "{'a': 1}['a'] == 1 && {'a': 1}.a == 1",
        "[1, 2][1] == 2",
        "'\\u00e9\\x41\\101' == '\u{e9}AA'",
        "r'\\d' == '\\\\d'",
        "'''a\nb''' == 'a\\nb'",
        "'\u{1F600}'.size() == 1",
        "{1: 2}[dyn(1u)] == 2",
        "null == null",
        "type(1) == int && type('a') == string && type([]) == list && type(null) == null_type",
        "double('nan') != double('nan')",
    ]);
    assert_fails(&[
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("[1][1]", "index out of bounds: 1"),
        ("{'a': 1}['b']", "no such key: b"),
        ("dyn(1) + dyn('a')", "no such overload"),
        ("object.nothing", "no such key: nothing"),
    ]);
}

#[test]
fn logic_forgets_errors_that_do_not_matter() {
    assert_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 1].all(x, 1 / x == 2)",
    ]);
    assert_fails(&[
        ("1 / 0 == 1 || false", "division by zero"),
        ("[1, 0].all(x, 1 / x == 1)", "division by zero"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "division by zero"),
    ]);
}

#[test]
fn macros_go_over_lists_and_maps() {
    assert_true(&[
        "[1, 2, 3].all(x, x > 0) && ![1, 2].all(x, x > 1)",
        "[1, 2, 3].exists(x, x == 2) && ![].exists(x, true) && [].all(x, false)",
        "[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].existsOne(x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k < 'c') && {'a': 1}.map(k, k) == ['a']",
        "['a', 'b'].all(i, v, (i == 0) == (v == 'a'))",
        "{'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].transformList(i, v, i * v) == [0, 2]",
        "[1, 2].transformList(i, v, v > 1, i) == [1]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "[[1], [2]].all(x, x.all(y, y < 3))",
        "[1].all(x, [2].all(x, x == 2) && x == 1)",
    ]);
}

#[test]
fn texts_have_the_functions_of_kubernetes() {
    assert_true(&[
        "'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')",
        "'abc'.size() == 3 && size('abc') == 3",
        "'a1'.matches('^[a-z]\\\\d$') && !'a'.matches('b')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'abc'.find('x') == '' && 'a1b2'.findAll('[0-9]', 1) == ['1']",
        "'hello'.charAt(4) == 'o' && 'hello'.charAt(5) == ''",
        "'hello'.indexOf('l') == 2 && 'hello'.indexOf('l', 3) == 3 && 'a'.indexOf('x') == -1",
        "'hello'.lastIndexOf('l') == 3 && 'hello'.lastIndexOf('l', 2) == 2",
        "'aBc'.lowerAscii() == 'abc' && 'aBc'.upperAscii() == 'ABC'",
        "'a-a-a'.replace('a', 'b') == 'b-b-b' && 'a-a'.replace('a', 'b', 1) == 'b-a'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc']",
        "'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el'",
        "'  a '.trim() == 'a' && 'abc'.reverse() == 'cba'",
        "['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'",
        "strings.quote('a\\n\"') == '\"a\\\\n\\\\\"\"'",
        "'%s is %d of %.2f (%%)'.format(['a', 1, 2.5]) == 'a is 1 of 2.50 (%)'",
        "'%x %X %b %o %e'.format([255, 255, 5, 8, 1500.0]) == 'ff FF 101 10 1.500000e+03'",
        "'%s %s'.format([[1, 2], {'k': true}]) == '[1, 2] {k: true}'",
    ]);
    assert_fails(&[
        ("'a'.charAt(2)", "index out of range: 2"),
        (
            "'abc'.substring(2, 1)",
            "invalid substring range. start: 2, end: 1",
        ),
        (
            "'%d'.format(['a'])",
            "error during formatting: a value of type string was given to the clause %d",
        ),
    ]);
}

#[test]
fn libraries_are_those_of_kubernetes() {
    assert_true(&[
        "[1, 2].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [1.5].sum() == 1.5",
        "[3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 2, 1], [2, 1]) && !sets.intersects([1], [2])",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k').asInteger() == 1000",
        "quantity('50m').asApproximateFloat() == 0.05 && isQuantity('1.5Mi') && !isQuantity('1x')",
        "quantity('1').add(quantity('1')).compareTo(quantity('2')) == 0 && quantity('1').sub(2).sign() == -1",
        "quantity('1000m') == quantity('1')",
        "ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('a') && string(ip('::1')) == '::1'",
        "ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') && ip('8.8.8.8').isGlobalUnicast()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('10.1.0.5/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8",
        "!isCIDR('10.0.0.0/33') && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
        "url('https://a.example:80/b%20c?d=e&d=f').getHost() == 'a.example:80'",
        "url('https://a.example:80/b').getHostname() == 'a.example' && url('https://[::1]:8/').getPort() == '8'",
        "url('https://a/b?d=e&d=f').getQuery() == {'d': ['e', 'f']} && url('/a').getEscapedPath() == '/a'",
        "isURL('https://a') && !isURL('a b') && url('https://a').getScheme() == 'https'",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.2.3-alpha').compareTo(semver('1.2.3')) == -1",
        "isSemver('1.0.0') && !isSemver('v1.0') && isSemver('v1.0', true) && semver('1.2.3').minor() == 2",
        "!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue()",
        "format.named('uuid').hasValue() && !format.named('nonsense').hasValue()",
        "duration('1h30m').getMinutes() == 90 && duration('1s') < duration('1m')",
        "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024 && timestamp('2024-01-02T03:04:05Z').getDayOfWeek() == 2",
        "timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
        "timestamp('2024-01-02T03:04:05Z').getHours('+02:00') == 5",
        "int('12') == 12 && double('1.5') == 1.5 && string(1.0) == '1' && bool('true') && uint(3) == 3u",
        "int(timestamp('1970-01-01T00:01:00Z')) == 60 && string(duration('90s')) == '90s'",
        "optional.of(1).hasValue() && !optional.none().hasValue() && optional.of(1).orValue(2) == 1",
        "optional.ofNonZeroValue('').orValue('x') == 'x' && optional.of(2).optMap(x, x * 2).value() == 4",
        "{'a': {'b': 1}}.?a.?b.orValue(0) == 1 && {'a': 1}[?'b'].orValue(9) == 9",
        "[1, ?optional.none(), 2] == [1, 2] && {?'a': optional.none()}.size() == 0",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ]);
}

#[test]
fn an_object_is_read_by_its_schema() {
    assert_true(&[
        "self.name == 'abc' && self.count == 3 && self.ratio == 2.0 && self.ratio / 4.0 == 0.5",
        "self.data == b'abc' && self.since.getFullYear() == 2024 && self.since > self.day",
        "self.wait == duration('90m') && self.list.sum() == 6 && self.labels['k'] == 'v'",
        "has(self.name) && !has(self.free) && has(self.labels.k) && !has(self.labels.x)",
        "self.a__dot__b == 7 && self.__namespace__ == 'n'",
        "type(self.port) == string && self.port == '80%'",
        "self.set == ['y', 'x'] || true",
        "self.set + ['y', 'z'] == ['x', 'y', 'z']",
        "self.labels.all(k, self.labels[k] != '') && self.words.all(w, w.size() == 1)",
        "self.inner == self.inner && self.inner.x == 1",
        "object.count == 3 && object['a.b'] == 7 && object.labels.k == 'v' && has(object.inner.x)",
    ]);
}

#[test]
fn what_does_not_fit_is_found_before_it_runs() {
    let cases = [
        (
            "self.nothing",
            "ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing\n | ....^",
        ),
        (
            "nobody == 1",
            "ERROR: <input>:1:1: undeclared reference to 'nobody' (in container '')\n | nobody == 1\n | ^",
        ),
        (
            "self.name + 1",
            "ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(string, int)'\n | self.name + 1\n | ..........^",
        ),
        (
            "self.name.startsWith(1)",
            "ERROR: <input>:1:21: found no matching overload for 'startsWith' applied to 'string.(int)'\n | self.name.startsWith(1)\n | ....................^",
        ),
        (
            "self.count.x",
            "ERROR: <input>:1:11: type 'int' does not support field selection\n | self.count.x\n | ..........^",
        ),
        (
            "self.count.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.count.all(x, true)\n | ....^",
        ),
        (
            "self.list.all(x, x)",
            "ERROR: <input>:1:14: found no matching overload for '_&&_' applied to '(bool, int)'\n | self.list.all(x, x)\n | .............^",
        ),
        (
            "[1, 'a']",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^",
        ),
        (
            "nothing(1)",
            "ERROR: <input>:1:8: undeclared reference to 'nothing' (in container '')\n | nothing(1)\n | .......^",
        ),
        (
            "self.name &&\n self.on",
            "ERROR: <input>:1:11: found no matching overload for '_&&_' applied to '(string, bool)'\n | self.name &&\n | ..........^",
        ),
        (
            "true ? 1 : 'a'",
            "ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'\n | true ? 1 : 'a'\n | .....^",
        ),
        (
            "Object{}",
            "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{}\n | ......^",
        ),
    ];
    for (source, why) in cases {
        let said = compiled(source).unwrap_err();
        assert_eq!(said, format!("compilation failed: {why}"), "{source}");
    }
    let said = compiled("self.name.matches('[')").unwrap_err();
    assert!(
        said.starts_with("program instantiation failed: error parsing regexp: "),
        "{said}"
    );
    let not_bool = Program::compile("1", &env(&schema()), Wanted::Bool).unwrap_err();
    assert_eq!(not_bool, "cel expression must evaluate to a bool");
}

#[test]
fn what_is_no_expression_is_told_in_the_words_of_the_grammar() {
    const BEGINS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
                          NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    let cases = [
        (
            "self.a +",
            format!("1:9: Syntax error: mismatched input '<EOF>' expecting {BEGINS}"),
        ),
        (
            "self.a ]",
            "1:8: Syntax error: extraneous input ']' expecting <EOF>".into(),
        ),
        ("(self", "1:6: Syntax error: missing ')' at '<EOF>'".into()),
        (
            "[1, 2",
            "1:6: Syntax error: mismatched input '<EOF>' expecting {']', ','}".into(),
        ),
        (
            "1 = 2",
            "1:3: Syntax error: token recognition error at: '='".into(),
        ),
        (
            "'abc",
            "1:1: Syntax error: token recognition error at: ''abc'".into(),
        ),
        ("has(self)", "1:5: invalid argument to has() macro".into()),
        (
            "self.all(1, true)",
            "1:10: argument must be a simple name".into(),
        ),
        ("namespace", "1:1: reserved identifier: namespace".into()),
        ("99999999999999999999", "1:1: invalid int literal".into()),
        ("9223372036854775808", "1:1: invalid int literal".into()),
        (
            "",
            format!("1:1: Syntax error: mismatched input '<EOF>' expecting {BEGINS}"),
        ),
    ];
    for (source, why) in cases {
        let said = compiled(source).unwrap_err();
        let wanted = format!("compilation failed: ERROR: <input>:{why}");
        assert!(said.starts_with(&wanted), "{source}: {said}");
    }
}

#[test]
fn deep_and_long_expressions_are_refused() {
    let many = |part: &str, count: usize| part.repeat(count);
    let sources = [
        format!("{}1{}", many("(", 5_000), many(")", 5_000)),
        format!("{}1{}", many("[", 5_000), many("]", 5_000)),
        many("!", 20_000) + "true",
        many("-", 20_000) + "1",
        many("1 + ", 15_000) + "1",
        format!("object{}", many(".a", 30_000)),
        format!("object{}", many("[0]", 20_000)),
        many("true ? 1 : ", 5_000) + "1",
        many("a(", 20_000),
        many("{1:", 20_000),
        many("1,", 70_000),
        format!("[{}1]", many("1, ", 21_000)),
    ];
    for source in sources {
        let shown = &source[..20];
        let why = compiled(&source).unwrap_err();
        assert!(why.len() < 4_000, "{shown}: {}", why.len());
    }
    assert_true(&[&(many("true && ", 5_000) + "true")]);
    assert_true(&[&format!("{}true{}", many("(", 60), many(")", 60))]);
}

#[test]
fn an_evaluation_costs_what_kubernetes_charges() {
    for (source, cost) in [
        ("true", 0),
        ("self.count", 2),
        ("self.count == 3", 3),
        ("self.inner.x > 0 && true", 4),
        ("[1, 2]", 10),
        ("{'a': 1}", 30),
        ("has(self.name)", 1),
        ("self.name == 'abc'", 3),
        ("self.name.startsWith('a')", 3),
        ("self.name.matches('abcd')", 3),
        ("self.list.all(x, x > 0)", 2 + 1 + 3 * (3 + 1 + 1)),
        ("self.list.map(x, x)", 2 + 11 + 3 * (12 + 1)),
    ] {
        let (outcome, spent) = metered(source, CALL_LIMIT);
        assert!(outcome.is_ok(), "{source}: {outcome:?}");
        assert_eq!(spent, cost, "{source}");
    }
}

/// What Kubernetes' own tests say of costs (apiserver/pkg/cel/library/cost_test.go, 1.37).
const COSTS: [(&str, u64); 38] = [
    ("'ABCDEFGHIJ abcdefghij'.lowerAscii()", 3),
    (
        "'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()",
        9,
    ),
    ("strings.quote('ABCDEFGHIJ abcdefghij')", 3),
    ("'abc 123 def 123'.replace('123', '456')", 3),
    ("'abc 123 def 123'.replace('', 'x')", 3),
    ("'abc 123 def 123'.split(' ')", 3),
    ("'abc 123 def 123'.substring(5, 8)", 2),
    ("'  abc 123 def 123  '.trim()", 2),
    (
        "['aa', 'bb', 'cc', 'd', 'e', 'f', 'g', 'h', 'i', 'j'].join(' ')",
        15,
    ),
    (
        "['aa', 'bb', 'cc', 'd', 'e', 'f', 'g', 'h', 'i', 'j'].join()",
        13,
    ),
    ("'abc 123 def 123'.find('123')", 2),
    ("'abc 123 def 123'.findAll('123')", 2),
    ("jsonpatch.escapeKey('abc/def~ abc/def~')", 2),
    ("quantity('12Mi')", 1),
    ("quantity('200M') == quantity('200M')", 3),
    ("quantity('50M').isLessThan(quantity('50Mi'))", 3),
    (
        "quantity('50k').add(quantity('20')) == quantity('50.02k')",
        5,
    ),
    (
        "quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger() > 0",
        7,
    ),
    ("sets.contains([], [])", 21),
    ("sets.contains([1], [1, 1])", 23),
    ("sets.contains([1, 2, 3, 4], [2, 3])", 29),
    ("sets.equivalent([1], [1])", 23),
    ("sets.intersects([1, 1], [1])", 23),
    ("semver('1.0.0')", 1),
    ("semver('1234.56789012345.67890123456789')", 4),
    ("semver('1.0.0').compareTo(semver('1.2.3'))", 3),
    ("{'a': 1, 'b': 2}.all(k, v, v > 0)", 41),
    ("{'a': 1, 'b': 2}.exists(k, v, v > 0)", 40),
    ("{'a': 1, 'b': 2}.existsOne(k, v, v > 0)", 40),
    ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", 71),
    ("{'a': 1, 'b': 2}.transformMap(k, v, v < 5, v + 1)", 75),
    ("[1, 2].all(i, v, v > 0)", 21),
    ("[1, 2].exists(i, v, v > 0)", 20),
    ("[1, 2].existsOne(i, v, v > 0)", 20),
    ("[1, 2].transformList(i, v, v + 1)", 49),
    ("[1, 2, 3].isSorted()", 13),
    ("url('https:://kubernetes.io/').getHost()", 4),
    ("format.named('dns1123Label')", 1),
];

#[test]
fn libraries_cost_what_kubernetes_charges() {
    for (source, cost) in COSTS {
        let (outcome, spent) = metered(source, CALL_LIMIT);
        assert!(outcome.is_ok(), "{source}: {outcome:?}");
        assert_eq!(spent, cost, "{source}");
    }
}

/// Expressions that would go on for ever, over a list of a hundred items.
const ENDLESS: [&str; 12] = [
    "L.all(a, L.all(b, L.all(c, L.all(d, L.all(e, true)))))",
    "L.map(a, L.map(b, L.map(c, L.map(d, a + b)))).size() > 0",
    "L.map(a, L + L).map(b, b + b).map(c, c.map(d, c.map(e, L))).size() > 0",
    "L.all(a, S.matches('(a|b)*(a|b){200}c') || true)",
    "L.all(a, S.replace('', S).size() > 0)",
    "L.map(a, S + S).join(S).size() > 0",
    "L.all(a, L.all(b, S.contains(S)))",
    "L.all(a, L.all(b, S == S + 'a' || true))",
    "L.all(a, L.all(b, '%s%s%s'.format([S, S, S]).size() > 0))",
    "L.all(a, L.all(b, S.split('').size() > 0))",
    "L.all(a, L.all(b, S.matches(string(a) + string(b) + '(x{900}){100}') || true))",
    "L.all(a, L.all(b, sets.contains(L + L, L + L + L)))",
];

#[test]
fn what_would_go_on_for_ever_ends_within_its_budget() {
    let (list, text): (Vec<i64>, String) = ((0..100).collect(), "ab".repeat(50_000));
    let value = json!({"l": list, "s": text});
    let mut env = Env::default();
    for name in ["L", "S"] {
        env.variables.insert(name.into(), Type::Dyn.into());
    }
    for source in ENDLESS {
        let program = Program::compile(source, &env, Wanted::Any).expect(source);
        let mut scope = Scope::default();
        scope.values.insert("L", Value::of_json(&value["l"]));
        scope.values.insert("S", Value::of_json(&value["s"]));
        let mut meter = Meter::new(CALL_LIMIT);
        let began = Instant::now();
        let outcome = program.run(&scope, &mut meter);
        assert!(
            matches!(outcome, Err(Failure::Cost)),
            "{source}: {outcome:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{source}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn the_worst_cost_is_known_from_the_schema() {
    let worst = |source: &str| compiled(source).unwrap().max_cost;
    assert!(worst("self.list.all(x, x > 0)") < 100);
    assert!(worst("self.words.all(x, x == 'a')") > 1_000_000);
    assert!(worst("self.words.all(x, self.words.all(y, x == y))") > 1_000_000_000_000);
    assert!(worst("self.name.startsWith('a')") < 10);
}

proptest! {
    #[test]
    fn no_source_is_a_panic(source in r#"[a-c0-9 .,()\[\]{}?:!<>=&|+*/%'"`-]{0,60}|\PC{0,40}"#) {
        let _ = compiled(&source);
    }

    #[test]
    fn no_expression_of_words_is_a_panic(words in prop::collection::vec(prop::sample::select(vec![
        "self", "object", ".", "name", "list", "words", "labels", "port", "(", ")", "[", "]", "{", "}",
        "1", "0", "-1", "1.5", "2u", "'a'", "b'a'", "null", "true", "==", "<", "+", "-", "*", "/", "%",
        "in", "&&", "||", "!", "?", ":", ",", ".all(x, ", ".map(x, ", ".filter(x, ", "x", ".size()",
        ".matches(", ".?", "[?", "optional.of(", ".orValue(", "duration(", "timestamp(", "int(",
        "string(", ".split(", ".format([", "])", "quantity(", "ip(", "has(", "dyn(",
    ]), 1..14)) {
        for glue in ["", " "] {
            let _ = metered(&words.join(glue), 10_000);
        }
    }

    #[test]
    fn sums_and_comparisons_are_those_of_integers(a in -1000i64..1000, b in -1000i64..1000, c in 1i64..50) {
        let source = format!("{a} + ({b}) * {c} - ({a}) / {c} % {c}");
        prop_assert_eq!(evaluated(&source), Ok(json!(a + b * c - a / c % c)));
        prop_assert_eq!(evaluated(&format!("{a} < {b}")), Ok(json!(a < b)));
        prop_assert_eq!(evaluated(&format!("{a} <= {b}.0")), Ok(json!(a <= b)));
    }

    #[test]
    fn a_checked_expression_never_lacks_an_overload(name in prop::sample::select(vec![
        "self.name", "self.count", "self.ratio", "self.on", "self.list", "self.words", "self.labels",
        "self.since", "self.wait", "self.data",
    ]), operator in prop::sample::select(vec!["==", "<", "+", "-", "*", "in", "&&"]), other in
        prop::sample::select(vec!["self.name", "self.count", "self.ratio", "self.on", "self.list",
        "self.words", "self.labels", "self.since", "self.wait", "'a'", "1", "1.0"])) {
        if let Err(why) = evaluated(&format!("{name} {operator} {other}")) {
            prop_assert!(why.starts_with("compilation failed"), "{}", why);
        }
    }
}
