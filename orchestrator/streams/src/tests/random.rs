//! Both sides of SPDY against each other, in random order and in pieces of any size: what one side has written
//! is what the other reads, byte for byte.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::session::{Session, Wire};
use crate::spdy::{Role, Spdy};
use crate::table::Table;

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Write {
        stream: usize,
        side: usize,
        length: usize,
    },
    Finish {
        stream: usize,
        side: usize,
    },
    Read {
        stream: usize,
        side: usize,
        length: usize,
    },
    Deliver {
        from: usize,
        length: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (stream, side) = (0..8usize, 0..2usize);
    let length = prop_oneof![0..64usize, 0..300_000usize];
    prop_oneof![
        1 => Just(Step::Open),
        6 => (stream.clone(), side.clone(), length.clone())
            .prop_map(|(stream, side, length)| Step::Write { stream, side, length }),
        1 => (stream.clone(), side.clone())
            .prop_map(|(stream, side)| Step::Finish { stream, side }),
        4 => (stream, side.clone(), length.clone())
            .prop_map(|(stream, side, length)| Step::Read { stream, side, length }),
        6 => (side, length).prop_map(|(from, length)| Step::Deliver { from, length }),
    ]
}

/// What each side has written to and read from a stream.
#[derive(Default)]
struct Model {
    id: u32,
    accepted: bool,
    written: [Vec<u8>; 2],
    read: [Vec<u8>; 2],
    finished: [bool; 2],
    ended: [bool; 2],
}

/// Client and server, and the bytes on their way from each.
struct World {
    sides: [Session; 2],
    flying: [VecDeque<u8>; 2],
    streams: Vec<Model>,
    next: u8,
}

impl World {
    fn new() -> Self {
        let side = |role| {
            let wire = Wire::Spdy(Box::new(Spdy::new(role)));
            Session::new(wire, Table::default(), false, Instant::now())
        };
        Self {
            sides: [side(Role::Client), side(Role::Server)],
            flying: Default::default(),
            streams: Vec::new(),
            next: 0,
        }
    }

    fn take(&mut self, step: Step) {
        let context = Context::from_waker(Waker::noop());
        match step {
            Step::Open => {
                let id = self.sides[0]
                    .open(&[("streamtype", "data"), ("port", "80")])
                    .unwrap();
                self.streams.push(Model {
                    id,
                    ..Model::default()
                });
            }
            Step::Write {
                stream,
                side,
                length,
            } => {
                let Some(model) = usable(&mut self.streams, stream, side) else {
                    return;
                };
                let bytes: Vec<u8> = (0..length)
                    .map(|at| (at as u8).wrapping_add(self.next))
                    .collect();
                self.next = self.next.wrapping_add(1);
                let table = &mut self.sides[side].table;
                match table.poll_write(model.id, &context, &bytes) {
                    Poll::Ready(Ok(written)) => {
                        model.written[side].extend_from_slice(&bytes[..written])
                    }
                    Poll::Ready(Err(_)) => assert!(model.finished[side]),
                    Poll::Pending => {}
                }
            }
            Step::Finish { stream, side } => {
                let Some(model) = usable(&mut self.streams, stream, side) else {
                    return;
                };
                self.sides[side].table.finish_sending(model.id, &[]);
                model.finished[side] = true;
            }
            Step::Read {
                stream,
                side,
                length,
            } => {
                self.read(stream, side, length);
            }
            Step::Deliver { from, length } => {
                self.deliver(from, length);
            }
        }
    }

    /// Whether anything was read.
    fn read(&mut self, stream: usize, side: usize, length: usize) -> bool {
        let Some(model) = usable(&mut self.streams, stream, side) else {
            return false;
        };
        let mut space = vec![0; length.max(1)];
        let mut into = ReadBuf::new(&mut space);
        let context = Context::from_waker(Waker::noop());
        match self.sides[side]
            .table
            .poll_read(model.id, &context, &mut into)
        {
            Poll::Ready(result) => {
                result.unwrap();
                model.read[side].extend_from_slice(into.filled());
                model.ended[side] |= into.filled().is_empty();
                !into.filled().is_empty()
            }
            Poll::Pending => false,
        }
    }

    /// Whether anything was delivered.
    fn deliver(&mut self, from: usize, length: usize) -> bool {
        while let Some(out) = self.sides[from].poll_output() {
            self.flying[from].extend(out);
        }
        let to = &mut self.sides[1 - from];
        if !to.wants_input() {
            return false;
        }
        let length = length.min(self.flying[from].len());
        let bytes: Vec<u8> = self.flying[from].drain(..length).collect();
        to.handle_input(&bytes, Instant::now());
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(accepted) = self.sides[1].table.poll_accept(&context) {
            let (id, headers) = accepted.unwrap();
            assert_eq!(headers["port"], "80");
            self.streams
                .iter_mut()
                .find(|model| model.id == id)
                .unwrap()
                .accepted = true;
        }
        length > 0
    }

    /// Everything arrives.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in 0..2 {
                moved |= self.deliver(side, 100_000);
                for stream in 0..self.streams.len() {
                    moved |= self.read(stream, side, 100_000);
                }
            }
            if !moved {
                return;
            }
        }
    }
}

/// A stream that this side knows.
fn usable(streams: &mut [Model], stream: usize, side: usize) -> Option<&mut Model> {
    let count = streams.len().max(1);
    streams
        .get_mut(stream % count)
        .filter(|model| side == 0 || model.accepted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_read_in_any_order_and_any_pieces(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new();
        world.take(Step::Open);
        for step in steps {
            world.take(step);
        }
        world.settle();
        for model in &world.streams {
            prop_assert!(model.accepted);
            for side in 0..2 {
                prop_assert!(model.written[side] == model.read[1 - side]);
                prop_assert_eq!(model.finished[side], model.ended[1 - side]);
            }
        }
    }
}
