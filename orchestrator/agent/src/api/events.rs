//! What the agent's events are about: pods, their containers and Services.

use k8s_openapi::api::core::v1::Pod;

use client::Kind;
pub use client::{About, Recorder};
use datapath::ObjectKey;

/// The component that tools look for in events of a node.
const COMPONENT: &str = "kubelet";

/// Starts the recorder of a node; it ends when every clone of it is dropped.
pub fn recorder(client: kube::Client, node: String) -> Recorder {
    Recorder::start_on(client, COMPONENT, node)
}

/// A node's events name it by its name alone, as kubelets' do.
pub fn node(name: &str) -> About {
    About {
        kind: Kind::NODE,
        namespace: String::new(),
        name: name.to_owned(),
        uid: name.to_owned(),
        field_path: String::new(),
    }
}

pub fn pod(pod: &Pod) -> About {
    let owned = |text: &Option<String>| text.clone().unwrap_or_default();
    About {
        kind: Kind::POD,
        namespace: owned(&pod.metadata.namespace),
        name: owned(&pod.metadata.name),
        uid: owned(&pod.metadata.uid),
        field_path: String::new(),
    }
}

/// One container of a pod.
pub fn container(pod: &Pod, name: &str) -> About {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref());
    let mut init = init.into_iter().flatten();
    let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
    let mut ephemeral = ephemeral.into_iter().flatten();
    let list = if init.any(|template| template.name == name) {
        "initContainers"
    } else if ephemeral.any(|template| template.name == name) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    About {
        field_path: format!("spec.{list}{{{name}}}"),
        ..self::pod(pod)
    }
}

pub fn service(key: &ObjectKey, uid: &str) -> About {
    About {
        kind: Kind::SERVICE,
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        uid: uid.to_owned(),
        field_path: String::new(),
    }
}
