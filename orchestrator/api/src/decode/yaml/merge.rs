//! Maps, with what their keys `<<` merge into them (<https://yaml.org/type/merge.html>), as the reader of
//! Kubernetes does it (sigs.k8s.io/yaml, goyaml.v2): keys count in the order in which they stand, so that one
//! behind a merge replaces what was merged, and a merge replaces what stands before it; of several maps the
//! first counts. What is replaced is a duplicate, which strict validation refuses.

use k8s_openapi::serde::de::{DeserializeSeed, Error as _, MapAccess, value::Error};

use super::super::limits::{self, MAX_DEPTH};
use super::{Reader, Type, What};

/// Maps that one document merges, each as often as it is merged. Empty ones cost nothing else.
const MAX_MERGES: usize = 10_000;

/// The entries of one map.
pub(super) struct Mapping<'r, 'e> {
    reader: &'r mut Reader<'e>,
    /// Maps that are being merged, each into the one before.
    merging: Vec<Merging>,
}

struct Merging {
    /// Where maps begin that are merged after this one.
    more: Vec<usize>,
    /// Where the outer map goes on.
    back: usize,
}

impl<'r, 'e> Mapping<'r, 'e> {
    /// The reader stands behind the map's beginning.
    pub fn new(reader: &'r mut Reader<'e>) -> Self {
        Self {
            reader,
            merging: Vec::new(),
        }
    }

    /// The reader stands at the value of a key `<<`.
    fn merge(&mut self) -> Result<(), Error> {
        let wrong = || Error::custom("map merge requires map or sequence of maps as the value");
        let value = self.reader.next;
        let mut maps = Vec::new();
        let back = match self.reader.peek() {
            Some(What::List) => {
                let mut next = value + 1;
                while !matches!(self.reader.what(next), None | Some(What::End)) {
                    maps.push(self.reader.map_at(next).ok_or_else(wrong)?);
                    next = self.reader.behind(next);
                }
                next + 1
            }
            _ => {
                maps.push(self.reader.map_at(value).ok_or_else(wrong)?);
                self.reader.behind(value)
            }
        };
        self.reader.merged += maps.len();
        if self.reader.merged > MAX_MERGES {
            let why = format!("more than {MAX_MERGES} maps are merged into others");
            return Err(Error::custom(why));
        }
        // An anchor inside its own node never ends.
        if self.merging.len() >= MAX_DEPTH {
            return Err(Error::custom(limits::too_deep()));
        }
        self.merging.push(Merging { more: maps, back });
        self.go_on();
        Ok(())
    }

    /// The reader goes into the next map that is merged, or back to the one that all were merged into.
    fn go_on(&mut self) {
        let Some(merging) = self.merging.last_mut() else {
            return;
        };
        match merging.more.pop() {
            Some(map) => self.reader.next = map + 1,
            None => {
                self.reader.next = merging.back;
                self.merging.pop();
            }
        }
    }
}

impl<'de> MapAccess<'de> for Mapping<'_, '_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        loop {
            if self.reader.ends() {
                if self.merging.is_empty() {
                    return Ok(None);
                }
                self.go_on();
            } else if self.reader.is_merge() {
                self.reader.next += 1;
                self.merge()?;
            } else {
                return seed.deserialize(&mut *self.reader).map(Some);
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'e> Reader<'e> {
    fn what(&self, at: usize) -> Option<&'e What<'e>> {
        self.document.events.get(at).map(|event| &event.what)
    }

    fn is_merge(&self) -> bool {
        matches!(self.peek(), Some(What::Scalar(text, Type::Plain)) if text == "<<")
    }

    /// Where the map begins that stands there, or that an alias there names.
    fn map_at(&self, at: usize) -> Option<usize> {
        let at = match self.what(at)? {
            What::Alias(anchor) => *self.document.anchors.get(anchor)?,
            _ => at,
        };
        matches!(self.what(at)?, What::Map).then_some(at)
    }

    /// What follows the node.
    fn behind(&self, mut at: usize) -> usize {
        let mut depth = 0_usize;
        while let Some(what) = self.what(at) {
            at += 1;
            match what {
                What::List | What::Map => depth += 1,
                What::End => depth = depth.saturating_sub(1),
                What::Scalar(..) | What::Alias(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
        at
    }
}
