//! The contract between the datapath and its agent: map layouts, verdicts, addresses. `no_std`.
#![no_std]
