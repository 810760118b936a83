//! Source → tokens.

use super::ast::{Literal, Problem};

#[derive(Debug)]
pub enum Token {
    Ident(Box<str>),
    /// A name in backticks, for fields only.
    Quoted(Box<str>),
    Literal(Literal),
    /// A word or a sign of the language.
    Sign(&'static str),
    End,
}

/// Longer signs first.
const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "+", "*", "/",
    "%", "?", ":", "!", "<", ">", "=", "`",
];

/// Words that are no names.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The tokens with their places; the last is `End`.
pub fn tokens(source: &str) -> Result<Vec<(Token, u32)>, Problem> {
    let mut lexer = Lexer { source, at: 0 };
    let mut all = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at as u32;
        let token = lexer.token()?;
        let done = matches!(token, Token::End);
        all.push((token, at));
        if done {
            return Ok(all);
        }
    }
}

pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn unknown(&self, length: usize) -> Problem {
        let part = self.rest();
        let part = &part[..part.floor_char_boundary(length)];
        let what = format!("Syntax error: token recognition error at: '{part}'");
        Problem::new(self.at as u32, what)
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if let Some(token) = self.text()? {
            return Ok(token);
        }
        let point = rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || point {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(match word {
                "null" => Token::Literal(Literal::Null),
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "in" => Token::Sign("in"),
                word => Token::Ident(word.into()),
            });
        }
        if first == '`' {
            return self.quoted_name();
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) if *sign != "=" => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            _ => Err(self.unknown(first.len_utf8())),
        }
    }

    fn quoted_name(&mut self) -> Result<Token, Problem> {
        let name = self.rest()[1..].split_once('`').map(|(name, _)| name);
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-/ ".contains(c);
        match name.filter(|name| !name.is_empty() && name.chars().all(fits)) {
            Some(name) => {
                self.at += name.len() + 2;
                Ok(Token::Quoted(name.into()))
            }
            None => Err(self.unknown(1)),
        }
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let (at, start) = (self.at as u32, self.rest());
        let is_hex = start.starts_with("0x") || start.starts_with("0X");
        if is_hex {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
        } else {
            self.take_while(|c| c.is_ascii_digit());
        }
        let mut is_double = false;
        let next = self.rest().strip_prefix('.');
        if !is_hex && next.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            is_double = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        let exponent = self.rest().strip_prefix(['e', 'E']);
        let digits = exponent.map(|rest| rest.strip_prefix(['-', '+']).unwrap_or(rest));
        if let Some(digits) = digits.filter(|_| !is_hex)
            && digits.starts_with(|c: char| c.is_ascii_digit())
        {
            is_double = true;
            self.at += self.rest().len() - digits.len();
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = &self.source[at as usize..self.at];
        let (digits, radix) = match is_hex {
            true => (&text[2..], 16),
            false => (text, 10),
        };
        let unsigned = !is_double && self.rest().starts_with(['u', 'U']);
        let literal = if is_double {
            let double = text.parse().ok().filter(|d: &f64| d.is_finite());
            double.map(Literal::Double).ok_or("invalid double literal")
        } else if unsigned {
            self.at += 1;
            let number = u64::from_str_radix(digits, radix).ok();
            number.map(Literal::Uint).ok_or("invalid uint literal")
        } else {
            // The smallest integer is a minus before one that does not fit.
            let number = u64::from_str_radix(digits, radix).ok();
            let number = number.filter(|n| *n <= i64::MAX as u64 + 1);
            number
                .map(|n| Literal::Int(n as i64))
                .ok_or("invalid int literal")
        };
        literal
            .map(Token::Literal)
            .map_err(|why| Problem::new(at, why))
    }

    /// A text or bytes, if one begins here.
    fn text(&mut self) -> Result<Option<Token>, Problem> {
        let rest = self.rest();
        let prefix = rest.bytes().take(2);
        let prefix = prefix.take_while(|b| b"rRbB".contains(b)).count();
        let (letters, body) = rest.split_at(prefix);
        let has = |letter: &str| letters.to_ascii_lowercase().matches(letter).count();
        let Some(quote) = body.chars().next().filter(|c| "'\"".contains(*c)) else {
            return Ok(None);
        };
        if has("r") > 1 || has("b") > 1 {
            return Ok(None);
        }
        let triple: String = [quote; 3].iter().collect();
        let fence = match body.starts_with(&triple) {
            true => triple,
            false => quote.to_string(),
        };
        let inner = &body[fence.len()..];
        let is_raw = has("r") == 1;
        let Some(end) = end_of_text(inner, &fence, is_raw) else {
            return Err(self.unknown(rest.len().min(40)));
        };
        let content = &inner[..end];
        if fence.len() == 1 && content.contains(['\n', '\r']) {
            return Err(self.unknown(prefix + 1 + end));
        }
        let is_bytes = has("b") == 1;
        let bytes = match is_raw {
            true => Some(content.as_bytes().to_vec()),
            false => unescaped(content, is_bytes),
        };
        let Some(bytes) = bytes else {
            return Err(self.unknown(prefix + 1 + end));
        };
        self.at += prefix + 2 * fence.len() + end;
        let literal = match is_bytes {
            true => Literal::Bytes(bytes.into()),
            false => Literal::String(String::from_utf8_lossy(&bytes).into()),
        };
        Ok(Some(Token::Literal(literal)))
    }
}

fn end_of_text(inner: &str, fence: &str, is_raw: bool) -> Option<usize> {
    let mut at = 0;
    while at < inner.len() {
        let rest = &inner[at..];
        if rest.starts_with(fence) {
            return Some(at);
        }
        let mut chars = rest.chars();
        let first = chars.next()?;
        at += first.len_utf8();
        if first == '\\' && !is_raw {
            at += chars.next()?.len_utf8();
        }
    }
    None
}

/// What a text with escapes stands for; None if an escape is none.
fn unescaped(text: &str, is_bytes: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next()?;
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(escape as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            continue;
        }
        let (digits, radix) = match escape {
            'x' | 'X' => (2, 16),
            'u' if !is_bytes => (4, 16),
            'U' if !is_bytes => (8, 16),
            '0'..='3' => (2, 8),
            _ => return None,
        };
        let mut number = if radix == 8 { escape.to_digit(8)? } else { 0 };
        for _ in 0..digits {
            number = number.checked_mul(radix)? + chars.next()?.to_digit(radix)?;
        }
        if is_bytes {
            out.push(u8::try_from(number).ok()?);
        } else {
            let c = char::from_u32(number)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(out)
}
