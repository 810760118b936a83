//! Renews the node's certificate: when it is due, when the node's addresses change, which it names, and
//! when the server does not take it any more: a token makes the node a member again.
//! Both sides of the agent use the new one without a restart: `serve` shows it, `client` asks with it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::join::{self, Applicant, Membership};
use datapath::Addrs;
use sys::Shutdown;

/// A server that hangs must not keep the node from trying again.
const PATIENCE: Duration = Duration::from_secs(8);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Renews `membership` whenever it is due, `addrs`, the node's, have one that its certificate lacks, or
/// the server has `refused` it, until shutdown.
pub async fn run(
    mut applicant: Applicant,
    membership: watch::Sender<Membership>,
    mut addrs: watch::Receiver<Addrs>,
    refused: Arc<Notify>,
    shutdown: Shutdown,
) {
    let mut retry = FIRST_RETRY;
    let mut is_refused = false;
    loop {
        applicant.node_ips = *addrs.borrow_and_update();
        let renewed = shutdown
            .unless(renew(&applicant, &membership, is_refused))
            .await;
        let wait = match renewed {
            None => return,
            Some(Ok(())) => {
                retry = FIRST_RETRY;
                is_refused = false;
                until_due(&applicant, &membership, Timestamp::now())
            }
            Some(Err(why)) => {
                tracing::warn!(why, "the node's certificate was not renewed; trying again");
                let longer = (retry * 2).min(LAST_RETRY);
                std::mem::replace(&mut retry, longer)
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            changed = addrs.changed() => if changed.is_err() { return },
            () = refused.notified(), if !is_refused => is_refused = true,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// At most a day: the clock may be set meanwhile.
fn until_due(
    applicant: &Applicant,
    membership: &watch::Sender<Membership>,
    now: Timestamp,
) -> Duration {
    const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
    let left = membership.borrow().due(applicant).duration_since(now);
    Duration::try_from(left)
        .unwrap_or_default()
        .min(LONGEST_WAIT)
}

async fn renew(
    applicant: &Applicant,
    membership: &watch::Sender<Membership>,
    is_refused: bool,
) -> Result<(), String> {
    let member = membership.borrow().clone();
    let now = Timestamp::now();
    if !is_refused && member.covers(applicant) && member.due(applicant) > now {
        return Ok(());
    }
    let ask = async {
        if member.has_ended(now) {
            // The server was away for too long: only a token helps, and the node's key.
            join::join(applicant).await
        } else {
            join::renew(applicant, &member).await
        }
    };
    let renewed = tokio::time::timeout(PATIENCE, ask).await;
    let renewed = renewed.map_err(|_| "no answer".to_owned())?;
    membership.send_replace(renewed.map_err(|error| error.to_string())?);
    tracing::info!(addrs = %applicant.node_ips, "the node has a new certificate");
    Ok(())
}
