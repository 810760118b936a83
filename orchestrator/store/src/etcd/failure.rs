//! Why etcd did not do what it was asked, and what that is to whoever uses the store.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

use crate::{Revision, StoreError};

/// How one request to etcd failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It did not reach etcd, or etcd did not begin with it: nothing has changed.
    #[error("{0}")]
    Unsent(String),
    /// Whether it was done shows only by looking.
    #[error("{0}")]
    Lost(String),
    /// etcd refused it.
    #[error("{0}")]
    Refused(String),
    /// The token of the user is not, or not any more, good.
    #[error("{0}")]
    Unauthenticated(String),
}

/// What etcd 3.4 says before it has begun with a request.
const NOT_BEGUN: &[&str] = &[
    "etcdserver: no leader",
    "etcdserver: too many requests",
    // A member that has just joined answers nothing yet.
    "etcdserver: rpc not supported for learner",
    // Members change only when all have been connected for five seconds.
    "etcdserver: unhealthy cluster",
];

/// What it says to a user who has to authenticate first, or again.
const WITHOUT_TOKEN: &[&str] = &["user name is empty", "auth: revision in header is old"];

impl Failure {
    pub fn of(member: &str, status: &Status) -> Self {
        let mut source = status.source();
        while let Some(error) = source {
            if error.is::<ConnectError>() {
                let why = innermost(error);
                return Self::Unsent(format!("{member} cannot be reached: {why}"));
            }
            source = error.source();
        }
        let message = status.message();
        let said = format!("{member}: {message}");
        match status.code() {
            _ if NOT_BEGUN.contains(&message) => Self::Unsent(said),
            Code::Unauthenticated => Self::Unauthenticated(said),
            Code::InvalidArgument if WITHOUT_TOKEN.iter().any(|it| message.contains(it)) => {
                Self::Unauthenticated(said)
            }
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::ResourceExhausted => Self::Refused(said),
            _ => Self::Lost(said),
        }
    }

    /// What a reader hears. `oldest` is the oldest revision that is known to be held.
    pub fn of_read(self, oldest: Revision, current: Revision) -> StoreError {
        let text = self.to_string();
        match self {
            Self::Refused(_) if text.contains("has been compacted") => {
                StoreError::Compacted { oldest }
            }
            Self::Refused(_) if text.contains("is a future revision") => {
                StoreError::Future { current }
            }
            _ => StoreError::Unavailable(text.into()),
        }
    }

    /// What a writer hears.
    pub fn of_commit(self) -> StoreError {
        let text = self.to_string();
        let has = |part: &str| text.contains(part);
        match self {
            Self::Refused(_) if has("database space exceeded") => StoreError::Full(text.into()),
            Self::Refused(_)
                if has("too large") || has("too many operations") || has("larger than max") =>
            {
                StoreError::TooLarge(text)
            }
            Self::Lost(_) => StoreError::Uncertain(text.into()),
            _ => StoreError::Unavailable(text.into()),
        }
    }
}

/// The reason beneath the layers, which say "transport error" and the like.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_learns_whether_its_write_may_have_happened() {
        let heard = |code, text: &str| Failure::of("a:1", &Status::new(code, text)).of_commit();
        use StoreError::{Full, TooLarge, Unavailable, Uncertain};
        let lost = heard(Code::Unavailable, "etcdserver: request timed out");
        assert!(matches!(lost, Uncertain(_)), "{lost}");
        let unsent = heard(Code::Unavailable, "etcdserver: no leader");
        assert!(matches!(unsent, Unavailable(_)), "{unsent}");
        let full = heard(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        assert!(matches!(full, Full(_)), "{full}");
        let large = heard(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(large, TooLarge(_)), "{large}");
        let many = heard(
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        );
        assert!(matches!(many, TooLarge(_)), "{many}");
    }

    #[test]
    fn a_reader_learns_of_the_window_of_revisions() {
        let heard =
            |text: &str| Failure::of("a:1", &Status::new(Code::OutOfRange, text)).of_read(7, 9);
        let gone = heard("etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(gone, StoreError::Compacted { oldest: 7 }));
        let ahead = heard("etcdserver: mvcc: required revision is a future revision");
        assert!(matches!(ahead, StoreError::Future { current: 9 }));
    }
}
