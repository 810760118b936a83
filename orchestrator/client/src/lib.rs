//! What every client of the API server shares: rows of kinds, list-then-watch with revisions,
//! verbs, the event recorder. It owns no state of the cluster and decides nothing.

pub mod correlate;
mod events;
pub mod kind;
pub mod list_watch;
pub mod verbs;

pub use events::{About, Recorder};
pub use kind::Kind;
pub use list_watch::{Bare, Delivery, list_watch};
pub use verbs::{ClientError, PatchKind, Verbs};
