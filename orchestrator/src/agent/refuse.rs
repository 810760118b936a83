//! What this agent cannot do yet, said before a pod starts: nothing is silently ignored. Pure.

use k8s_openapi::api::core::v1::{Container as Template, Pod, PodSpec, Volume};

use super::pod_shape;

/// Why this node cannot run the pod as it is written; none when it can.
pub fn refuse(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let of_pod = pod_wide(spec);
    let of_volumes = spec.volumes.iter().flatten().find_map(|volume| {
        let kind = unknown_volume(volume)?;
        Some(format!(
            "volume {:?}: volumes of type {kind} are not supported",
            volume.name
        ))
    });
    let templates = pod_shape::init_templates(pod)
        .iter()
        .chain(pod_shape::main_templates(pod));
    let of_containers = templates.flat_map(|template| {
        let problem = container_wide(template, pod_shape::host_network(pod))?;
        Some(format!("container {:?}: {problem}", template.name))
    });
    let of_containers = of_containers.into_iter().next();
    of_pod.or(of_volumes).or(of_containers)
}

fn pod_wide(spec: &PodSpec) -> Option<String> {
    if let Some(class) = spec
        .runtime_class_name
        .as_ref()
        .filter(|class| !class.is_empty())
    {
        return Some(format!("runtimeClassName {class:?} is not supported"));
    }
    if spec.host_users == Some(false) {
        return Some("hostUsers: false is not supported".to_owned());
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return Some("resourceClaims are not supported".to_owned());
    }
    let os = spec.os.as_ref().map(|os| os.name.as_str());
    os.filter(|os| *os != "linux")
        .map(|os| format!("operating system {os:?} is not supported"))
}

fn container_wide(template: &Template, host_network: bool) -> Option<String> {
    if template.restart_policy.is_some() {
        return Some("a restartPolicy of its own (a sidecar) is not supported".to_owned());
    }
    if let Some(lifecycle) = &template.lifecycle {
        let hooks = [
            ("postStart", &lifecycle.post_start),
            ("preStop", &lifecycle.pre_stop),
        ];
        let tcp = hooks
            .into_iter()
            .find(|(_, hook)| hook.as_ref().is_some_and(|hook| hook.tcp_socket.is_some()));
        if let Some((hook, _)) = tcp {
            return Some(format!("a {hook} hook of type tcpSocket is not supported"));
        }
    }
    if template
        .volume_devices
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Some("volumeDevices are not supported".to_owned());
    }
    let ports = template.ports.iter().flatten();
    let mapped = ports
        .filter_map(|port| port.host_port)
        .find(|port| *port != 0);
    if let Some(port) = mapped.filter(|_| !host_network) {
        return Some(format!(
            "hostPort {port} is not supported without hostNetwork"
        ));
    }
    let seccomp = template
        .security_context
        .as_ref()
        .and_then(|it| it.seccomp_profile.as_ref());
    if seccomp.is_some_and(|profile| profile.type_ == "Localhost") {
        return Some("seccomp profiles of type Localhost are not supported".to_owned());
    }
    let probes = [
        &template.liveness_probe,
        &template.readiness_probe,
        &template.startup_probe,
    ];
    let grpc = probes
        .into_iter()
        .flatten()
        .any(|probe| probe.grpc.is_some());
    if grpc {
        return Some("gRPC probes are not supported".to_owned());
    }
    let tls = probes.into_iter().flatten().any(|probe| {
        probe
            .http_get
            .as_ref()
            .is_some_and(|get| get.scheme.as_deref() == Some("HTTPS"))
    });
    tls.then(|| "HTTPS probes are not supported".to_owned())
}

/// The type of a volume that is not one of ours.
fn unknown_volume(volume: &Volume) -> Option<String> {
    let known = volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some();
    if known {
        return None;
    }
    if let Some(projected) = &volume.projected {
        let unknown = projected.sources.iter().flatten().any(|source| {
            source.service_account_token.is_some() || source.cluster_trust_bundle.is_some()
        });
        return unknown.then(|| "projected with tokens or trust bundles".to_owned());
    }
    let written = serde_json::to_value(volume).unwrap_or_default();
    let mut fields = written
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys());
    Some(
        fields
            .find(|key| *key != "name")
            .cloned()
            .unwrap_or_else(|| "none".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "spec": spec })).expect("a pod")
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let cases = [
            (
                serde_json::json!({"containers": [], "volumes": [{"name": "v", "nfs":
                    {"server": "s", "path": "/"}}]}),
                "volume \"v\": volumes of type nfs are not supported",
            ),
            (
                serde_json::json!({"containers": [{"name": "c", "ports":
                    [{"containerPort": 80, "hostPort": 8080}]}]}),
                "container \"c\": hostPort 8080 is not supported without hostNetwork",
            ),
            (
                serde_json::json!({"containers": [], "runtimeClassName": "gvisor"}),
                "runtimeClassName \"gvisor\" is not supported",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(refuse(&pod(spec)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_ordinary_pod_is_not_refused() {
        let spec = serde_json::json!({
            "containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(refuse(&pod(spec)), None);
    }
}
