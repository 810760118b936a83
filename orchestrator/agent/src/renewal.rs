//! Renews the node's certificate: when it is due, and when the node's addresses change, which it names.
//! Both sides of the agent use the new one without a restart: `serve` shows it, `client` asks with it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::join::{self, Applicant, Membership};
use datapath::Addrs;
use sys::Shutdown;

/// A server that hangs must not keep the node from trying again.
const PATIENCE: Duration = Duration::from_secs(8);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Renews `membership` whenever it is due or `addrs`, the node's, have one that its certificate lacks,
/// until shutdown.
pub async fn run(
    mut applicant: Applicant,
    membership: watch::Sender<Membership>,
    mut addrs: watch::Receiver<Addrs>,
    shutdown: Shutdown,
) {
    let mut retry = FIRST_RETRY;
    loop {
        applicant.node_ips = *addrs.borrow_and_update();
        let renewed = shutdown.unless(renew(&applicant, &membership)).await;
        let wait = match renewed {
            None => return,
            Some(Ok(())) => {
                retry = FIRST_RETRY;
                until_due(&applicant, &membership, Timestamp::now())
            }
            Some(Err(why)) => {
                tracing::warn!(why, "the node's certificate was not renewed; trying again");
                let longer = (retry * 2).min(LAST_RETRY);
                std::mem::replace(&mut retry, longer)
            }
        };
        let changed = tokio::time::timeout(wait, addrs.changed());
        match shutdown.unless(changed).await {
            None | Some(Ok(Err(_))) => return,
            Some(Ok(Ok(())) | Err(_)) => {}
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
) -> Result<(), String> {
    let member = membership.borrow().clone();
    let now = Timestamp::now();
    if member.covers(applicant) && member.due(applicant) > now {
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
