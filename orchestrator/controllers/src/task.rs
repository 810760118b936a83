//! One unit of work of one controller. A task never runs twice at a time. Pure.

use super::world::Address;

/// Whose work it is, and what it is about. Ordered as the controllers are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Task {
    /// The controller's place in the table of all.
    pub place: usize,
    /// Its name.
    pub controller: &'static str,
    /// As whom it writes.
    pub account: &'static str,
    pub about: Address,
}
