//! Certificates for those who ask for one by a CertificateSigningRequest.
//!
//! ```text
//! create ─▶ given: who asks ─▶ admission/certificates: may it ask for that?
//!                                     │
//!        pending ─▶ the asker may have its own node's? ─▶ Approved   (or an administrator says so)
//!                                     │
//!        Approved ─▶ does it fit its signer? ─no─▶ Failed
//!                         └─yes─▶ signed ─▶ status.certificate ─▶ deleted after an hour
//! ```
//!
//! `plan` decides, the task in `controller` acts. The authority's key is in this process alone, so the task
//! is here and not among the controllers; it writes through the router, as a user with rights for that.

mod controller;
pub mod given;
mod plan;

pub use controller::start;

/// What approves, signs and deletes requests is called.
pub const CONTROLLER: &str = "system:serviceaccount:kube-system:certificate-controller";
/// The groups of the ServiceAccount.
const GROUPS: [&str; 2] = [
    "system:serviceaccounts",
    "system:serviceaccounts:kube-system",
];

const GROUP: &str = "certificates.k8s.io";
