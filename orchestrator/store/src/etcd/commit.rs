//! One commit as one transaction of etcd. Pure, but for the function at the top.

use bytes::Bytes;

use super::failure::Failure;
use super::keys::Keys;
use super::rpc::{Repeat, TXN};
use super::wire::compare::With;
use super::wire::request_op::Request;
use super::{Inner, wire};
use crate::lead::Fence;
use crate::{Expect, MOST_WRITES, Result, Revision, StoreError, Write, check_shape, holds};

impl Inner {
    /// Writes all or nothing; returns when the store shows it.
    pub(super) async fn commit(
        &self,
        writes: Vec<Write>,
        fence: Option<Fence>,
    ) -> Result<Revision> {
        check(&writes)?;
        if writes.is_empty() {
            return Ok(self.tail.reached());
        }
        if self.tail.is_closed() {
            return Err(StoreError::Closed);
        }
        let before = self.tail.reached();
        let request = transaction(&self.keys, &writes, fence.as_ref());
        let answer: wire::TxnResponse = self
            .rpc
            .ask(TXN, &request, Repeat::Unsent)
            .await
            .map_err(Failure::of_commit)?;
        // Whoever tries again must find what was in the way, too.
        let shown = self.show(answer.header.as_ref(), before).await;
        match answer.succeeded {
            true => shown.map_err(taken),
            false => {
                shown?;
                Err(conflict(&self.keys, &writes, answer, fence.is_some()))
            }
        }
    }

    /// Returns when the store shows what etcd has answered.
    async fn show(&self, header: Option<&wire::Header>, before: Revision) -> Result<Revision> {
        let revision = self.verify(header, before)?;
        self.reach(revision).await?;
        Ok(revision)
    }
}

/// What a writer hears whose commit etcd has taken, and the store does not show: not that nothing was written.
fn taken(error: StoreError) -> StoreError {
    StoreError::Uncertain(format!("etcd has taken it, but {error}").into())
}

fn check(writes: &[Write]) -> Result<()> {
    check_shape(writes)?;
    if let Some(write) = writes.iter().find(|write| !write.key.starts_with('/')) {
        return Err(StoreError::Invalid(format!(
            "{} begins without /",
            write.key
        )));
    }
    if writes.len() > MOST_WRITES {
        return Err(StoreError::TooLarge(format!(
            "{} writes in one commit; etcd takes {MOST_WRITES}",
            writes.len()
        )));
    }
    Ok(())
}

/// All writes if every expectation holds; else what is there of the keys that have one.
fn transaction(keys: &Keys, writes: &[Write], fence: Option<&Fence>) -> wire::TxnRequest {
    let fence = fence.map(|fence| wire::Compare {
        result: EQUAL,
        target: CREATE,
        key: fence.key.clone(),
        with: Some(With::Created(number(fence.created))),
    });
    let expected = writes.iter().filter(|write| write.expect != Expect::Any);
    wire::TxnRequest {
        compare: fence
            .into_iter()
            .chain(writes.iter().filter_map(|write| compare(keys, write)))
            .collect(),
        success: writes.iter().map(|write| operation(keys, write)).collect(),
        failure: expected.map(|write| look(keys, write)).collect(),
    }
}

fn compare(keys: &Keys, write: &Write) -> Option<wire::Compare> {
    let (result, target, with) = match write.expect {
        Expect::Any => return None,
        Expect::Absent => (EQUAL, CREATE, With::Created(0)),
        // 0 is etcd's word for absent; here it is a revision that no key has.
        Expect::At(0) => (GREATER, MODIFIED, With::Modified(i64::MAX)),
        Expect::At(revision) => (EQUAL, MODIFIED, With::Modified(number(revision))),
    };
    Some(wire::Compare {
        result,
        target,
        key: keys.of(&write.key),
        with: Some(with),
    })
}

fn operation(keys: &Keys, write: &Write) -> wire::RequestOp {
    let key = keys.of(&write.key);
    let request = match &write.value {
        Some(value) => Request::Put(wire::PutRequest {
            key,
            value: value.clone(),
            lease: 0,
        }),
        None => Request::Delete(wire::DeleteRangeRequest { key }),
    };
    wire::RequestOp {
        request: Some(request),
    }
}

fn look(keys: &Keys, write: &Write) -> wire::RequestOp {
    wire::RequestOp {
        request: Some(Request::Range(wire::RangeRequest {
            key: keys.of(&write.key),
            ..wire::RangeRequest::default()
        })),
    }
}

/// Writes a control key if it was last written at a revision (0: if it is absent); it ends with an etcd lease
/// (0: never).
pub(super) fn control(
    key: Bytes,
    value: Bytes,
    expected: Option<Revision>,
    lease: i64,
) -> wire::TxnRequest {
    let compare = expected.map(|revision| wire::Compare {
        result: EQUAL,
        target: MODIFIED,
        key: key.clone(),
        with: Some(With::Modified(number(revision))),
    });
    let put = wire::PutRequest { key, value, lease };
    wire::TxnRequest {
        compare: compare.into_iter().collect(),
        success: vec![wire::RequestOp {
            request: Some(Request::Put(put)),
        }],
        failure: Vec::new(),
    }
}

/// The first expectation that did not hold.
fn conflict(keys: &Keys, writes: &[Write], answer: wire::TxnResponse, fenced: bool) -> StoreError {
    let expected = writes.iter().filter(|write| write.expect != Expect::Any);
    for (write, response) in expected.zip(answer.responses) {
        let kvs = response.range.unwrap_or_default().kvs;
        let current = kvs.into_iter().next().and_then(|kv| keys.entry(kv));
        if let Err(conflict) = holds(write, current) {
            return conflict;
        }
    }
    match fenced {
        true => StoreError::Fenced,
        false => StoreError::Unavailable("etcd refused a commit whose expectations hold".into()),
    }
}

/// Revisions of etcd fit; one that does not is none of its.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const CREATE: i32 = 1;
const MODIFIED: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/p")
    }

    #[test]
    fn a_commit_is_one_transaction_with_its_expectations() {
        let writes = [
            Write::put("/a", "1", Expect::Absent),
            Write::put("/b", "2", Expect::Any),
            Write::delete("/c", Expect::At(7)),
        ];
        let fence = Fence {
            key: "/p/control/leader".into(),
            created: 3,
        };
        let request = transaction(&keys(), &writes, Some(&fence));
        let compared = request.compare.iter().map(|it| (&it.key[..], it.with));
        assert_eq!(
            compared.collect::<Vec<_>>(),
            [
                (&b"/p/control/leader"[..], Some(With::Created(3))),
                (&b"/p/data/a"[..], Some(With::Created(0))),
                (&b"/p/data/c"[..], Some(With::Modified(7))),
            ]
        );
        assert_eq!((request.success.len(), request.failure.len()), (3, 2));
    }

    #[test]
    fn a_revision_that_no_key_has_is_never_found() {
        let writes = [Write::put("/a", "1", Expect::At(0))];
        let request = transaction(&keys(), &writes, None);
        assert_eq!(request.compare[0].result, GREATER);
    }

    #[test]
    fn a_commit_above_the_limit_of_operations_is_refused() {
        let write = |n: usize| Write::put(format!("/{n}"), "", Expect::Any);
        let writes = |count| (0..count).map(write).collect::<Vec<_>>();
        assert!(check(&writes(MOST_WRITES)).is_ok());
        let refused = check(&writes(MOST_WRITES + 1));
        assert!(matches!(refused, Err(StoreError::TooLarge(_))));
    }
}
