//! `orchestrator port-forward`

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::cluster::{self, Cluster};
use super::{ClusterArgs, pods};

/// Forward local ports to a pod
///
/// Examples:
///   orchestrator port-forward web 8080:80
///   orchestrator port-forward svc/web :http --address 127.0.0.1,::1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct PortForward {
    /// POD or TYPE/NAME
    pod: String,
    /// [LOCAL:]REMOTE; without LOCAL the same port, with an empty one any that is free
    #[arg(required = true)]
    ports: Vec<String>,
    /// Where to listen
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl PortForward {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let service = service(&cluster, &self.pod).await?;
        let pod = pods::find(&cluster, &self.pod).await?;
        if pod["status"]["phase"] != "Running" {
            bail!(
                "unable to forward port because pod is not running. Current status={}",
                pod["status"]["phase"].as_str().unwrap_or_default()
            );
        }
        let (api, name) = (pods::api(&cluster, &pod), api::meta::name(&pod).to_owned());
        let mut tasks = tokio::task::JoinSet::new();
        for text in &self.ports {
            let (local, remote) = parse(text)?;
            let remote = remote_port(&pod, service.as_ref(), remote)?;
            let local = match local {
                Local::Same => remote_number(text).unwrap_or(remote),
                Local::Any => 0,
                Local::Port(port) => port,
            };
            for listener in listen(&self.address, local).await? {
                println!("Forwarding from {} -> {remote}", listener.local_addr()?);
                tasks.spawn(serve(listener, api.clone(), name.clone(), remote));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a listener failed")??;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Local {
    Same,
    Any,
    Port(u16),
}

/// `[LOCAL:]REMOTE`, where the remote port may be a name.
fn parse(text: &str) -> Result<(Local, &str)> {
    let (local, remote) = match text.split_once(':') {
        None => (Local::Same, text),
        Some(("" | "0", remote)) => (Local::Any, remote),
        Some((local, remote)) => {
            let port = local
                .parse()
                .with_context(|| format!("{local:?} is not a port"))?;
            (Local::Port(port), remote)
        }
    };
    if remote.is_empty() || remote == "0" {
        bail!("remote port must be > 0");
    }
    Ok((local, remote))
}

fn remote_number(text: &str) -> Option<u16> {
    text.parse().ok()
}

/// The Service, if the word names one.
async fn service(cluster: &Cluster, word: &str) -> Result<Option<Value>> {
    let Some((kind, name)) = word.split_once('/') else {
        return Ok(None);
    };
    let kind = cluster::resource(kind)?;
    if kind.kind != "Service" {
        return Ok(None);
    }
    cluster.get(&cluster.path(kind, Some(name))).await.map(Some)
}

/// The port of the pod that is meant: through a Service its target, by a name the container's.
fn remote_port(pod: &Value, service: Option<&Value>, remote: &str) -> Result<u16> {
    let mut wanted = Value::from(remote);
    if let Some(service) = service {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let is_it = |port: &&Value| port["name"] == remote || port["port"].to_string() == remote;
        let found = { ports }.find(is_it);
        let found = found.with_context(|| format!("the Service has no port {remote}"))?;
        wanted = match &found["targetPort"] {
            Value::Null => found["port"].clone(),
            target => target.clone(),
        };
    }
    let number = match &wanted {
        Value::Number(number) => number.as_u64(),
        other => other.as_str().and_then(|text| text.parse().ok()),
    };
    if let Some(number) = number {
        return u16::try_from(number).with_context(|| format!("{number} is not a port"));
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| port["name"] == wanted);
    let port = found.and_then(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
    port.with_context(|| format!("the pod has no port named {wanted}"))
}

async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut why = None;
    for address in addresses {
        let places: &[&str] = match address.as_str() {
            "localhost" => &["127.0.0.1", "::1"],
            other => &[other],
        };
        for place in places {
            // Both families of localhost have the same port.
            let port = match listeners.first() {
                Some(first) if port == 0 => first.local_addr()?.port(),
                _ => port,
            };
            let place: std::net::IpAddr = place
                .parse()
                .with_context(|| format!("{place:?} is not an address"))?;
            match TcpListener::bind(SocketAddr::new(place, port)).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => why = Some(error),
            }
        }
    }
    match why {
        Some(why) if listeners.is_empty() => {
            Err(why).context("unable to listen on any of the requested ports")
        }
        _ => Ok(listeners),
    }
}

async fn serve(listener: TcpListener, api: Api<Pod>, pod: String, port: u16) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        println!("Handling connection for {}", listener.local_addr()?.port());
        let (api, pod) = (api.clone(), pod.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(stream, &api, &pod, port).await {
                eprintln!("an error occurred forwarding {port}: {error:#}");
            }
        });
    }
}

async fn forward(mut near: TcpStream, api: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    let mut forwarded = api.portforward(pod, &[port]).await?;
    let error = forwarded.take_error(port);
    let mut far = forwarded.take_stream(port).context("no stream")?;
    let copied = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    drop(far);
    if let Some(error) = error
        && let Some(why) = error.await
    {
        bail!("{why}");
    }
    // A client that ends its connection early breaks nothing.
    let _ = copied;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_pairs_of_which_the_first_may_be_left_out() {
        for (text, expected) in [
            ("80", Some((Local::Same, "80"))),
            ("8080:80", Some((Local::Port(8080), "80"))),
            (":80", Some((Local::Any, "80"))),
            ("0:http", Some((Local::Any, "http"))),
            ("x:80", None),
            ("80:", None),
            ("80:0", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_of_a_service_is_that_of_its_pod() {
        let pod = json!({"spec": {"containers": [{"ports": [
            {"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"},
            {"port": 81, "targetPort": 9000}, {"port": 82}]}});
        let port = |remote: &str| remote_port(&pod, Some(&service), remote).ok();
        assert_eq!(port("80"), Some(8080));
        assert_eq!(port("web"), Some(8080));
        assert_eq!(port("81"), Some(9000));
        assert_eq!(port("82"), Some(82));
        assert_eq!(port("83"), None);
        assert_eq!(remote_port(&pod, None, "http").ok(), Some(8080));
        assert_eq!(remote_port(&pod, None, "99").ok(), Some(99));
    }
}
