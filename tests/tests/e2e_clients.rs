//! What clients print of pods that run: every kubectl's exec, attach, cp, logs, port-forward and debug, and
//! Helm that waits. `transcripts/e2e/TOPIC.txt`, one cluster for all; `UPDATE_EXPECT=1` rewrites.

use std::process::ExitCode;

use tests::clients::python;
use tests::cluster::{Cluster, workspace};
use tests::prog::skipped;
use tests::scenarios::{self, Scenario};
use tests::transcript::{Client, Place, judge, versions};

const SCENARIOS: &[Scenario<Cluster>] = &[
    ("every_kubectl_streams", |cluster| {
        transcript(cluster, "streams", &versions());
    }),
    ("helm_waits_for_a_web_application", |cluster| {
        helm(cluster, "helm_web");
    }),
    ("helm_installs_an_operator_that_works_in_a_pod", |cluster| {
        helm(cluster, "helm_operator");
    }),
];

fn main() -> ExitCode {
    if let Some(ended) = tests::control_plane::as_program() {
        return ended;
    }
    let start = || Cluster::up("clients", 2);
    scenarios::run(start, Cluster::down, SCENARIOS.iter().copied())
}

fn helm(cluster: &Cluster, topic: &str) {
    if python().is_none() {
        skipped(
            topic,
            "no environment with Helm: run `cargo xtask test sim` once",
        );
        return;
    }
    let newest = versions().pop().expect("a kubectl is on this machine");
    transcript(cluster, topic, &[newest]);
}

fn transcript(cluster: &Cluster, topic: &str, clients: &[Client]) {
    let file = workspace().join(format!("tests/transcripts/e2e/{topic}.txt"));
    let place = || {
        Ok(Place {
            kubeconfig: cluster.dir().join("kubeconfig"),
            server: Box::new(()),
        })
    };
    judge(&file, clients, place).unwrap_or_else(|error| panic!("{error:#}"));
}
