//! Services while servers, pods and endpoints come and go.

use std::net::SocketAddr;

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::cluster::wait;
use tests::http_load::Load;

use crate::setting::{Setting, cluster_ip, pod, service};

fn selecting(app: &str) -> Value {
    json!({"selector": {"app": app}, "ports": [{"port": 80}]})
}

pub fn server_restart(setting: &Setting) {
    setting
        .create(&service("lasting", &selecting("web")))
        .unwrap();
    let before = setting.spec("lasting");
    let to = cluster_ip(&before);
    setting.serves("node-1", to);
    let loads = ["node-1", "node-2"].map(|node| Load::connections(to, setting.cluster.enter(node)));
    let pid = setting.cluster.pid("server").unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait("the server is there again", || {
        let other = setting.cluster.pid("server")? != pid;
        Ok((other && setting.kubectl.run("get nodes").is_ok()).then_some(()))
    });
    for load in loads {
        let outcome = load.stop();
        assert_eq!(outcome.failures, Vec::<String>::new());
        assert!(outcome.answered() > 10, "{outcome:?}");
    }
    assert_eq!(setting.spec("lasting"), before);
    setting.serves("node-2", to);
    let made = service("later", &selecting("web"));
    wait("a Service is taken", || setting.apply(&made).map(Some));
    let later = cluster_ip(&setting.spec("later"));
    assert_ne!(later, to, "the new server knows which addresses are taken");
    setting.serves("node-1", later);
    setting.delete("service lasting later");
}

/// Evicted through the API, which deletes the pod; and ended by its deadline, which leaves it as
/// Failed, like a pod that its node evicted.
pub fn evicted(setting: &Setting) {
    let nginx = json!({"name": "nginx", "image": "nginx:1.7.9"});
    setting
        .create(&service("victim", &selecting("victim")))
        .unwrap();
    let to = cluster_ip(&setting.spec("victim"));
    let refused = || {
        for node in ["node-1", "node-2"] {
            setting.refuses(node, to);
        }
        wait("a pod is refused", || {
            let said = setting.curl_in_pod(&[&format!("http://{to}/")]);
            let why = format!(
                "{:#}",
                said.err().unwrap_or_else(|| anyhow::anyhow!("answered"))
            );
            // What curl ends with when a connection is refused; silence would be 28.
            ensure!(why.contains("exit status: 7"), "{why}");
            Ok(Some(()))
        });
    };
    setting.create(&pod("victim", &nginx)).unwrap();
    setting.serves("node-1", to);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "victim", "namespace": "default"},
    });
    let file = setting.file(&eviction).unwrap();
    let path = "/api/v1/namespaces/default/pods/victim/eviction";
    setting
        .kubectl
        .args(&["create", "--raw", path, "-f", &file])
        .unwrap();
    refused();
    setting
        .kubectl
        .run("wait --for=delete pod/victim --timeout=60s")
        .unwrap();

    setting.create(&pod("victim", &nginx)).unwrap();
    setting.serves("node-1", to);
    let deadline = r#"{"spec":{"activeDeadlineSeconds":1}}"#;
    setting
        .kubectl
        .args(&["patch", "pod", "victim", "-p", deadline])
        .unwrap();
    wait("the pod has failed", || {
        let phase = setting.kubectl.field("pod victim", "/status/phase")?;
        Ok((phase == "Failed").then_some(()))
    });
    refused();
    setting.delete("service victim");
    setting.delete("pod victim");
}

pub fn health_check(setting: &Setting) {
    let lifecycle = json!({"preStop": {"exec": {"command": ["sleep", "60"]}}});
    let nginx = json!({"name": "nginx", "image": "nginx:1.7.9", "lifecycle": lifecycle});
    let mut held = pod("held", &nginx);
    held["spec"]["terminationGracePeriodSeconds"] = 90.into();
    setting.create(&held).unwrap();
    let mut spec = selecting("held");
    spec["type"] = "LoadBalancer".into();
    spec["externalTrafficPolicy"] = "Local".into();
    setting.create(&service("held", &spec)).unwrap();
    let pods = wait("its pod is Ready", || {
        let pods = setting.kubectl.ready_pods("app=held")?;
        Ok((pods.len() == 1).then_some(pods))
    });
    let (own, other) = if pods[0].node == setting.cluster.node(1) {
        (1, 2)
    } else {
        (2, 1)
    };
    let spec = setting.spec("held");
    let at = |node: u8, port: &Value| {
        let port = port.as_u64().unwrap_or_else(|| panic!("no port: {spec}"));
        SocketAddr::from((setting.node_address(node), port as u16))
    };
    let health = |node: u8, wanted: u16| {
        wait(&format!("node {node} is asked for its health"), || {
            let to = at(node, &spec["healthCheckNodePort"]);
            let (status, body) = setting.http("outside", to, "/healthz")?;
            ensure!(status == wanted, "{status}, but {wanted} is right: {body}");
            Ok(Some(()))
        });
    };
    health(own, 200);
    health(other, 503);
    setting.serves("outside", at(own, &spec["ports"][0]["nodePort"]));
    setting.kubectl.run("delete pod held --wait=false").unwrap();
    health(own, 503);
    health(other, 503);
    // It is only no longer recommended: who still comes is served while the pod ends.
    let going = setting
        .kubectl
        .field("pod held", "/metadata/deletionTimestamp");
    assert!(going.is_ok(), "the pod is on its way out: {going:?}");
    setting.serves("outside", at(own, &spec["ports"][0]["nodePort"]));
    setting.delete("service held");
    setting.delete("pod held --grace-period=0 --force");
}

pub fn api_server(setting: &Setting) {
    let spec = setting.spec("kubernetes");
    let endpoints = setting.kubectl.json("get endpoints kubernetes").unwrap();
    let subset = &endpoints["subsets"][0];
    let slices = setting.slices("kubernetes").unwrap();
    let [slice] = &slices[..] else {
        panic!("one slice leads to the API server: {slices:?}");
    };
    assert_eq!(
        subset["addresses"][0]["ip"],
        slice["endpoints"][0]["addresses"][0]
    );
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    for ports in [&subset["ports"], &slice["ports"]] {
        assert_eq!(
            (&ports[0]["name"], &ports[0]["protocol"]),
            (&json!("https"), &json!("TCP"))
        );
        assert_eq!(ports[0]["port"], spec["ports"][0]["targetPort"]);
    }
    let address = cluster_ip(&spec).ip();
    let url = format!("https://{address}/livez");
    wait("a pod reaches the API server", || {
        let said = setting.curl_in_pod(&["-k", &url])?;
        ensure!(said.trim() == "ok", "{said}");
        Ok(Some(()))
    });
}

pub fn mirrored(setting: &Setting) {
    let web = setting.kubectl.ready_pods("app=web").unwrap();
    let endpoints = |pod: usize| {
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "custom"},
            "subsets": [{"addresses": [{"ip": web[pod].address}], "ports": [{"port": 80}]}],
        })
    };
    let unselected = service("custom", &json!({"ports": [{"port": 80}]}));
    setting.create(&unselected).unwrap();
    let to = cluster_ip(&setting.spec("custom"));
    for (pod, seen) in web.iter().enumerate() {
        setting.apply(&endpoints(pod)).unwrap();
        wait("one slice says the same", || {
            let slices = setting.slices("custom")?;
            let [slice] = &slices[..] else {
                return Ok(None);
            };
            let manager = &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
            assert_eq!(manager, "endpointslicemirroring-controller.k8s.io");
            let same = slice["endpoints"][0]["addresses"] == json!([seen.address])
                && slice["endpoints"].as_array().map(Vec::len) == Some(1)
                && slice["ports"][0]["port"] == 80;
            Ok(same.then_some(()))
        });
        wait("that pod answers", || {
            let (_, body) = setting.http("node-1", to, "/")?;
            ensure!(body.contains(&seen.name), "{body}");
            Ok(Some(()))
        });
    }
    setting.delete("endpoints custom");
    wait("the slice goes with them", || {
        Ok(setting.slices("custom")?.is_empty().then_some(()))
    });
    setting.refuses("node-1", to);
    setting.delete("service custom");
}
