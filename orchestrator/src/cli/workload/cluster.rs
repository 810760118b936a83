//! The connection to the cluster: kubeconfig, names of resources, paths, requests, errors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use futures::AsyncBufRead;
use http::{Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use super::output;
use api::{self, Resource};
use sys::certificates;

/// Which cluster and namespace; shared by every verb.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// The kubeconfig file; without it $KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// The namespace; without it the kubeconfig's, then `default`
    #[arg(long, short, global = true)]
    namespace: Option<String>,
}

/// A connected client with the namespace that requests go to.
pub struct Cluster {
    client: Client,
    pub namespace: String,
    url: String,
    /// DER, as the kubeconfig has it.
    authority: Option<Vec<u8>>,
}

/// What a request carries besides its path.
pub enum Payload<'a> {
    None,
    Json(&'a Value),
    /// A body with its content type, such as one of the patches.
    Typed(&'static str, &'a Value),
}

pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";

impl ClusterArgs {
    /// Of a kubeconfig.
    pub fn of(kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: Some(kubeconfig.to_owned()),
            namespace: None,
        }
    }

    /// Reads the kubeconfig and makes a client; no request is sent yet.
    pub async fn connect(&self) -> Result<Cluster> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?,
            None => Kubeconfig::read().context(
                "no kubeconfig: pass --kubeconfig FILE or set KUBECONFIG (after `cargo xtask up`: \
                 `source .dev/env`)",
            )?,
        };
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        // Watches and followed logs are quiet for as long as nothing happens.
        config.read_timeout = None;
        let namespace = self.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let authority = config
            .root_cert
            .as_ref()
            .and_then(|all| all.first().cloned());
        let client = Client::try_from(config)?;
        Ok(Cluster {
            client,
            namespace,
            url,
            authority,
        })
    }
}

impl Cluster {
    /// Sends one request and gives its JSON answer; warnings of the server go to stderr.
    pub async fn call(&self, method: Method, path: &str, payload: Payload<'_>) -> Result<Value> {
        self.call_as(method, path, payload, JSON).await
    }

    /// The same with another `Accept`.
    pub async fn call_as(
        &self,
        method: Method,
        path: &str,
        payload: Payload<'_>,
        accept: &str,
    ) -> Result<Value> {
        let request = request(method, path, payload, accept)?;
        let response = self
            .client
            .send(request.map(Body::from))
            .await
            .map_err(|e| self.lost(e))?;
        for warning in response.headers().get_all("warning") {
            let text = warning.to_str().unwrap_or_default();
            // RFC 7234 §5.5: code, agent, quoted text.
            let text = text.splitn(3, ' ').nth(2).unwrap_or(text).trim_matches('"');
            eprintln!(
                "Warning: {}",
                output::printable(&text.replace("\\\"", "\""))
            );
        }
        let code = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !code.is_success() {
            bail!(refusal(code.as_u16(), &bytes));
        }
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, Payload::None).await
    }

    /// The object, or nothing if the server says 404.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if error
                    .to_string()
                    .starts_with("Error from server (NotFound)") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The answer line by line, for watches and logs.
    pub async fn lines(&self, path: &str, accept: &str) -> Result<impl AsyncBufRead + use<>> {
        let request = request(Method::GET, path, Payload::None, accept)?;
        self.client
            .request_stream(request)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) => {
                    anyhow!("Error from server ({}): {}", status.reason, status.message)
                }
                other => self.lost(other),
            })
    }

    /// The path of a resource's collection or, with a name, of one object.
    pub fn path(&self, resource: &Resource, name: Option<&str>) -> String {
        path(resource, Some(&self.namespace), name)
    }

    /// For what only the client library does.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Why a stream was not opened.
    pub fn refused(&self, error: kube::Error) -> anyhow::Error {
        match error {
            kube::Error::Api(status) => {
                anyhow!("Error from server ({}): {}", status.reason, status.message)
            }
            other => self.lost(other),
        }
    }

    /// The URL that the kubeconfig names.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// By which a join token names the cluster.
    pub fn authority_fingerprint(&self) -> Result<String> {
        let authority = self.authority.as_ref();
        let authority = authority.context("the kubeconfig names no certificate authority")?;
        Ok(certificates::fingerprint(authority))
    }

    fn lost(&self, error: kube::Error) -> anyhow::Error {
        anyhow!(
            "cannot reach the cluster at {}: {error}; is it running? (`cargo xtask up` starts it)",
            self.url
        )
    }
}

/// The resource that a word names: plural, singular, short name, kind, or `plural.group`.
pub fn resource(word: &str) -> Result<&'static Resource> {
    let lower = word.to_lowercase();
    let named = |r: &&'static Resource| {
        r.plural == lower
            || r.singular == lower
            || r.short_names.iter().any(|name| *name == lower)
            || r.qualified() == lower
    };
    let mut all = api::resources().iter().map(|r| &**r);
    all.find(named).ok_or_else(|| {
        let known: Vec<_> = api::resources().iter().map(|r| &*r.plural).collect();
        anyhow!(
            "the server doesn't have a resource type {word:?}; it has {}",
            known.join(", ")
        )
    })
}

/// `TYPE NAME…`, `TYPE/NAME…` or `TYPE` alone as pairs of resource and name.
pub fn targets(words: &[String]) -> Result<Vec<(&'static Resource, Option<String>)>> {
    let first = words
        .first()
        .context("say which: TYPE, TYPE NAME or TYPE/NAME")?;
    if words.iter().any(|w| w.contains('/')) {
        return words
            .iter()
            .map(|word| {
                let (kind, name) = word
                    .split_once('/')
                    .with_context(|| format!("{word:?} is not of the form TYPE/NAME"))?;
                Ok((resource(kind)?, Some(name.to_owned())))
            })
            .collect();
    }
    let mut found = Vec::new();
    for kind in first.split(',') {
        let kinds = match kind {
            "all" => api::resources()
                .iter()
                .map(|r| &**r)
                .filter(|r| r.categories.iter().any(|category| category == "all"))
                .collect(),
            kind => vec![resource(kind)?],
        };
        for resource in kinds {
            match &words[1..] {
                [] => found.push((resource, None)),
                names => found.extend(names.iter().map(|n| (resource, Some(n.clone())))),
            }
        }
    }
    Ok(found)
}

/// The path of a collection or object; `namespace` None means all namespaces.
pub fn path(resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match &*resource.group {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if let (true, Some(namespace)) = (resource.namespaced(), namespace) {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{}", resource.plural);
    if let Some(name) = name {
        path += &format!("/{name}");
    }
    path
}

/// Percent-encodes a query value (RFC 3986 §2.3 keeps the unreserved characters).
pub fn query(value: &str) -> String {
    value
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn request(
    method: Method,
    path: &str,
    payload: Payload<'_>,
    accept: &str,
) -> Result<Request<Vec<u8>>> {
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header("accept", accept);
    let request = match payload {
        Payload::None => builder.body(Vec::new()),
        Payload::Json(value) => builder
            .header("content-type", JSON)
            .body(serde_json::to_vec(value)?),
        Payload::Typed(kind, value) => builder
            .header("content-type", kind)
            .body(serde_json::to_vec(value)?),
    };
    request.with_context(|| format!("{path:?} is no path of the API"))
}

/// `Error from server (NotFound): pods "x" not found`
fn refusal(code: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) => format!(
            "Error from server ({}): {}",
            status.reason.unwrap_or_else(|| code.to_string()),
            status.message.unwrap_or_default()
        ),
        Err(_) => format!(
            "Error from server ({code}): {}",
            String::from_utf8_lossy(body)
        ),
    }
}

/// Where the control plane answers
///
/// Examples:
///   orchestrator cluster-info
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ClusterInfo {
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl ClusterInfo {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let version = cluster.get("/version").await?;
        let version = version["gitVersion"]
            .as_str()
            .unwrap_or("unknown")
            .to_owned();
        println!(
            "Kubernetes control plane is running at {} ({version})",
            cluster.url
        );
        // What the cluster itself has there, as kubectl finds it: the DNS for one.
        let services = "/api/v1/namespaces/kube-system/services";
        let own = "labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
        let list = cluster.get(&format!("{services}?{own}")).await?;
        for service in list["items"].as_array().into_iter().flatten() {
            let labels = &service["metadata"]["labels"];
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let title = labels["kubernetes.io/name"].as_str().unwrap_or(name);
            let port = service["spec"]["ports"][0]["name"].as_str();
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let url = cluster.url.to_string();
            let url = url.trim_end_matches('/');
            println!("{title} is running at {url}{services}/{name}{port}/proxy");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_found_by_each_of_its_names() {
        for word in [
            "deployments",
            "deployment",
            "deploy",
            "Deployment",
            "deployments.apps",
        ] {
            assert_eq!(resource(word).unwrap().kind, "Deployment");
        }
        assert!(
            resource("cats")
                .unwrap_err()
                .to_string()
                .contains("\"cats\"")
        );
    }

    #[test]
    fn words_become_targets_in_both_forms() {
        let words = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let names = |s: &str| -> Vec<String> {
            let found = targets(&words(s)).unwrap();
            found
                .iter()
                .map(|(r, n)| format!("{}:{}", r.plural, n.as_deref().unwrap_or("*")))
                .collect()
        };
        assert_eq!(names("po"), ["pods:*"]);
        assert_eq!(names("po a b"), ["pods:a", "pods:b"]);
        assert_eq!(names("po/a svc/b"), ["pods:a", "services:b"]);
        assert_eq!(names("po,svc"), ["pods:*", "services:*"]);
        assert!(targets(&words("po/a b")).is_err());
    }

    #[test]
    fn a_query_value_is_percent_encoded() {
        assert_eq!(query("a in (b,c)"), "a%20in%20%28b%2Cc%29");
    }
}
