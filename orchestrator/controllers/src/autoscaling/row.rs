//! What autoscalers read of pods. Pure.

use k8s_openapi::api::core::v1::PodSpec;

use api::quantity::Quantity;

/// What a container requests of what is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub container: String,
    pub cpu_millis: Option<i64>,
    pub memory_bytes: Option<i64>,
}

/// Of the containers that run as long as the pod does: init containers that go on running are among them.
pub fn requests(spec: &PodSpec) -> Vec<Requests> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = sidecars.chain(&spec.containers).map(|container| {
        let requests = container.resources.as_ref();
        let requests = requests.and_then(|it| it.requests.as_ref());
        let amount = |name: &str| Quantity::parse(&requests?.get(name)?.0).ok();
        Requests {
            container: container.name.clone(),
            cpu_millis: amount("cpu").map(Quantity::millis),
            memory_bytes: amount("memory").map(Quantity::units),
        }
    });
    containers.collect()
}
