//! The kinds of the group autoscaling.

pub mod scale;
