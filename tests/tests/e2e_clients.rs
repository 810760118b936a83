//! What clients do with pods that run, on one cluster for all: every kubectl's streams, Helm that waits for the
//! charts of `manifests/charts`, and programs inside of pods that use their ServiceAccount.
//!
//! What clients print is in `transcripts/e2e/TOPIC.txt`; `UPDATE_EXPECT=1` rewrites it.

#[path = "e2e_clients/in_pod.rs"]
mod in_pod;

use std::process::ExitCode;

use tests::clients::python;
use tests::cluster::{Cluster, workspace};
use tests::prog::skipped;
use tests::scenarios::{self, Scenario};
use tests::transcript::{Client, Place, judge, versions};

const SCENARIOS: &[Scenario<Cluster>] = &[
    ("kubectl_reaches_into_containers_that_run", |cluster| {
        let all = versions();
        let ends = [all.first(), all.last()].map(|it| it.expect("a kubectl").clone());
        transcript(cluster, "streams", &ends);
    }),
    ("kubectl_and_orchestrator_show_what_pods_use", |cluster| {
        let newest = versions().pop().expect("a kubectl is on this machine");
        transcript(cluster, "top", &[newest]);
    }),
    ("helm_waits_for_a_web_application", |cluster| {
        helm(cluster, "helm_web");
    }),
    ("helm_keeps_a_database_and_what_it_holds", |cluster| {
        helm(cluster, "helm_database");
    }),
    ("helm_installs_an_operator_that_works_in_a_pod", |cluster| {
        helm(cluster, "helm_operator");
    }),
    ("helm_installs_what_runs_on_every_node", |cluster| {
        helm(cluster, "helm_agent");
    }),
    (
        "a_program_of_kube_rs_works_in_a_pod_by_its_account",
        in_pod::kube_rs,
    ),
    (
        "a_program_of_the_python_client_works_in_a_pod_by_its_account",
        in_pod::python_client,
    ),
];

fn main() -> ExitCode {
    if let Some(ended) = in_pod::as_program().or_else(tests::control_plane::as_program) {
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
