//! 1,000 requests a second, as clients make them: each at its time, whether or not the one before is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::NAMESPACE;
use super::table::Figure;
use crate::api_load::connection::{Ask, Target};

const RATE: usize = 1_000;
/// Enough that none of them is ever late for want of a connection.
const CONNECTIONS: usize = 64;
/// Objects that are written and read.
const OBJECTS: usize = 500;
const MERGE: &str = "application/merge-patch+json";

/// The figures of writes and gets; latency is from the time at which a request was due.
pub async fn mixed(target: &Target, length: Duration) -> Result<Vec<Figure>> {
    let mut connection = target.connect().await?;
    for number in 0..OBJECTS {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("mixed-{number}")},
            "data": {"text": "x".repeat(1000)},
        });
        connection.good(Ask::post(config_maps(), body)).await?;
    }
    let count = RATE * usize::try_from(length.as_secs())?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (target, next) = (target.clone(), next.clone());
        workers.spawn(async move {
            let mut connection = target.connect().await?;
            let (mut writes, mut gets) = (Vec::new(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok((writes, gets));
                }
                let due = began + Duration::from_secs(1) * u32::try_from(number)? / RATE as u32;
                tokio::time::sleep_until(due).await;
                let is_write = number % 2 == 0;
                connection.good(ask(number, is_write)).await?;
                let times_ms = if is_write { &mut writes } else { &mut gets };
                times_ms.push(due.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let (mut writes, mut gets) = (Vec::new(), Vec::new());
    while let Some(done) = workers.join_next().await {
        let (more_writes, more_gets) = done??;
        writes.extend(more_writes);
        gets.extend(more_gets);
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    Ok(vec![
        Figure::of("mixed load", "/s", rate).at_least(0.99 * RATE as f64),
        Figure::of("its writes, p99", "ms", p99(&mut writes)).at_most(20.0),
        Figure::of("its gets, p99", "ms", p99(&mut gets)).at_most(5.0),
    ])
}

fn ask(number: usize, is_write: bool) -> Ask {
    let path = format!("{}/mixed-{}", config_maps(), number / 2 % OBJECTS);
    match is_write {
        true => Ask::patch(path, MERGE, json!({"data": {"number": number.to_string()}})),
        false => Ask::get(path),
    }
}

fn config_maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn p99(times_ms: &mut [f64]) -> f64 {
    times_ms.sort_by(f64::total_cmp);
    times_ms
        .get(times_ms.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}
