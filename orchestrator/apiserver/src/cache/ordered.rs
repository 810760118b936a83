//! The objects of a kind in key order. A clone is a snapshot: it takes no time, and shares every
//! piece that no later change touches. Pure.
//!
//! A list of pieces is enough: with 150,000 objects, finding a key is two binary searches, and
//! counting up to a key adds up some thousand lengths.

use std::ops::Range;
use std::sync::Arc;

use super::Cached;

/// A piece is split above this many objects.
const PIECE: usize = 256;
/// Neighbours that have no more than this together become one piece.
const MERGED: usize = PIECE / 2;

type Piece = Vec<Arc<Cached>>;

/// Objects by their keys. No piece is empty, and keys only grow from piece to piece.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    pieces: Arc<Vec<Arc<Piece>>>,
    len: usize,
}

impl Ordered {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Cached>> {
        let piece = self.pieces.get(self.piece_of(key))?;
        let at = place(piece, key).ok()?;
        piece.get(at)
    }

    /// Puts the object at its key; answers what was there.
    pub fn insert(&mut self, object: Arc<Cached>) -> Option<Arc<Cached>> {
        let index = self.piece_of(&object.key);
        let pieces = Arc::make_mut(&mut self.pieces);
        if pieces.is_empty() {
            pieces.push(Arc::new(vec![object]));
            self.len = 1;
            return None;
        }
        let is_last = index + 1 == pieces.len();
        let piece = Arc::make_mut(&mut pieces[index]);
        match place(piece, &object.key) {
            Ok(at) => return Some(std::mem::replace(&mut piece[at], object)),
            // Keys that come in order leave full pieces behind.
            Err(at) if is_last && at == PIECE => {
                let mut new = Vec::with_capacity(PIECE);
                new.push(object);
                pieces.push(Arc::new(new));
            }
            Err(at) => {
                piece.insert(at, object);
                if piece.len() > PIECE {
                    let upper = piece.split_off(PIECE / 2);
                    pieces.insert(index + 1, Arc::new(upper));
                }
            }
        }
        self.len += 1;
        None
    }

    pub fn remove(&mut self, key: &str) -> Option<Arc<Cached>> {
        let index = self.piece_of(key);
        let at = place(self.pieces.get(index)?, key).ok()?;
        let pieces = Arc::make_mut(&mut self.pieces);
        let piece = Arc::make_mut(&mut pieces[index]);
        let removed = piece.remove(at);
        self.len -= 1;
        if piece.is_empty() {
            pieces.remove(index);
        } else {
            let first = index.saturating_sub(1);
            let fit = |pair: &[Arc<Piece>]| pair.iter().map(|it| it.len()).sum::<usize>() <= MERGED;
            if pieces.get(first..first + 2).is_some_and(fit) {
                let upper = pieces.remove(first + 1);
                Arc::make_mut(&mut pieces[first]).extend(upper.iter().cloned());
            }
        }
        Some(removed)
    }

    /// How many keys lie before this one: the place of the key, if it is there.
    pub fn rank(&self, key: &str) -> usize {
        let index = self.piece_of(key);
        let before = self.pieces.iter().take(index).map(|piece| piece.len());
        let within = self.pieces.get(index).map_or(0, |piece| {
            place(piece, key).unwrap_or_else(std::convert::identity)
        });
        before.sum::<usize>() + within
    }

    /// The places of the keys that begin with `prefix`, which ends with a slash.
    pub fn span(&self, prefix: &str) -> Range<usize> {
        // What follows the slash in the order of bytes ends what begins with it.
        let end = prefix.strip_suffix('/').map(|rest| format!("{rest}0"));
        self.rank(prefix)..end.map_or(self.len, |end| self.rank(&end))
    }

    /// The objects at these places.
    pub fn slice(&self, places: Range<usize>) -> impl Iterator<Item = &Arc<Cached>> {
        let mut index = 0;
        let mut skipped = 0;
        while let Some(piece) = self.pieces.get(index)
            && skipped + piece.len() <= places.start
        {
            skipped += piece.len();
            index += 1;
        }
        let pieces = self.pieces.get(index..).unwrap_or_default().iter();
        let objects = pieces.flat_map(|piece| piece.iter());
        objects
            .skip(places.start.saturating_sub(skipped))
            .take(places.len())
    }

    /// The piece that has the key, or would get it.
    fn piece_of(&self, key: &str) -> usize {
        let begins_behind = |piece: &Arc<Piece>| piece.first().is_none_or(|it| *it.key <= *key);
        self.pieces.partition_point(begins_behind).saturating_sub(1)
    }
}

fn place(piece: &Piece, key: &str) -> Result<usize, usize> {
    piece.binary_search_by(|object| (*object.key).cmp(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn object(key: &str, revision: u64) -> Arc<Cached> {
        let pods = api::find("", "v1", "pods").expect("pods are served");
        Arc::new(Cached::of(pods, key.into(), b"{}", revision))
    }

    fn keys(ordered: &Ordered, places: Range<usize>) -> Vec<(String, u64)> {
        let objects = ordered.slice(places);
        objects
            .map(|object| (object.key.to_string(), object.revision))
            .collect()
    }

    /// Small, and the same each time.
    fn random(state: &mut u64) -> usize {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(*state >> 33).expect("31 bits")
    }

    #[test]
    fn it_is_the_same_map_as_a_tree_whatever_comes_and_goes() {
        let mut state = 7;
        let (mut ordered, mut model) = (Ordered::default(), BTreeMap::new());
        let (mut old, mut old_model) = (Ordered::default(), BTreeMap::new());
        for step in 0..30_000_u64 {
            // First it grows, then it shrinks.
            let grows = step < 15_000;
            let key = format!("/r/{}/{}", random(&mut state) % 7, random(&mut state) % 900);
            if (random(&mut state) % 4 == 0) == grows {
                let removed = ordered.remove(&key).map(|it| it.revision);
                assert_eq!(removed, model.remove(&key));
            } else if grows || random(&mut state) % 8 == 0 {
                let replaced = ordered.insert(object(&key, step)).map(|it| it.revision);
                assert_eq!(replaced, model.insert(key.clone(), step));
            }
            assert_eq!(
                ordered.get(&key).map(|it| it.revision),
                model.get(&key).copied()
            );
            assert_eq!(ordered.rank(&key), model.range(..key.clone()).count());
            if step == 9_000 {
                (old, old_model) = (ordered.clone(), model.clone());
            }
        }
        for (ordered, model) in [(old, old_model), (ordered, model)] {
            assert_eq!(ordered.len(), model.len());
            assert_eq!(
                keys(&ordered, 0..ordered.len()),
                Vec::from_iter(model.clone())
            );
            for namespace in ["/r/0/", "/r/3/", "/r/6/", "/r/9/"] {
                let within = model.iter().filter(|(key, _)| key.starts_with(namespace));
                let within: Vec<_> = within.map(|(key, at)| (key.clone(), *at)).collect();
                assert_eq!(keys(&ordered, ordered.span(namespace)), within);
            }
            assert!(ordered.pieces.iter().all(|piece| !piece.is_empty()));
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_their_pieces() {
        let mut ordered = Ordered::default();
        for number in 0..10 * PIECE {
            ordered.insert(object(&format!("/r/{number:06}"), 1));
        }
        assert_eq!(ordered.pieces.len(), 10);
    }

    #[test]
    fn a_change_after_a_snapshot_copies_one_piece() {
        let mut ordered = Ordered::default();
        for number in 0..10 * PIECE {
            ordered.insert(object(&format!("/r/{number:06}"), 1));
        }
        let snapshot = ordered.clone();
        ordered.insert(object("/r/000003", 2));
        ordered.remove("/r/000009");
        let pairs = ordered.pieces.iter().zip(snapshot.pieces.iter());
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        assert_eq!(snapshot.get("/r/000003").map(|it| it.revision), Some(1));
        assert_eq!(
            (snapshot.len(), ordered.len()),
            (10 * PIECE, 10 * PIECE - 1)
        );
    }
}
