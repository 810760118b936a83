//! Private registries: Debian's `docker-registry`, with a certificate of an authority of its own and a password, on
//! the address of the cluster's underlay. (The Engine asks no certificate of a registry on loopback.)

#[path = "e2e_registry/registry.rs"]
mod registry;

use std::process::ExitCode;

use anyhow::Result;
use registry::Registry;
use serde_json::{Value, json};
use tests::cluster::{Cluster, Kubectl, wait};
use tests::scenarios::{self, Scenario};

const SCENARIOS: [Scenario<Setting>; 3] = [
    (
        "an_authority_that_the_engine_does_not_know_is_said_until_it_is_known",
        unknown_authority,
    ),
    (
        "a_wrong_password_is_said_and_the_right_one_pulls_by_tag_and_by_digest",
        passwords,
    ),
    (
        "a_registry_that_is_away_is_said_and_asked_again_when_it_is_back",
        away,
    ),
];

fn main() -> ExitCode {
    let end = |setting: Setting| setting.cluster.down();
    scenarios::run(Setting::start, end, SCENARIOS)
}

struct Setting {
    kubectl: Kubectl,
    registry: Registry,
    cluster: Cluster,
}

impl Setting {
    fn start() -> Result<Self> {
        let cluster = Cluster::up("e2ereg", 1)?;
        let setting = Self {
            kubectl: cluster.client()?,
            registry: Registry::start(&cluster)?,
            cluster,
        };
        for password in ["right", "wrong"] {
            setting.kubectl.given("create", &setting.secret(password))?;
        }
        Ok(setting)
    }

    /// A pull secret of that name and with that password.
    fn secret(&self, password: &str) -> Value {
        let host = self.registry.host();
        let table = json!({"auths": {host: {"username": registry::USER, "password": password}}});
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": password},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": table.to_string()},
        })
    }

    /// A pod of an image in the registry, pulled with that secret.
    fn pod(&self, name: &str, image: &str, secret: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "imagePullSecrets": [{"name": secret}],
                "containers": [{"name": "main", "image": image}],
            },
        });
        self.kubectl.given("create", &pod).expect("a pod");
    }

    fn until_running(&self, pod: &str) {
        let phase = || self.kubectl.field(&format!("pod {pod}"), "/status/phase");
        wait(&format!("{pod} runs"), || {
            Ok((phase()? == "Running").then_some(()))
        });
    }

    /// Status and events say that the image was not pulled, and why.
    fn assert_told(&self, pod: &str, why: &str) {
        let state = "/status/containerStatuses/0/state/waiting";
        let waiting = wait(&format!("{pod} waits"), || {
            let object = self.kubectl.json(&format!("get pod {pod}"))?;
            let waiting = object.pointer(state).cloned().unwrap_or_default();
            Ok((waiting["reason"] == "ImagePullBackOff").then_some(waiting))
        });
        let message = waiting["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("Back-off pulling image ")
                && message.contains("ErrImagePull: ")
                && message.contains(why),
            "{message}"
        );
        let events = wait(&format!("events of {pod}"), || {
            let selector = format!("get events --field-selector involvedObject.name={pod}");
            let list = self.kubectl.json(&selector)?;
            let events: Vec<String> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| it["message"].as_str().unwrap_or_default().to_owned())
                .collect();
            let is_told = events.iter().any(|it| it == "Error: ImagePullBackOff");
            Ok(is_told.then_some(events))
        });
        let failed = |it: &String| it.starts_with("Failed to pull image ") && it.contains(why);
        assert!(events.iter().any(failed), "{events:?}");
        let reason = "Error: ErrImagePull".to_owned();
        assert!(events.contains(&reason), "{events:?}");
    }
}

fn unknown_authority(setting: &Setting) {
    let (image, _) = setting.registry.push(&setting.cluster, "authority");
    setting.registry.distrust();
    setting.pod("authority", &image, "right");
    setting.assert_told("authority", "x509: certificate signed by unknown authority");
    setting.registry.trust();
    setting.until_running("authority");
}

fn passwords(setting: &Setting) {
    let (image, digest) = setting.registry.push(&setting.cluster, "password");
    setting.pod("wrong", &image, "wrong");
    setting.assert_told("wrong", "unauthorized");
    setting.pod("by-tag", &image, "right");
    setting.until_running("by-tag");
    setting.pod("by-digest", &digest, "right");
    setting.until_running("by-digest");
}

fn away(setting: &Setting) {
    let (image, _) = setting.registry.push(&setting.cluster, "away");
    setting.registry.stop();
    setting.pod("away", &image, "right");
    setting.assert_told("away", "connection refused");
    setting.registry.run();
    setting.until_running("away");
}
