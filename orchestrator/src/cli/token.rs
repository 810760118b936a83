//! `orchestrator token`: what machines join the cluster with.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::{Table, presets::NOTHING};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::duration;
use super::workload::cluster::{self, Cluster, ClusterArgs, Payload};
use super::workload::output;
use api::join_token::{self, JoinToken, Kept};
use api::{self, Resource};
use sys::random;

/// Make, list and delete the tokens that machines join with
///
/// Examples:
///   orchestrator token create
///   orchestrator token create --ttl 1h --description "rack 7"
///   orchestrator token list
///   orchestrator token delete abc123
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token and print the line that a machine joins with
    Create {
        /// How long machines may join with it: 30m, 24h, 7d; 0 for ever
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ttl)]
        ttl: Duration,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List the tokens, without their secrets
    List,
    /// Delete a token: nothing joins with it any more; nodes that did stay
    Delete {
        /// The id, the middle part of the token
        id: String,
    },
}

pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cluster = args.cluster.connect().await?;
        match args.verb {
            Verb::Create { ttl, description } => create(&cluster, ttl, &description).await,
            Verb::List => list(&cluster).await,
            Verb::Delete { id } => delete(&cluster, &id).await,
        }
    })
}

async fn create(cluster: &Cluster, ttl: Duration, description: &str) -> Result<()> {
    let token = JoinToken {
        authority: cluster.authority_fingerprint()?,
        id: random::word(join_token::ID_LENGTH),
        secret: random::word(join_token::SECRET_LENGTH),
    };
    let ends = match ttl {
        Duration::ZERO => None,
        ttl => Some(Timestamp::now().checked_add(ttl)?),
    };
    let secret = token.to_secret(ends, description);
    let path = path(None)?;
    cluster
        .call(Method::POST, &path, Payload::Json(&secret))
        .await?;
    let server = server(cluster).await?;
    match ends {
        Some(ends) => eprintln!("# until {ends:.0}, on the machine that joins, as root:"),
        None => eprintln!(
            "# this token does not end: delete it when it is not needed \
             (orchestrator token delete {})",
            token.id
        ),
    }
    println!(
        "orchestrator agent --server {server} --token {} --node-ip <the machine's address>",
        token.text()
    );
    Ok(())
}

async fn list(cluster: &Cluster) -> Result<()> {
    let of_type = format!("type={}", join_token::TYPE);
    let path = format!("{}?fieldSelector={}", path(None)?, cluster::query(&of_type));
    let secrets = cluster.get(&path).await?;
    let items = secrets["items"].as_array().into_iter().flatten();
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["ID", "ENDS", "DESCRIPTION"]);
    for kept in items.filter_map(Kept::of) {
        table.add_row([
            kept.id.clone(),
            ends_text(&kept, Timestamp::now()),
            output::one_line(&kept.description),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn delete(cluster: &Cluster, id: &str) -> Result<()> {
    let path = path(Some(&join_token::secret_name(id)))?;
    if cluster.find(&path).await?.is_none() {
        bail!("there is no token {id}: `orchestrator token list` shows all");
    }
    cluster.call(Method::DELETE, &path, Payload::None).await?;
    println!("token {id} deleted");
    Ok(())
}

fn ends_text(kept: &Kept, now: Timestamp) -> String {
    match kept.ends {
        None => "never".to_owned(),
        Some(ends) if ends <= now => "has ended".to_owned(),
        Some(ends) => {
            let left = ends.duration_since(now);
            let minutes = left.as_secs() / SignedDuration::from_mins(1).as_secs();
            format!("in {} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// Where nodes reach the server: what it advertises, which an administrator's kubeconfig need not.
async fn server(cluster: &Cluster) -> Result<String> {
    let endpoints = api::find("", "v1", "endpoints").context("the API has endpoints")?;
    let path = cluster::path(endpoints, Some("default"), Some("kubernetes"));
    let found = cluster.find(&path).await?.unwrap_or_default();
    Ok(advertised(&found).unwrap_or_else(|| cluster.url().trim_end_matches('/').to_owned()))
}

fn advertised(endpoints: &Value) -> Option<String> {
    let subset = &endpoints["subsets"][0];
    let address: std::net::IpAddr = subset["addresses"][0]["ip"].as_str()?.parse().ok()?;
    let port = u16::try_from(subset["ports"][0]["port"].as_u64()?).ok()?;
    Some(format!(
        "https://{}",
        std::net::SocketAddr::new(address, port)
    ))
}

fn path(name: Option<&str>) -> Result<String> {
    let secrets: &Resource = api::find("", "v1", "secrets").context("the API has Secrets")?;
    Ok(cluster::path(secrets, Some(join_token::NAMESPACE), name))
}

/// `0` without a unit as well.
fn ttl(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => duration::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_given_the_address_that_the_server_advertises() {
        let endpoints =
            |ip: &str| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 6443}]}]});
        let url = |ip: &str| advertised(&endpoints(ip));
        assert_eq!(
            url("172.31.0.1").as_deref(),
            Some("https://172.31.0.1:6443")
        );
        assert_eq!(url("fd00::1").as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(advertised(&Value::Null), None);
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_told_and_for_ever_by_a_zero() {
        assert_eq!(ttl("0"), Ok(Duration::ZERO));
        assert_eq!(ttl("24h"), Ok(Duration::from_secs(24 * 3600)));
        assert!(ttl("soon").is_err());
    }
}
