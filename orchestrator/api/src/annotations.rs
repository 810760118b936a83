//! Annotations of this orchestrator's own that more than one part reads.

/// On a Node: the SHA-256 of the public key that its certificates are for, in hex. Written by the
/// API server alone: who holds that key is that node.
pub const NODE_KEY: &str = "orchestrator/key-sha256";

/// On a Pod: `fast` asks that it is replaced within ten seconds when its node dies, and that a node that is cut off
/// kills it before that, so that it never runs twice.
pub const FAILOVER: &str = "orchestrator/failover";
pub const FAILOVER_FAST: &str = "fast";

/// On a Pod: bits a second that it may receive and send (Kubernetes' annotations since 1.3).
pub const INGRESS_BANDWIDTH: &str = "kubernetes.io/ingress-bandwidth";
pub const EGRESS_BANDWIDTH: &str = "kubernetes.io/egress-bandwidth";
/// On a Pod: bytes a second that each of its containers may read from a disk, and write to it.
pub const DISK_BANDWIDTH: &str = "orchestrator.io/disk-bandwidth";
