//! Has the node's certificate name the node's addresses as they change: whoever asks the agent dials
//! one of them.

use std::time::Duration;

use tokio::sync::watch;

use super::join::{self, Applicant, Membership};
use crate::datapath::Addrs;
use crate::sys::Shutdown;

/// A server that hangs must not keep the node from trying again.
const PATIENCE: Duration = Duration::from_secs(8);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Renews `membership` whenever `addrs`, the node's, have one that its certificate lacks, until
/// shutdown.
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
                Duration::MAX
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

async fn renew(
    applicant: &Applicant,
    membership: &watch::Sender<Membership>,
) -> Result<(), String> {
    let member = membership.borrow().clone();
    if member.covers(applicant) {
        return Ok(());
    }
    let renewed = tokio::time::timeout(PATIENCE, join::renew(applicant, &member)).await;
    let renewed = renewed.map_err(|_| "no answer".to_owned())?;
    membership.send_replace(renewed.map_err(|error| error.to_string())?);
    tracing::info!(addrs = %applicant.node_ips, "the node has a new certificate");
    Ok(())
}
