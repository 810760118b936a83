//! What a client asks for when it connects with a pod, a Service or a node: v1 PodExecOptions and the like.
//! Written in a query, seen by admission as an object, never stored; OpenAPI has no schema of them.

use crate::resource::Resource;

pub fn pod_exec() -> Resource {
    options("PodExecOptions", "pods")
}

pub fn pod_attach() -> Resource {
    options("PodAttachOptions", "pods")
}

pub fn pod_port_forward() -> Resource {
    options("PodPortForwardOptions", "pods")
}

pub fn pod_proxy() -> Resource {
    options("PodProxyOptions", "pods")
}

pub fn service_proxy() -> Resource {
    options("ServiceProxyOptions", "services")
}

pub fn node_proxy() -> Resource {
    options("NodeProxyOptions", "nodes")
}

fn options(kind: &'static str, plural: &'static str) -> Resource {
    Resource {
        verbs: &[],
        ..Resource::bare("".into(), "v1".into(), kind.into(), plural.into())
    }
}
