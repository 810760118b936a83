//! The kinds of the group certificates.k8s.io.

pub mod certificate_signing_request;
mod pem;
pub mod request;
pub mod signers;
