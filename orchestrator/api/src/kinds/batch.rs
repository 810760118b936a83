//! The kinds of the group batch.

pub mod cron_job;
pub mod job;
mod job_spec;
mod policies;
pub mod schedule;
