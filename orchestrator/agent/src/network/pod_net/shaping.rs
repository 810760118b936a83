//! How fast a pod may send and receive: what its annotations say, and the queues that hold it to that.
//!
//! ```text
//!  to a limited pod:   datapath ─▶ redirect to the host's end of its veth ─▶ TBF there ─▶ eth0
//!  to any other pod:   datapath ─▶ peer redirect, past the queue
//!  from a limited pod: socket ─▶ TBF at eth0 ─▶ veth ─▶ datapath
//! ```
//!
//! Both queues shape: what is too fast waits, and senders slow down. A pod without annotations has no queue and
//! pays nothing. A token bucket (tc-tbf(8)) and no EDT: Debian's and this machine's kernels need no fq for it.
//!
//! INVARIANT: no container of a pod with an egress rate can pass the queue at its own end. NET_ADMIN could take it
//! away, and a packet socket (NET_RAW) can send past it (`PACKET_QDISC_BYPASS`, packet(7)): a pod that asks for
//! either is refused, and the Engine's default of NET_RAW is dropped (`container_spec`).

use k8s_openapi::api::core::v1::Pod;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use serde_json::Value;

use futures::StreamExt as _;

use super::NetError;
use crate::pod::refuse::Refusal;
use api::annotations::{DISK_BANDWIDTH, EGRESS_BANDWIDTH as EGRESS, INGRESS_BANDWIDTH as INGRESS};
use api::quantity::Quantity;

/// Which rates are taken, in bits a second: Kubernetes' own bounds.
const LEAST_BITS: i64 = 1_000;
const MOST_BITS: i64 = 1_000_000_000_000_000;

/// What a pod may carry, in bits a second; None: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub ingress: Option<u64>,
    pub egress: Option<u64>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Bytes a second of frames.
    rate: u64,
    /// Bytes that may go at once.
    burst: u32,
    /// Bytes that may wait.
    limit: u32,
}

impl Bandwidth {
    /// What a pod's annotations say. The error says which one does not read.
    pub fn of(pod: &Pod) -> Result<Self, String> {
        let spec = pod.spec.as_ref();
        if spec.and_then(|spec| spec.host_network) == Some(true) {
            // It has no link of its own: as with CNI's plugin nothing is shaped.
            return Ok(Self::default());
        }
        let annotations = pod.metadata.annotations.as_ref();
        let read = |key: &str| {
            let text = annotations.and_then(|all| all.get(key));
            text.map(|text| bits(key, text)).transpose()
        };
        Ok(Self {
            ingress: read(INGRESS)?,
            egress: read(EGRESS)?,
        })
    }

    /// Why a pod is not run whose annotations do not read, or which could pass its own queue.
    pub fn refusal(pod: &Pod) -> Option<Refusal> {
        let disk = || {
            let text = pod.metadata.annotations.as_ref()?.get(DISK_BANDWIDTH)?;
            let bytes = Quantity::parse(text).map(Quantity::units);
            let is_good = bytes.is_ok_and(|bytes| bytes > 0);
            (!is_good).then(|| format!("{DISK_BANDWIDTH}: {text:?} is no number of bytes a second"))
        };
        let own = Self::of(pod);
        let egress = own.as_ref().is_ok_and(|own| own.egress.is_some());
        let passing = || passing(pod).filter(|_| egress);
        let message = own.err().or_else(disk).or_else(passing)?;
        Some(Refusal {
            reason: "InvalidBandwidth",
            message,
        })
    }
}

/// The field by which a container of the pod could pass its own queue.
fn passing(pod: &Pod) -> Option<String> {
    const PASSING: [&str; 3] = ["ALL", "NET_ADMIN", "NET_RAW"];
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    let lists = ["containers", "initContainers"].map(|list| (list, spec[list].as_array()));
    let lists = lists.into_iter();
    let all = lists.flat_map(|(list, all)| {
        { all.into_iter().flatten().enumerate() }.map(move |it| (list, it))
    });
    { all }.find_map(|(list, (index, container))| {
        let context = &container["securityContext"];
        let mut added = context["capabilities"]["add"]
            .as_array()
            .into_iter()
            .flatten();
        let passes = |name: &Value| {
            let name = name.as_str().unwrap_or_default().to_ascii_uppercase();
            PASSING.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
        };
        let field = match context["privileged"] == true {
            true => "privileged",
            false if added.any(passes) => "capabilities.add",
            false => return None,
        };
        Some(format!(
            "spec.{list}[{index}].securityContext.{field}: the container could send past the \
             queue that {EGRESS} asks for"
        ))
    })
}

fn bits(key: &str, text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).map_err(|error| format!("{key}: {text:?}: {error}"))?;
    let bits = quantity.units();
    if bits < LEAST_BITS {
        return Err(format!(
            "{key}: resource is unreasonably small (< 1kbit): {text:?}"
        ));
    }
    if bits > MOST_BITS {
        return Err(format!(
            "{key}: resource is unreasonably large (> 1Pbit): {text:?}"
        ));
    }
    u64::try_from(bits).map_err(|error| format!("{key}: {error}"))
}

impl Bucket {
    /// The rate is what applications see within a few percent: a fiftieth more covers the frames' own headers. What
    /// may go at once is 50 ms of it, so that ten seconds are never more than they should be; what may wait is 100 ms.
    fn of(bits: u64) -> Self {
        const LEAST_BURST: u64 = 8 * 1024;
        const MOST_BURST: u64 = 8 * 1024 * 1024;
        const LEAST_LIMIT: u64 = 96 * 1024;
        const MOST_LIMIT: u64 = 256 * 1024 * 1024;
        let rate = (bits / 8).saturating_add(bits / 400).max(1);
        let burst = (rate / 20).clamp(LEAST_BURST, MOST_BURST);
        let limit = (rate / 10 + burst).clamp(LEAST_LIMIT, MOST_LIMIT);
        let word = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            rate,
            burst: word(burst),
            limit: word(limit),
        }
    }

    /// `TCA_OPTIONS` of the queue (linux/pkt_sched.h): the parameters, the rate in full, the burst in bytes.
    fn options(self) -> Vec<TcOption> {
        const PARMS: u16 = 1;
        const RATE64: u16 = 4;
        const BURST: u16 = 6;
        const ETHERNET: u8 = 1;
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
        let mut spec = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
        spec.extend(rate.to_ne_bytes());
        // struct tc_tbf_qopt: rate, peakrate, limit, buffer, mtu.
        let mut parms = spec;
        parms.extend([0; 12]);
        parms.extend(self.limit.to_ne_bytes());
        parms.extend([0; 8]);
        [
            (PARMS, parms),
            (RATE64, self.rate.to_ne_bytes().to_vec()),
            (BURST, self.burst.to_ne_bytes().to_vec()),
        ]
        .into_iter()
        .map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)))
        .collect()
    }
}

/// Gives what leaves by a link this rate; None takes the queue away.
pub async fn shape(handle: &Handle, ifindex: u32, bits: Option<u64>) -> Result<(), NetError> {
    let Ok(index) = i32::try_from(ifindex) else {
        return Err(NetError::Unexpected(format!(
            "no link has the number {ifindex}"
        )));
    };
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle::ROOT;
    let (payload, flags) = match bits {
        Some(bits) => {
            message.header.handle = TcHandle { major: 1, minor: 0 };
            message.attributes = vec![
                TcAttribute::Kind("tbf".to_owned()),
                TcAttribute::Options(Bucket::of(bits).options()),
            ];
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            (RouteNetlinkMessage::NewQueueDiscipline(message), flags)
        }
        None => (RouteNetlinkMessage::DelQueueDiscipline(message), 0),
    };
    let mut request = NetlinkMessage::from(payload);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let failed = super::failed("shape a pod's link");
    let mut answers = match handle.clone().request(request) {
        Ok(answers) => answers,
        Err(error) => return Err(failed(error)),
    };
    while let Some(answer) = answers.next().await {
        let NetlinkPayload::Error(error) = answer.payload else {
            continue;
        };
        // No queue is there to be taken away.
        let is_absent = matches!(-error.raw_code(), libc::ENOENT | libc::EINVAL);
        if error.code.is_some() && !(bits.is_none() && is_absent) {
            return Err(failed(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(annotations: serde_json::Value, host_network: bool) -> Result<Bandwidth, String> {
        let pod = json!({"metadata": {"annotations": annotations},
            "spec": {"containers": [], "hostNetwork": host_network}});
        Bandwidth::of(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_pods_annotations_say_its_rates() {
        let both = json!({INGRESS: "10M", EGRESS: "1500k"});
        let read = of(both.clone(), false).expect("rates");
        assert_eq!(
            (read.ingress, read.egress),
            (Some(10_000_000), Some(1_500_000))
        );
        assert_eq!(of(json!({}), false), Ok(Bandwidth::default()));
        assert_eq!(
            of(both, true),
            Ok(Bandwidth::default()),
            "it has no link of its own"
        );
        for (text, why) in [
            ("999", "small"),
            ("2P", "large"),
            ("-1M", "small"),
            ("fast", "fast"),
        ] {
            let wrong = of(json!({EGRESS: text}), false).expect_err("it is wrong");
            assert!(wrong.contains(why), "{wrong}");
        }
    }

    #[test]
    fn a_pod_that_could_pass_its_own_queue_is_refused_with_the_field() {
        let refused = |annotation: &str, context: Value| {
            let pod = json!({"metadata": {"annotations": {annotation: "10M"}}, "spec": {
                "containers": [{"name": "a"}, {"name": "b", "securityContext": context}]}});
            let pod = serde_json::from_value(pod).expect("a pod");
            Bandwidth::refusal(&pod).map(|it| it.message)
        };
        let adding = |name: &str| json!({"capabilities": {"add": ["CHOWN", name]}});
        for name in ["NET_ADMIN", "CAP_NET_RAW", "ALL", "net_admin"] {
            let why = refused(EGRESS, adding(name)).expect("it is refused");
            let field = "spec.containers[1].securityContext.capabilities.add: ";
            assert!(why.starts_with(field), "{why}");
            assert_eq!(
                refused(INGRESS, adding(name)),
                None,
                "that queue is the node's"
            );
        }
        let why = refused(EGRESS, json!({"privileged": true})).expect("it is refused");
        assert!(
            why.starts_with("spec.containers[1].securityContext.privileged: "),
            "{why}"
        );
        assert_eq!(refused(EGRESS, adding("NET_BIND_SERVICE")), None);
    }

    #[test]
    fn ten_seconds_of_a_bucket_are_within_a_twentieth_of_the_rate() {
        for bits in [
            1_000_000u64,
            10_000_000,
            100_000_000,
            1_000_000_000,
            40_000_000_000,
        ] {
            let bucket = Bucket::of(bits);
            let most = bucket.rate * 10 + u64::from(bucket.burst);
            let wanted = bits / 8 * 10;
            assert!(most <= wanted + wanted / 20, "{bits}: {most}");
            // 1,448 bytes of 1,514 are an application's, with IPv6 twenty less.
            let least = bucket.rate * 10 * 1_428 / 1_514;
            assert!(least >= wanted - wanted / 20, "{bits}: {least}");
        }
    }

    #[test]
    fn the_options_are_laid_out_as_the_kernel_reads_them() {
        let bucket = Bucket {
            rate: 1 << 33,
            burst: 7,
            limit: 9,
        };
        let options: Vec<(u16, Vec<u8>)> = bucket
            .options()
            .into_iter()
            .map(|option| {
                use rtnetlink::packet_core::Nla;
                let mut value = vec![0; option.value_len()];
                option.emit_value(&mut value);
                (option.kind(), value)
            })
            .collect();
        assert_eq!(options[0].1.len(), 36, "struct tc_tbf_qopt");
        assert_eq!(options[0].1[8..12], u32::MAX.to_ne_bytes());
        assert_eq!(options[0].1[24..28], 9u32.to_ne_bytes());
        assert_eq!(options[1], (4, (1u64 << 33).to_ne_bytes().to_vec()));
        assert_eq!(options[2], (6, 7u32.to_ne_bytes().to_vec()));
    }
}
