//! What a container has when its pod says nothing, what changes it, and which ports of its node a pod
//! reaches. Data only: `e2e_security/defaults` looks from inside whether it is so.
//!
//! | | ordinary | `allowPrivilegeEscalation: false` | seccomp `Unconfined` | `privileged` |
//! |---|---|---|---|---|
//! | capabilities | [`CAPABILITIES`], plus `add`, less `drop` | the same | the same | all of the Engine's |
//! | no new privileges | no | yes | no | no |
//! | seccomp | the Engine's profile | the Engine's profile | none | none |
//! | [`MASKED_PATHS`] | empty | empty | empty | as on the node |
//! | [`READ_ONLY_PATHS`], `/sys` | read-only | read-only | read-only | writable |
//! | devices | none of the node | none of the node | none of the node | all |
//! | processes | [`PIDS_LIMIT`] | the same | the same | the same |
//! | swap | none beyond the memory limit | the same | the same | the same |

/// What root in a container may do; the Engine's own set. Other users have none of it.
pub const CAPABILITIES: [(&str, u32); 14] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("NET_RAW", 13),
    ("SYS_CHROOT", 18),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// Files of the kernel that a container finds empty, where the kernel has them.
pub const MASKED_PATHS: [&str; 6] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
];

/// What a container can read and not write.
pub const READ_ONLY_PATHS: [&str; 6] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/sys",
];

/// Processes and threads of one container, unless `--pids-limit` says otherwise.
pub const PIDS_LIMIT: u32 = 4096;

/// A port of the node that a pod of an ordinary cluster reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePort {
    pub protocol: &'static str,
    pub port: u16,
    /// Only at the first addresses of the node's pod ranges.
    pub on_gateway: bool,
    pub what: &'static str,
    /// What a pod without credentials gets there.
    pub answer: &'static str,
}

/// The ports on which a node of ours listens in its network namespace. What else listens there (sshd, pods
/// with hostNetwork, health checks of Services) is reachable as well: a firewall of the node is not ours.
pub const NODE_PORTS: [NodePort; 4] = [
    NodePort {
        protocol: "tcp",
        port: 53,
        on_gateway: true,
        what: "the cluster's DNS",
        answer: "answers to the pods of this node and to the node; others are refused",
    },
    NodePort {
        protocol: "udp",
        port: 53,
        on_gateway: true,
        what: "the cluster's DNS",
        answer: "answers to the pods of this node and to the node; others are refused",
    },
    NodePort {
        protocol: "tcp",
        port: 10250,
        on_gateway: false,
        what: "the agent: logs and metrics",
        answer: "no handshake without a certificate of the cluster, 403 with one that is not the API \
                 server's or an administrator's",
    },
    NodePort {
        protocol: "udp",
        port: 4789,
        on_gateway: false,
        what: "the overlay",
        answer: "nothing: a pod's packets to the port of the overlay are dropped at its link",
    },
];
