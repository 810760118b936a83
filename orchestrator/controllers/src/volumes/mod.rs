//! Claims and volumes: which volume a claim gets, what becomes of it, and what is made for whom. Pure.
//!
//! ```text
//! claim ──▶ matching: an Available volume that fits? ──▶ bind: volume's claimRef, claim's volumeName,
//!   │            │ none                                        status of both
//!   │            ▼
//!   │       class waits for a consumer, and no node is selected? ──▶ the scheduler selects one
//!   │            │ no
//!   │            ▼
//!   │       provision: a local volume, or its external provisioner is named
//!   ▼
//! claim gone ──▶ volume Released ──▶ kept, or deleted with what is on it
//! ```
//!
//! Each write names the revision that its plan saw: two claims cannot get one volume.

mod attach;
mod binder;
mod claim;
mod ephemeral;
mod matching;
mod objects;
mod provision;
#[cfg(test)]
mod tests;
mod volume;

pub use attach::{AttachController, AttachmentRow};
pub use binder::BinderController;
pub use ephemeral::EphemeralController;
