//! A file of tokens, for development: `token,user,uid,"group1,group2"`, a line each.
//!
//! It is read once, at start. What is kept of a token is its digest.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::user::ShownToken;
use super::{Bearer, User, Verdict};

/// More is not read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The tokens of a file.
#[derive(Default)]
pub struct StaticTokens(Vec<([u8; 32], User)>);

/// Why a file of tokens is not used.
#[derive(Debug, thiserror::Error)]
pub enum StaticTokensError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{0}: others than its owner may read or change it: chmod 600, and give it to the user of the server"
    )]
    Open(PathBuf),
    #[error("{path}: larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path}: line {line}: {why}")]
    Line {
        path: PathBuf,
        line: usize,
        why: &'static str,
    },
}

/// Knows whom the file names.
pub fn authenticate(bearer: Bearer<'_>) -> BoxFuture<'_, Verdict> {
    async move {
        let found = bearer.state.authentication.static_tokens.find(bearer.token);
        Ok(found.and_then(|user| bearer.for_any_audience(user)))
    }
    .boxed()
}

impl StaticTokens {
    /// Reads a file that nobody but its owner, who is this process's user or root, can read or change.
    pub fn load(path: &Path) -> Result<Self, StaticTokensError> {
        let failed = |source| StaticTokensError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let own = std::fs::metadata("/proc/self").map_err(failed)?.uid();
        let is_own = metadata.uid() == 0 || metadata.uid() == own;
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 || !is_own {
            return Err(StaticTokensError::Open(path.to_owned()));
        }
        let mut text = String::new();
        let mut limited = file.take(MAX_FILE_BYTES + 1);
        limited.read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(StaticTokensError::TooLarge {
                path: path.to_owned(),
            });
        }
        Self::parse(&text).map_err(|(line, why)| StaticTokensError::Line {
            path: path.to_owned(),
            line,
            why,
        })
    }

    /// A later line with the same token counts.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |why| (number + 1, why);
            if line.trim().is_empty() {
                continue;
            }
            let fields = fields(line).map_err(wrong)?;
            let [token, name, uid, groups @ ..] = &fields[..] else {
                return Err(wrong("a line has a token, a user name and a uid at least"));
            };
            if token.is_empty() || name.is_empty() {
                return Err(wrong("the token or the user name is empty"));
            }
            let groups = groups.first().map_or("", String::as_str).split(',');
            let groups = groups.map(str::trim).filter(|group| !group.is_empty());
            let user = User {
                uid: uid.as_str().into(),
                token: Some(Arc::new(ShownToken::default())),
                ..User::named(name, groups.map(str::to_owned).collect())
            };
            tokens.push((Sha256::digest(token).into(), user));
        }
        Ok(Self(tokens))
    }

    /// Looks at every token, whichever it is.
    fn find(&self, token: &str) -> Option<User> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, user) in &self.0 {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(user.clone());
            }
        }
        found
    }
}

/// The fields of a line of CSV (RFC 4180): a field in quotes may hold commas, and quotes that are doubled.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => match rest.find(',') {
                Some(comma) => (rest[..comma].to_owned(), &rest[comma..]),
                None => (rest.to_owned(), ""),
            },
        };
        fields.push(field.trim().to_owned());
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("text after a closing quote"),
        };
    }
}

fn quoted_field(mut rest: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    loop {
        let quote = rest.find('"').ok_or("a quote is not closed")?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = "abc,ann,u-1,\"dev,ops\"\n\ndef,bob,u-2\n\"g,h\"\"i\",eve,u-3,dev\n";

    #[test]
    fn a_line_names_a_user_with_uid_and_groups() {
        let tokens = StaticTokens::parse(FILE).expect("it reads");
        let ann = tokens.find("abc").expect("ann");
        assert_eq!((&*ann.name, &*ann.uid), ("ann", "u-1"));
        assert_eq!(ann.groups[..], ["dev".to_owned(), "ops".to_owned()]);
        assert!(tokens.find("def").expect("bob").groups.is_empty());
        assert_eq!(&*tokens.find("g,h\"i").expect("eve").name, "eve");
        for unknown in ["", "ab", "abcd", "ann"] {
            assert!(tokens.find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn a_line_that_does_not_read_is_named_without_its_token() {
        for (text, line, what) in [
            ("abc,ann,1\nsecret\n", 2, "a line has a token"),
            (",ann,1", 1, "is empty"),
            ("\"secret,ann,1", 1, "not closed"),
            ("\"secret\"x,ann,1", 1, "after a closing quote"),
        ] {
            let Err((at, why)) = StaticTokens::parse(text) else {
                panic!("{text}");
            };
            assert_eq!(at, line, "{text}");
            assert!(why.contains(what) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.csv");
        std::fs::write(&path, FILE).expect("written");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o622, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            assert_eq!(StaticTokens::load(&path).is_ok(), good, "{mode:o}");
        }
        let absent = StaticTokens::load(&directory.path().join("none"));
        assert!(matches!(absent, Err(StaticTokensError::File { .. })));
        std::fs::write(&path, "x".repeat(2 << 20)).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        let large = StaticTokens::load(&path);
        assert!(matches!(large, Err(StaticTokensError::TooLarge { .. })));
    }
}
