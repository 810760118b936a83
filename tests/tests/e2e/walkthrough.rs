//! The walkthrough that newcomers are shown everywhere, by every kubectl of this machine and by the
//! product's own client.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use nix::{sys::signal, unistd::Pid};
use tests::cluster::{Cluster, Kubectl, kubectls, manifest, output, wait};

#[test]
fn every_client_does_the_walkthrough() {
    let kubectls = kubectls();
    assert!(!kubectls.is_empty(), "no kubectl is on this machine");
    let cluster = Cluster::up("e2e", 3).unwrap();
    let wanted = kubectls.iter().filter(|(minor, _)| WANTED.contains(minor));
    let mut clients: Vec<Client> = wanted
        .map(|(minor, program)| Client {
            name: format!("kubectl 1.{minor}"),
            program: cluster.kubectl(program),
            since: Some(*minor),
        })
        .collect();
    clients.push(Client {
        name: "orchestrator".into(),
        program: cluster.orchestrator().unwrap(),
        since: None,
    });
    for client in &clients {
        println!("{}", client.name);
        Walk {
            cluster: &cluster,
            client,
            kubectl: cluster.client().unwrap(),
        }
        .all();
    }
    let again = cluster.up_again().unwrap();
    assert!(again.contains("running"), "`up` finds what runs:\n{again}");
    cluster.down().unwrap();
}

/// The oldest, the newest, and between them where clients changed their ways.
const WANTED: [u32; 4] = [20, 27, 30, 33];

struct Client {
    name: String,
    program: Kubectl,
    /// The minor version of kubectl.
    since: Option<u32>,
}

impl Client {
    fn is_older_than(&self, minor: u32) -> bool {
        self.since.is_some_and(|own| own < minor)
    }
}

/// One client's walk. What it did is looked at with the newest kubectl.
struct Walk<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    kubectl: Kubectl,
}

impl Walk<'_> {
    fn all(&self) {
        self.looks_around();
        self.runs_a_pod();
        self.runs_two_containers_in_a_pod();
        self.keeps_replicas();
        self.reaches_a_service();
        self.rolls_out_and_back();
        self.reaches_a_node_port();
        self.creates_without_manifests();
        self.uses_a_pod();
        self.selects();
        self.is_told_what_is_wrong();
        self.cleans_up();
    }

    fn looks_around(&self) {
        self.says(
            "cluster-info",
            &["is running at", "https://127.0.0.1:", "DNS"],
        );
        let nodes: Vec<String> = (1..=3).map(|n| self.cluster.node(n)).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.says(
            "get nodes",
            &[&nodes[..], &["Ready", "ROLES", "AGE", "VERSION"]].concat(),
        );
        let wide = [
            "INTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
            "CONTAINER-RUNTIME",
            "docker://",
        ];
        self.says("get nodes -o wide", &wide);
        self.create("development-ns.yaml");
        self.says(
            "get namespaces",
            &["development", "Active", "default", "kube-system"],
        );
    }

    fn runs_a_pod(&self) {
        self.create("nginx.yaml");
        self.ready("pod/nginx");
        self.says("get pods", &["nginx", "1/1", "Running"]);
        let node = self.kubectl.field("pod nginx", "/spec/nodeName").unwrap();
        let address = self.kubectl.field("pod nginx", "/status/podIP").unwrap();
        let told = [
            "Status:",
            "Running",
            "nginx-server",
            "Conditions:",
            "Scheduled",
            "Started",
        ];
        self.says(
            "describe pod nginx",
            &[&told[..], &[&node, &address]].concat(),
        );
        for number in 1..=3 {
            let page = self.curl(&self.cluster.node(number), &format!("http://{address}/"));
            assert!(
                page.contains("Welcome to nginx!"),
                "from node {number}: {page}"
            );
        }
        self.says("logs nginx", &["GET / HTTP/1.1"]);
        self.says("delete pod nginx", &["deleted"]);
        let gone = self
            .client
            .program
            .run("get pod nginx")
            .unwrap_err()
            .to_string();
        assert!(gone.contains("NotFound"), "{gone}");
    }

    fn runs_two_containers_in_a_pod(&self) {
        self.create("redis-django.yaml");
        self.ready("pod/redis-django");
        self.says("get pods", &["redis-django", "2/2"]);
        let address = self
            .kubectl
            .field("pod redis-django", "/status/podIP")
            .unwrap();
        // The application takes a moment to listen; only then does it reach redis on localhost.
        wait("django answers with what redis counted", || {
            let page = self.curl(&self.cluster.node(1), &format!("http://{address}:8080/"));
            Ok(page.contains("It worked! Visit").then_some(()))
        });
        self.says("delete pod redis-django", &["deleted"]);
    }

    fn keeps_replicas(&self) {
        self.create("nginxrc.yaml");
        self.says("get rc", &["my-nginx", "DESIRED"]);
        self.says("scale --replicas=3 rc my-nginx", &["scaled"]);
        let before = self.pods("app=nginx", 3);
        self.says(
            &format!("delete pod {} --wait=false", before[0]),
            &["deleted"],
        );
        wait("another pod comes back", || {
            let pods = self.kubectl.ready_pods("app=nginx")?;
            let other = pods.iter().all(|pod| pod.name != before[0]);
            Ok((pods.len() == 3 && other).then_some(()))
        });
    }

    fn reaches_a_service(&self) {
        self.create("nginxsvc.yaml");
        self.says("get svc nginxsvc", &["ClusterIP", "80/TCP"]);
        // The product's own client shows the object as it is.
        if self.client.since.is_some() {
            self.says(
                "describe svc nginxsvc",
                &["Selector:", "app=nginx", "Endpoints:"],
            );
        }
        let address = self
            .kubectl
            .field("service nginxsvc", "/spec/clusterIP")
            .unwrap();
        wait("the Service answers", || {
            let page = self.curl(&self.cluster.node(2), &format!("http://{address}/"));
            Ok(page.contains("Welcome to nginx!").then_some(()))
        });
        self.says("delete rc my-nginx", &["deleted"]);
        self.no_pods("app=nginx");
    }

    fn rolls_out_and_back(&self) {
        let file = manifest("nginx-deployment.yaml");
        self.client.program.args(&["apply", "-f", &file]).unwrap();
        let rollout = "rollout status deployment/nginx-deployment";
        self.says(rollout, &["successfully rolled out"]);
        self.says(
            "scale --replicas=4 deployment/nginx-deployment",
            &["scaled"],
        );
        self.pods("app=nginx", 4);
        self.says(
            "set image deployment/nginx-deployment nginx=nginx:latest",
            &["image updated"],
        );
        self.says(rollout, &["successfully rolled out"]);
        let image = "/spec/template/spec/containers/0/image";
        let now = || {
            self.kubectl
                .field("deployment nginx-deployment", image)
                .unwrap()
        };
        assert_eq!(now(), "nginx:latest");
        self.says(
            "rollout history deployment/nginx-deployment",
            &["REVISION", "1", "2"],
        );
        self.says("rollout undo deployment/nginx-deployment", &["rolled back"]);
        self.says(rollout, &["successfully rolled out"]);
        assert_eq!(now(), "nginx:1.7.9");
        self.says(
            "get deployments,rs -o wide",
            &["4/4", "nginx:1.7.9", "nginx:latest"],
        );
        let again = self.client.program.args(&["apply", "-f", &file]).unwrap();
        assert!(
            again.contains("configured"),
            "apply brings back three replicas: {again}"
        );
        self.pods("app=nginx", 3);
    }

    fn creates_without_manifests(&self) {
        self.says("run web --image=nginx", &["pod/web created"]);
        let port = if self.client.is_older_than(21) {
            ""
        } else {
            "--port=80"
        };
        let create = format!("create deployment mydeploy --image=nginx {port}");
        self.says(&create, &["mydeploy created"]);
        let expose = "expose deployment mydeploy --port=8080 --target-port=80 --type=LoadBalancer";
        self.says(expose, &["service/mydeploy"]);
        self.ready("pod/web");
        self.pods("app=mydeploy", 1);
        let address = self
            .kubectl
            .field("service mydeploy", "/spec/clusterIP")
            .unwrap();
        wait("the exposed deployment answers", || {
            let page = self.curl(&self.cluster.node(3), &format!("http://{address}:8080/"));
            Ok(page.contains("Welcome to nginx!").then_some(()))
        });
        let outside = self.cluster.namespace("outside").name.clone();
        wait("its external address answers from outside", || {
            let external = "/status/loadBalancer/ingress/0/ip";
            let address = self.kubectl.field("service mydeploy", external)?;
            let page = self.curl(&outside, &format!("http://{address}:8080/"));
            Ok(page.contains("Welcome to nginx!").then_some(()))
        });
    }

    fn reaches_a_node_port(&self) {
        let labels = "--labels=app=webapp,environment=production";
        let serve = "-- python3 -m http.server 8000";
        self.says(
            &format!("run webapp --image=django {labels} {serve}"),
            &["pod/webapp created"],
        );
        let file = manifest("webapp-nodeport.yaml");
        let applied = self.client.program.args(&["apply", "-f", &file]).unwrap();
        assert!(applied.contains("created"), "{applied}");
        self.says("get svc webapp-service", &["NodePort", "80:"]);
        let port = self
            .kubectl
            .field("service webapp-service", "/spec/ports/0/nodePort")
            .unwrap();
        let outside = self.cluster.namespace("outside").name.clone();
        for number in 1..=3 {
            let node = format!("node {}", self.cluster.node(number));
            let address = self.kubectl.field(&node, "/status/addresses/0/address");
            let url = format!("http://{}:{port}/", address.unwrap());
            wait("the node's port answers from outside", || {
                let page = self.curl(&outside, &url);
                Ok(page.contains("Directory listing").then_some(()))
            });
        }
        self.says("delete svc webapp-service", &["deleted"]);
        self.says("delete pod webapp --grace-period=1", &["deleted"]);
    }

    fn uses_a_pod(&self) {
        self.says("exec web -- cat /etc/hostname", &["web"]);
        let failed = self.client.program.run("exec web -- sh -c false");
        assert!(failed.is_err(), "the command's exit code is the client's");
        self.forwards_a_port().unwrap();
        self.says("logs web --tail=1", &["GET / HTTP/1.1"]);
        for what in ["nodes", "pods"] {
            wait("agents have told what nodes and pods use", || {
                let said = self.client.program.run(&format!("top {what}"))?;
                let mut heads = ["CPU(cores)", "MEMORY(bytes)"].into_iter();
                let is_whole = heads.all(|head| said.contains(head));
                Ok(is_whole.then_some(()))
            });
        }
    }

    fn forwards_a_port(&self) -> Result<()> {
        let mut command = self
            .client
            .program
            .command(&["port-forward", "pod/web", ":80"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let line = lines.next().context("it says where it listens")??;
        let port = line.split_once("127.0.0.1:").map(|(_, rest)| rest);
        let port = port.and_then(|rest| rest.split(' ').next());
        let url = format!("http://127.0.0.1:{}/", port.with_context(|| line.clone())?);
        let page = output(std::process::Command::new("curl").args(["-s", "-m", "5", &url]));
        // `timeout` hands the signal on.
        signal::kill(Pid::from_raw(i32::try_from(child.id())?), signal::SIGTERM)?;
        child.wait()?;
        let page = page?;
        anyhow::ensure!(page.contains("Welcome to nginx!"), "{page}");
        Ok(())
    }

    fn selects(&self) {
        let label = "label pod web environment=production tier=backend";
        self.kubectl.run(label).unwrap();
        let select = |selector: &str| {
            self.client
                .program
                .args(&["get", "pods", "-o", "name", "-l", selector])
                .unwrap()
        };
        let rule = "environment in (production, qa),tier!=frontend,!partition";
        assert_eq!(select(rule).trim(), "pod/web");
        self.kubectl.run("label pod web partition=a").unwrap();
        assert_eq!(select(rule).trim(), "");
    }

    fn is_told_what_is_wrong(&self) {
        if self.client.is_older_than(27) {
            // Older clients check by themselves, in words of their own.
            return;
        }
        let file =
            std::env::temp_dir().join(format!("orchestrator-e2e-{}.yaml", std::process::id()));
        let text = std::fs::read_to_string(manifest("nginx-deployment.yaml")).unwrap();
        std::fs::write(&file, text.replace("replicas:", "replicsa:")).unwrap();
        let error = self
            .client
            .program
            .args(&["create", "-f", &file.to_string_lossy()])
            .unwrap_err();
        std::fs::remove_file(&file).unwrap();
        let error = error.to_string();
        let wanted = r#"strict decoding error: unknown field "spec.replicsa""#;
        assert!(error.contains(wanted), "{error}");
    }

    fn cleans_up(&self) {
        self.says("delete deployment nginx-deployment mydeploy", &["deleted"]);
        self.says("delete pod web", &["deleted"]);
        self.says("delete svc nginxsvc mydeploy", &["deleted"]);
        self.says("delete namespace development", &["deleted"]);
        wait("no pod is left", || {
            let list = self.kubectl.json("get pods")?;
            Ok(list["items"]
                .as_array()
                .context("no items")?
                .is_empty()
                .then_some(()))
        });
    }

    /// Runs a command; its output has all of these words.
    #[track_caller]
    fn says(&self, words: &str, wanted: &[&str]) {
        let name = &self.client.name;
        let said = match self.client.program.run(words) {
            Ok(said) => said,
            Err(error) => panic!("{name}: {error:#}"),
        };
        for word in wanted {
            assert!(
                said.contains(word),
                "{name} {words}: no {word:?} in\n{said}"
            );
        }
    }

    #[track_caller]
    fn create(&self, file: &str) {
        let created = self
            .client
            .program
            .args(&["create", "-f", &manifest(file)])
            .unwrap();
        assert!(created.contains("created"), "{created}");
    }

    #[track_caller]
    fn ready(&self, what: &str) {
        let waits = format!("wait --for=condition=Ready {what} --timeout=60s");
        self.kubectl.run(&waits).unwrap();
    }

    /// The names of the Ready pods, as soon as there are so many and no others.
    #[track_caller]
    fn pods(&self, selector: &str, count: usize) -> Vec<String> {
        wait("the right number of pods is Ready", || {
            let all = self.kubectl.json(&format!("get pods -l {selector}"))?;
            let all = all["items"].as_array().map_or(0, Vec::len);
            let ready = self.kubectl.ready_pods(selector)?;
            let names = ready.into_iter().map(|pod| pod.name).collect::<Vec<_>>();
            Ok((names.len() == count && all == count).then_some(names))
        })
    }

    #[track_caller]
    fn no_pods(&self, selector: &str) {
        self.pods(selector, 0);
    }

    /// What a client in that namespace gets; nothing when nobody answers.
    fn curl(&self, namespace: &str, url: &str) -> String {
        let mut ip = std::process::Command::new("ip");
        ip.args([
            "netns",
            "exec",
            namespace,
            "curl",
            "-s",
            "--max-time",
            "3",
            url,
        ]);
        output(&mut ip).unwrap_or_default()
    }
}
