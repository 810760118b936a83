//! Annotations of this orchestrator's own that more than one part reads.

/// On a Node: the SHA-256 of the public key that its certificates are for, in hex. Written by the
/// API server alone: who holds that key is that node.
pub const NODE_KEY: &str = "orchestrator/key-sha256";
