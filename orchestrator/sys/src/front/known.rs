//! A client without a certificate whom a service knows all the same, by a token: it is no stranger any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The place where a service says that it knows the client of a connection. In the extensions of each request.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    /// The connection may last: its watches and streams go on.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
