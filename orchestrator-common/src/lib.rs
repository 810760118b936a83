//! The contract between the datapath and its agent: addresses, tuples, verdicts, events and the
//! layout of every map.
//!
//! `no_std`, no allocation, no I/O. Both sides compile these very types, so nothing here may depend
//! on who compiles it: every row is `repr(C)` without implicit padding (checked at compile time by
//! [`layout!`]), and no field is a `bool`, an
//! `Option` or an `enum`. A change of a row's layout is a new version in its map's name.
#![no_std]

mod layout;

pub mod addr;
pub mod csum;
pub mod event;
pub mod maglev;
pub mod maps;
pub mod tuple;
pub mod verdict;

pub use addr::{Addr, Mac, Port, Prefix, Proto};
pub use event::DropEvent;
pub use maps::{MAPS, MapKind, MapSpec, Owner};
pub use tuple::{Scope, Tuple};
pub use verdict::{DropReason, Rule, Trace, Verdict};
