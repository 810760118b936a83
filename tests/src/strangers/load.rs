//! The clients that are served meanwhile: reads, lists and writes at a fixed rate.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OBJECTS: u32 = 100;

/// Makes the objects that are asked for.
pub async fn prepare(client: &Client) -> Result<()> {
    let request = Request::post("/api/v1/nodes").header("content-type", "application/json");
    let request = request.body(super::stolen_node().to_string().into_bytes())?;
    client.request::<Value>(request).await?;
    for number in 0..OBJECTS {
        let object = json!({
            "metadata": {"name": format!("load-{number}")}, "data": {"text": "x".repeat(500)},
        });
        let request = Request::post(CONFIG_MAPS).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes())?;
        client.request::<Value>(request).await?;
    }
    Ok(())
}

/// Milliseconds from the time at which each request should have been sent to its answer: a server
/// that stands still is late for all that would have come.
pub async fn run(client: &Client, per_second: u32, lasts: Duration) -> Result<Vec<f64>> {
    let gap = Duration::from_secs(1) / per_second;
    let began = Instant::now();
    let count = per_second * u32::try_from(lasts.as_secs())?;
    let mut sent = FuturesUnordered::new();
    for number in 0..count {
        let due = began + gap * number;
        sent.push(async move {
            sleep_until(due).await;
            ask(client, number).await?;
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut times = Vec::new();
    while let Some(time) = sent.next().await {
        times.push(time?);
    }
    ensure!(!times.is_empty(), "nothing was asked");
    Ok(times)
}

/// Six reads, two lists and two writes of ten requests.
async fn ask(client: &Client, number: u32) -> Result<()> {
    let object = format!("{CONFIG_MAPS}/load-{}", number % OBJECTS);
    let request = match number % 10 {
        0 | 5 => Request::get(CONFIG_MAPS).body(Vec::new())?,
        2 | 7 => Request::patch(object)
            .header("content-type", "application/merge-patch+json")
            .body(
                json!({"data": {"number": number.to_string()}})
                    .to_string()
                    .into_bytes(),
            )?,
        _ => Request::get(object).body(Vec::new())?,
    };
    client.request_text(request).await?;
    Ok(())
}

/// The time within which 99 of 100 were answered.
pub fn p99(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}
