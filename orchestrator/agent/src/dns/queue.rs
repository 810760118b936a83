//! Queries that wait for their answer, client by client: one that asks without end fills its own queue and
//! waits for its own turn. Pure.
//!
//! The kernel's queue is one for all, so it is emptied first, into these.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Queries of one client.
const PER_CLIENT: usize = 256;
/// Queries of all.
const OF_ALL: usize = 8192;

/// What has come and is not answered yet.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<IpAddr, VecDeque<Query>>,
    /// Whose turn it is; each that has something waiting, once.
    turns: VecDeque<IpAddr>,
    length: usize,
}

/// A datagram and its sender.
pub type Query = (SocketAddr, Box<[u8]>);

impl Queue {
    /// Takes a query in; `false`: there is no room, and it is gone.
    pub fn push(&mut self, client: SocketAddr, bytes: &[u8]) -> bool {
        if self.length >= OF_ALL {
            return false;
        }
        let of_client = self.waiting.entry(client.ip()).or_default();
        if of_client.len() >= PER_CLIENT {
            return false;
        }
        if of_client.is_empty() {
            self.turns.push_back(client.ip());
        }
        of_client.push_back((client, bytes.into()));
        self.length += 1;
        true
    }

    /// The oldest query of the client whose turn it is.
    pub fn pop(&mut self) -> Option<Query> {
        let client = self.turns.pop_front()?;
        let of_client = self.waiting.get_mut(&client)?;
        let query = of_client.pop_front();
        if of_client.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.length -= usize::from(query.is_some());
        query
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> SocketAddr {
        ([10, 100, 1, number], 4000).into()
    }

    #[test]
    fn whoever_asks_without_end_waits_for_its_own_turn() {
        let mut queue = Queue::default();
        let taken = (0..1000).filter(|_| queue.push(client(1), b"loud")).count();
        assert_eq!(taken, PER_CLIENT);
        assert!(queue.push(client(2), b"first") && queue.push(client(2), b"second"));
        assert!(queue.push(client(3), b"third"));
        let order: Vec<Box<[u8]>> = (0..6).map(|_| queue.pop().unwrap().1).collect();
        let expected: [&[u8]; 6] = [b"loud", b"first", b"third", b"loud", b"second", b"loud"];
        assert!(order.iter().map(|it| &**it).eq(expected), "{order:?}");
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), PER_CLIENT - 3);
        assert!(queue.is_empty() && queue.waiting.is_empty() && queue.length == 0);
    }

    #[test]
    fn all_together_have_so_much_room() {
        let mut queue = Queue::default();
        let each = |queue: &mut Queue| (0..=255).filter(|it| queue.push(client(*it), b"x")).count();
        let taken: usize = (0..PER_CLIENT).map(|_| each(&mut queue)).sum();
        assert_eq!(taken, OF_ALL);
    }
}
