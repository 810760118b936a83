//! Regular expressions as Go writes them (RE2), with bounds on what compiling and matching cost.
//!
//! A pattern of a schema or of an expression comes from a client. It is rewritten for the crate that
//! runs it where the two dialects differ, its automaton has a largest size, and it is matched by a
//! lazy DFA only, which gives up instead of becoming slow: no pattern takes longer than its text is
//! long, times a constant.

use regex_automata::{
    Anchored, Input,
    hybrid::{dfa, regex},
    nfa::thompson,
    util::syntax,
};

/// Bytes of a pattern.
const MAX_PATTERN_BYTES: usize = 16 * 1024;
/// Bytes of the automaton that a pattern is compiled to.
const MAX_AUTOMATON_BYTES: usize = 1024 * 1024;
/// Bytes of states that a search keeps before it forgets them and begins anew.
const SCRATCH_BYTES: usize = 512 * 1024;
/// How often a search may forget its states, and how many bytes each of them must have served since.
const MAX_CLEARINGS: usize = 8;
const MIN_BYTES_PER_STATE: usize = 16;
/// How deep groups may stand in each other.
const MAX_NESTING: u32 = 100;
/// Go's limit for `{n}`.
const MAX_REPEAT: u32 = 1000;

/// A pattern that says whether a text contains a match.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    dfa: dfa::DFA,
}

/// What a pattern has learned of its states; kept between texts for its speed.
#[derive(Debug)]
pub struct Scratch(dfa::Cache);

/// A pattern that says where its matches are.
#[derive(Debug)]
pub struct Finder {
    regex: regex::Regex,
}

/// The search took more memory than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern is too costly for this text")]
pub struct TooCostly;

impl Pattern {
    /// The error is the text that Go's compiler begins with too: `error parsing regexp: …`.
    pub fn new(text: &str) -> Result<Self, String> {
        let dfa = dfa::DFA::builder()
            .syntax(syntax_config())
            .thompson(thompson_config())
            .configure(dfa_config())
            .build(&translated(text)?)
            .map_err(|e| refusal(text, &e))?;
        Ok(Self {
            text: text.into(),
            dfa,
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of its automaton.
    pub fn memory(&self) -> usize {
        self.dfa.get_nfa().memory_usage()
    }

    pub fn scratch(&self) -> Scratch {
        Scratch(self.dfa.create_cache())
    }

    /// Whether the text contains a match. The scratch is one of this pattern.
    pub fn is_match(&self, text: &str, scratch: &mut Scratch) -> Result<bool, TooCostly> {
        let input = Input::new(text).anchored(Anchored::No).earliest(true);
        let found = self.dfa.try_search_fwd(&mut scratch.0, &input);
        found.map(|half| half.is_some()).map_err(|_| TooCostly)
    }
}

impl Finder {
    pub fn new(text: &str) -> Result<Self, String> {
        let regex = regex::Regex::builder()
            .syntax(syntax_config())
            .thompson(thompson_config())
            .dfa(dfa_config())
            .build(&translated(text)?)
            .map_err(|e| refusal(text, &e))?;
        Ok(Self { regex })
    }

    /// Bytes of its automatons.
    pub fn memory(&self) -> usize {
        let [forward, reverse] = [self.regex.forward(), self.regex.reverse()];
        forward.get_nfa().memory_usage() + reverse.get_nfa().memory_usage()
    }

    /// The matches in order, as Go finds them: none begins in another, `limit` at most.
    pub fn find_all<'a>(&self, text: &'a str, limit: usize) -> Result<Vec<&'a str>, TooCostly> {
        let mut cache = self.regex.create_cache();
        let (mut found, mut at, mut last_end) = (Vec::new(), 0, None);
        while at <= text.len() && found.len() < limit {
            let input = Input::new(text).range(at..);
            let outcome = self.regex.try_search(&mut cache, &input);
            let Some(span) = outcome.map_err(|_| TooCostly)?.map(|m| m.range()) else {
                break;
            };
            at = span.end;
            if span.is_empty() {
                at = next_boundary(text, at);
                if last_end == Some(span.end) {
                    continue;
                }
            }
            last_end = Some(span.end);
            found.push(text.get(span).unwrap_or_default());
        }
        Ok(found)
    }
}

fn next_boundary(text: &str, at: usize) -> usize {
    let next = text.get(at..).and_then(|rest| rest.chars().next());
    at + next.map_or(1, char::len_utf8)
}

fn syntax_config() -> syntax::Config {
    // `(?-u:\B)` is allowed; what consumes text is still whole characters.
    syntax::Config::new().nest_limit(MAX_NESTING).utf8(false)
}

fn thompson_config() -> thompson::Config {
    thompson::Config::new().nfa_size_limit(Some(MAX_AUTOMATON_BYTES))
}

fn dfa_config() -> dfa::Config {
    dfa::Config::new()
        .cache_capacity(SCRATCH_BYTES)
        .skip_cache_capacity_check(true)
        .minimum_cache_clear_count(Some(MAX_CLEARINGS))
        .minimum_bytes_per_state(Some(MIN_BYTES_PER_STATE))
}

fn refusal(text: &str, error: &dyn std::error::Error) -> String {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why = error.to_string();
        source = error.source();
    }
    // The crate draws the place below the pattern; the last line says what is wrong.
    let last = why.lines().last().unwrap_or_default();
    let last = last.trim_start_matches("error: ");
    let known = WORDS.iter().find(|(ours, _)| last.starts_with(ours));
    let last = known.map_or(last, |(_, go)| go);
    format!("error parsing regexp: {last}: `{}`", shown(text))
}

/// How Go says what the crate says.
const WORDS: [(&str, &str); 5] = [
    ("unclosed group", "missing closing )"),
    ("unopened group", "unexpected )"),
    (
        "repetition operator missing expression",
        "missing argument to repetition operator",
    ),
    (
        "invalid character class range",
        "invalid character class range",
    ),
    (
        "Unicode property not found",
        "invalid character class range",
    ),
];

fn wrong(why: &str, part: &str) -> String {
    format!("error parsing regexp: {why}: `{}`", shown(part))
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(256)]
}

/// The pattern in the dialect of the crate.
fn translated(text: &str) -> Result<String, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(wrong("expression too large", text));
    }
    let mut translation = Translation {
        rest: text,
        out: String::with_capacity(text.len() + 16),
    };
    while let Some(c) = translation.next() {
        match c {
            '\\' => translation.escape(false)?,
            '[' => translation.class()?,
            '{' => translation.repeat()?,
            '}' => translation.out.push_str(r"\}"),
            '(' => translation.group()?,
            c => translation.out.push(c),
        }
    }
    Ok(translation.out)
}

struct Translation<'a> {
    rest: &'a str,
    out: String,
}

/// What Go means by the classes that are one letter: ASCII. Outside of brackets, and inside.
const LETTERS: [(char, &str, &str); 6] = [
    ('d', "[0-9]", "0-9"),
    ('D', "[^0-9]", "[^0-9]"),
    ('s', r"[\t\n\f\r\x20]", r"\t\n\f\r\x20"),
    ('S', r"[^\t\n\f\r\x20]", r"[^\t\n\f\r\x20]"),
    ('w', "[0-9A-Za-z_]", "0-9A-Za-z_"),
    ('W', "[^0-9A-Za-z_]", "[^0-9A-Za-z_]"),
];

impl Translation<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.next() else {
            return Err(wrong("trailing backslash at end of expression", ""));
        };
        if let Some((_, outside, inside)) = LETTERS.iter().find(|(letter, ..)| *letter == c) {
            self.out.push_str(if in_class { inside } else { outside });
            return Ok(());
        }
        match c {
            'b' | 'B' if !in_class => self.out.push_str(&format!(r"(?-u:\{c})")),
            'A' | 'z' if !in_class => self.out.push_str(&format!(r"\{c}")),
            'Q' if !in_class => self.quoted(),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => self.out.push_str(&format!(r"\{c}")),
            'p' | 'P' | 'x' => self.braced(c)?,
            '0'..='7' => self.octal(c)?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => self.literal(c),
            c => return Err(wrong("invalid escape sequence", &format!("\\{c}"))),
        }
        Ok(())
    }

    /// `\Q…\E`: as it stands.
    fn quoted(&mut self) {
        let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
        self.rest = rest;
        quoted.chars().for_each(|c| self.literal(c));
    }

    /// `\p{Greek}`, `\x{10FFFF}`, and the same with one or two characters and no braces.
    fn braced(&mut self, letter: char) -> Result<(), String> {
        let length = match self.rest.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| end + 2),
            None if letter == 'x' => Some(2),
            None => self.rest.chars().next().map(char::len_utf8),
        };
        let Some(part) = length.and_then(|length| self.rest.get(..length)) else {
            return Err(wrong("invalid escape sequence", &format!("\\{letter}")));
        };
        self.rest = &self.rest[part.len()..];
        self.out.push_str(&format!("\\{letter}{part}"));
        Ok(())
    }

    /// `\0` and up to two digits more, `\123`; one digit alone would be a reference.
    fn octal(&mut self, first: char) -> Result<(), String> {
        let digits = self.rest.bytes().take(2);
        let more = digits.take_while(|b| (b'0'..=b'7').contains(b)).count();
        if first != '0' && more == 0 {
            return Err(wrong("invalid escape sequence", &format!("\\{first}")));
        }
        let (digits, rest) = self.rest.split_at(more);
        self.rest = rest;
        let number = u32::from_str_radix(&format!("{first}{digits}"), 8).unwrap_or_default();
        self.out.push_str(&format!("\\x{{{number:X}}}"));
        Ok(())
    }

    /// `[…]`. A bracket, `&&`, `--` and `~~` mean nothing in Go inside of it.
    fn class(&mut self) -> Result<(), String> {
        let whole = self.rest;
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            self.out.push('^');
        }
        let (mut first, mut after_range) = (true, false);
        loop {
            let Some(c) = self.next() else {
                return Err(wrong("missing closing ]", &format!("[{whole}")));
            };
            let is_range = c == '-' && !first && !after_range;
            match c {
                ']' if !first => break,
                '\\' => self.escape(true)?,
                '[' => self.named_class(),
                '-' if is_range => self.out.push('-'),
                ']' | '-' | '&' | '~' | '^' => self.literal(c),
                c => self.out.push(c),
            }
            (first, after_range) = (false, is_range);
        }
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]`, or a bracket.
    fn named_class(&mut self) {
        let name = self.rest.strip_prefix(':').and_then(|rest| {
            let end = rest.find(":]")?;
            let name = &rest[..end];
            let fits = |c: char| c.is_ascii_lowercase() || c == '^';
            name.chars().all(fits).then_some(name)
        });
        match name {
            Some(name) => {
                self.out.push_str(&format!("[:{name}:]"));
                self.rest = &self.rest[name.len() + 3..];
            }
            None => self.literal('['),
        }
    }

    /// `{n}`, `{n,}`, `{n,m}`, or a brace.
    fn repeat(&mut self) -> Result<(), String> {
        let counts = self.rest.split_once('}').and_then(|(inner, rest)| {
            let (min, max) = inner.split_once(',').unwrap_or((inner, ""));
            let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            let fits = !min.is_empty() && is_number(min) && is_number(max);
            fits.then_some((inner, [min, max], rest))
        });
        let Some((inner, numbers, rest)) = counts else {
            self.out.push_str(r"\{");
            return Ok(());
        };
        let given = numbers.iter().filter(|text| !text.is_empty());
        let mut numbers = given.map(|text| text.parse::<u32>().unwrap_or(u32::MAX));
        if numbers.any(|n| n > MAX_REPEAT) {
            return Err(wrong("invalid repeat count", &format!("{{{inner}}}")));
        }
        self.out.push_str(&format!("{{{inner}}}"));
        self.rest = rest;
        Ok(())
    }

    /// `(`, with flags or a name that Go knows.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let Some(rest) = self.rest.strip_prefix('?') else {
            return Ok(());
        };
        let named = rest.strip_prefix("P<").or(rest.strip_prefix('<'));
        let is_name = |rest: &str| !rest.starts_with(['=', '!']);
        let flags = rest.find([':', ')']).map(|end| &rest[..end]);
        let known = flags.is_some_and(|flags| flags.chars().all(|c| "imsU-".contains(c)));
        if !known && !named.is_some_and(is_name) {
            let end = self.rest.floor_char_boundary(3);
            let part = format!("({}", &self.rest[..end]);
            return Err(wrong("invalid or unsupported Perl syntax", &part));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let mut scratch = pattern.scratch();
        pattern.is_match(text, &mut scratch).expect("cheap")
    }

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, expected) in [
            ("^a+$", "aaa", true),
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[^\s]+$", "a b", false),
            (r"\bcat\b", "a cat sat", true),
            (r"\bcat\b", "concat", false),
            (r"^{.*}$", "{a}", true),
            (r"^a{2}$", "aa", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^[a[b]$", "[", true),
            (r"^[a&&b]$", "&", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[]a]+$", "]a", true),
            (r"^[+--]+$", "+,-", true),
            (r"^[-a]+$", "-a", true),
            (r"^[a-]+$", "-a", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\x41\x{42}\101$", "ABA", true),
            (r"^\<a\>$", "<a>", true),
            (r"(?i)^abc$", "ABC", true),
            (r"^(?P<year>\d{4})-(?:\d\d)$", "2024-10", true),
            (r"^\p{Greek}\pL$", "αβ", true),
            (r"^.$", "é", true),
            ("^$", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_go_does_not_know_is_refused() {
        for (pattern, why) in [
            (r"(?=a)", "invalid or unsupported Perl syntax: `(?=a`"),
            (r"(?<!a)", "invalid or unsupported Perl syntax: `(?<!`"),
            (r"(?x)a", "invalid or unsupported Perl syntax: `(?x)`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"[a", "missing closing ]: `[a`"),
            (r"a\", "trailing backslash at end of expression: ``"),
            (r"a{1001}", "invalid repeat count: `{1001}`"),
        ] {
            let said = Pattern::new(pattern).unwrap_err();
            assert_eq!(said, format!("error parsing regexp: {why}"));
        }
        for pattern in ["a**(", "(", ")", "[z-a]", r"\p{Nonsense}", "*"] {
            let said = Pattern::new(pattern).unwrap_err();
            assert!(said.starts_with("error parsing regexp: "), "{said}");
        }
    }

    #[test]
    fn matches_are_found_as_go_finds_them() {
        let all = |pattern: &str, text: &str| {
            let finder = Finder::new(pattern).unwrap();
            let found = finder.find_all(text, usize::MAX).unwrap();
            found.iter().map(|s| s.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("[0-9]+", "a12b345"), ["12", "345"]);
        assert_eq!(all("a*", "baaé"), ["", "aa", ""]);
        assert_eq!(all("x", "abc"), Vec::<String>::new());
        assert_eq!(
            Finder::new("a").unwrap().find_all("aaa", 2).unwrap(),
            ["a", "a"]
        );
    }

    #[test]
    fn a_pattern_that_would_need_a_huge_automaton_is_refused() {
        for pattern in [
            "((a{100}){100}){100}",
            r"(\pL{1000}){1000}",
            &"(".repeat(200),
        ] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }

    #[test]
    fn a_pattern_that_would_be_slow_gives_up() {
        let mut text = String::new();
        let mut seed = 1u32;
        while text.len() < 1_000_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(if seed >> 31 == 1 { 'a' } else { 'b' });
        }
        let began = Instant::now();
        for pattern in [r"(a|b)*a(a|b){400}c", r"(a*)*c", r"(x+x+)+y", r"(.*a){25}c"] {
            let pattern = Pattern::new(pattern).unwrap();
            let _ = pattern.is_match(&text, &mut pattern.scratch());
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_text_is_a_panic(pattern in r"[\\\[\](){}^$.|*+?a-d0-3:,&~PQEdwsbpx-]{0,24}", text in ".{0,40}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.is_match(&text, &mut pattern.scratch());
            }
            if let Ok(finder) = Finder::new(&pattern) {
                let _ = finder.find_all(&text, 100);
            }
        }

        #[test]
        fn a_quoted_text_matches_itself(text in "[a-zA-Z0-9.*+?]{1,20}") {
            let pattern = Pattern::new(&format!(r"^\Q{text}\E$")).unwrap();
            prop_assert!(pattern.is_match(&text, &mut pattern.scratch()).unwrap());
        }
    }
}
