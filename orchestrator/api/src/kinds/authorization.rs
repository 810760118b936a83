//! The kinds of the group authorization.

pub mod self_subject_access_review;
