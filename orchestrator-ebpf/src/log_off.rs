//! `log` without the feature of that name: no statement, no map, no instruction.

use orchestrator_common::event::Hook;
use orchestrator_common::maps::services::Backend;
use orchestrator_common::{DropReason, Trace, Tuple, Verdict};

use crate::packet::Headers;

#[inline(always)]
pub fn packet(_headers: &Headers, _hook: Hook, _trace: &Trace) {}

#[inline(always)]
pub fn frame(_headers: &Headers, _verdict: Verdict, _reason: DropReason) {}

#[inline(always)]
pub fn opened(_headers: &Headers) {}

#[inline(always)]
pub fn connected(_asked: &Tuple, _service: u32, _backend: &Backend) {}

#[inline(always)]
pub fn refused(_asked: &Tuple, _service: u32, _reason: DropReason) {}
