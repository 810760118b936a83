//! The grammar of selectors in query strings.

use super::{FieldTerm, Operator, Requirement};
use crate::validation::names;

/// Requirements of one selector, and terms: each is looked at for every object of a list.
const MAX_REQUIREMENTS: usize = 1000;

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`
pub fn labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let mut requirements = Vec::new();
    if parser.peek() == &Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        check_number(requirements.len())?;
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => {
                if !matches!(parser.peek(), Token::Word(_) | Token::Not) {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        parser.peek().text()
                    ));
                }
            }
            other => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
    }
}

/// `a=b,c==d,e!=f`; a backslash keeps `,`, `=` and itself in a value.
pub fn fields(text: &str) -> Result<Vec<FieldTerm>, String> {
    let terms = split_terms(text).into_iter();
    let terms: Vec<&str> = terms.filter(|term| !term.is_empty()).collect();
    check_number(terms.len())?;
    terms.into_iter().map(field).collect()
}

fn check_number(requirements: usize) -> Result<(), String> {
    match requirements > MAX_REQUIREMENTS {
        true => Err(format!(
            "the selector has more than {MAX_REQUIREMENTS} requirements"
        )),
        false => Ok(()),
    }
}

fn field(term: &str) -> Result<FieldTerm, String> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        let rest = &term[at..];
        let (equal, length) = match c {
            _ if escaped => {
                escaped = false;
                continue;
            }
            '\\' => {
                escaped = true;
                continue;
            }
            _ if rest.starts_with("!=") => (false, 2),
            _ if rest.starts_with("==") => (true, 2),
            '=' => (true, 1),
            _ => continue,
        };
        let value = unescaped(&rest[length..])?;
        return Ok(FieldTerm {
            field: term[..at].trim().into(),
            equal,
            value,
        });
    }
    Err(format!(
        "invalid selector: '{term}'; can't understand '{term}'"
    ))
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut from, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[from..]);
    terms
}

fn unescaped(value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(format!("invalid escape sequence in value: {value}")),
            },
            ',' | '=' => return Err(format!("unescaped character in value: {value}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    DoubleEqual,
    NotEqual,
    Greater,
    Less,
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::Equal => "=",
            Self::DoubleEqual => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let two = rest.get(..2);
        let (token, length) = match (c, two) {
            (_, Some("==")) => (Token::DoubleEqual, 2),
            (_, Some("!=")) => (Token::NotEqual, 2),
            (',', _) => (Token::Comma, 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            ('!', _) => (Token::Not, 1),
            ('=', _) => (Token::Equal, 1),
            ('>', _) => (Token::Greater, 1),
            ('<', _) => (Token::Less, 1),
            (c, _) if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            _ => {
                let special = |c: char| ",()!=<>".contains(c) || c.is_whitespace();
                let end = rest.find(special).unwrap_or(rest.len());
                (Token::Word(rest[..end].into()), end)
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    /// Ends with `End`.
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == &Token::Not;
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        names::label_key(&key).map_err(|why| format!("{key:?}: {why}"))?;
        let (operator, values) = if absent {
            (Operator::DoesNotExist, Vec::new())
        } else {
            self.operator_and_values()?
        };
        for value in &values {
            names::label_value(value).map_err(|why| format!("values: {value:?}: {why}"))?;
        }
        Requirement::new(&key, operator, values).map_err(|e| e.to_string())
    }

    fn operator_and_values(&mut self) -> Result<(Operator, Vec<String>), String> {
        let operator = match self.peek().clone() {
            Token::End | Token::Comma => return Ok((Operator::Exists, Vec::new())),
            Token::Equal | Token::DoubleEqual => Operator::In,
            Token::NotEqual => Operator::NotIn,
            Token::Greater => Operator::Gt,
            Token::Less => Operator::Lt,
            Token::Word(word) if word == "in" || word == "notin" => {
                self.next();
                let values = self.set()?;
                let operator = if word == "in" {
                    Operator::In
                } else {
                    Operator::NotIn
                };
                return Ok((operator, values));
            }
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        self.next();
        let value = match self.peek().clone() {
            Token::Word(word) => {
                self.next();
                word
            }
            Token::End | Token::Comma => String::new(),
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        Ok((operator, vec![value]))
    }

    /// `(a,b)`; an empty place is the empty value.
    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.next() {
                        Token::Comma if self.peek() == &Token::Close => values.push(String::new()),
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                Token::Comma => values.push(String::new()),
                Token::Close => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', ')' or identifier",
                        other.text()
                    ));
                }
            }
        }
    }
}
