//! The harness: packet builder, program runner, namespaces, oracle, simulation, dev cluster.
pub mod packet;
pub mod prog;

pub mod bench;
pub mod netns;
pub mod peer;
