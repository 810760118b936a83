//! What the scenarios share: a cluster, two pods `web` that answer HTTP, and a pod to ask from.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Kubectl, output, wait};

/// How long a connection may take to be made or refused.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Setting {
    pub cluster: Cluster,
    pub kubectl: Kubectl,
}

impl Setting {
    pub fn start() -> Result<Self> {
        let cluster = Cluster::up_with("svc", 2, &["--ip-family", "dual"])?;
        let kubectl = cluster.client()?;
        let setting = Self { cluster, kubectl };
        let nginx = json!({"name": "nginx", "image": "nginx:1.7.9"});
        let labels = json!({"app": "web"});
        setting.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [nginx]}}},
        }))?;
        setting.apply(&pod("client", &json!({"name": "client", "image": "tools"})))?;
        wait("the pods that all scenarios use are Ready", || {
            let web = setting.kubectl.ready_pods("app=web")?.len();
            let client = setting.kubectl.ready_pods("app=client")?.len();
            Ok(((web, client) == (2, 1)).then_some(()))
        });
        Ok(setting)
    }

    pub fn apply(&self, object: &Value) -> Result<String> {
        self.given("apply", object)
    }

    pub fn create(&self, object: &Value) -> Result<String> {
        self.given("create", object)
    }

    /// Runs `kubectl` with this verb on a file that says this.
    pub fn given(&self, verb: &str, object: &Value) -> Result<String> {
        self.kubectl.given(verb, object)
    }

    /// A file of the cluster's that says this.
    pub fn file(&self, object: &Value) -> Result<String> {
        let file = self.cluster.dir().join("scenario.json");
        std::fs::write(&file, object.to_string())?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// Says why the API server does not take the object.
    pub fn refusal(&self, object: &Value) -> String {
        match self.create(object) {
            Ok(said) => panic!("{object} was to be refused, but: {said}"),
            Err(error) => format!("{error:#}"),
        }
    }

    pub fn delete(&self, what: &str) {
        self.kubectl.run(&format!("delete {what}")).unwrap();
    }

    /// The `spec` of a Service.
    pub fn spec(&self, service: &str) -> Value {
        let object = self.kubectl.json(&format!("get service {service}"));
        object.unwrap()["spec"].clone()
    }

    /// The slices of a Service.
    pub fn slices(&self, service: &str) -> Result<Vec<Value>> {
        let selector = format!("kubernetes.io/service-name={service}");
        let list = self
            .kubectl
            .json(&format!("get endpointslices -l {selector}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The IPv4 address of a node on the underlay.
    pub fn node_address(&self, number: u8) -> Ipv4Addr {
        let node = format!("node {}", self.cluster.node(number));
        let address = self.kubectl.field(&node, "/status/addresses/0/address");
        address.unwrap().parse().unwrap()
    }

    /// The status and the body that HTTP gives to a node's namespace, or to `outside`.
    pub fn http(&self, from: &str, to: SocketAddr, path: &str) -> Result<(u16, String)> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-g", "--max-time", "3", "-w", "\n%{http_code}"])
            .arg(format!("http://{to}{path}"));
        let said = self.cluster.namespace(from).enter(|| output(&mut curl))?;
        let (body, status) = said
            .rsplit_once('\n')
            .context("curl writes the status last")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// Waits until a `web` pod, or another nginx, answers there.
    #[track_caller]
    pub fn serves(&self, from: &str, to: SocketAddr) {
        wait(&format!("{to} answers {from}"), || {
            let (status, body) = self.http(from, to, "/")?;
            ensure!(
                status == 200 && body.contains("Served by"),
                "{status} {body}"
            );
            Ok(Some(()))
        });
    }

    /// What `curl` says in the client's pod.
    pub fn curl_in_pod(&self, arguments: &[&str]) -> Result<String> {
        let id = self.cluster.container("client", "client")?;
        let curl = ["exec", &id, "curl", "-sS", "-g", "--max-time", "3"];
        self.cluster.docker(&[&curl[..], arguments].concat())
    }

    /// Waits until connections from there are refused: told so, not left in silence.
    #[track_caller]
    pub fn refuses(&self, from: &str, to: SocketAddr) {
        wait(&format!("{to} refuses {from}"), || {
            let connect = || TcpStream::connect_timeout(&to, PATIENCE);
            match self.cluster.namespace(from).enter(connect) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Some(())),
                Err(error) => bail!("{error}"),
                Ok(_) => bail!("it took the connection"),
            }
        });
    }
}

/// A pod of this name with the label `app` of the same.
pub fn pod(name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [container]},
    })
}

pub fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// A Service's `clusterIP` with the port 80.
pub fn cluster_ip(spec: &Value) -> SocketAddr {
    let text = spec["clusterIP"].as_str().unwrap_or_default();
    let address: IpAddr = text
        .parse()
        .unwrap_or_else(|_| panic!("no clusterIP: {spec}"));
    SocketAddr::new(address, 80)
}
