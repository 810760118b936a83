//! The members of an etcd that is ours: listed, added, removed.
//!
//! ```text
//!  add_learner ─▶ its etcd starts, is sent everything ─▶ promote: it votes
//! ```
//!
//! A member that joins is a learner first (etcd 3.4): while it is not there yet, or never comes, the others need
//! no vote of it.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::rpc::{Repeat, Rpc};
use super::{EtcdConfig, unread, wire};
use crate::{Result, StoreError};

const LIST: &str = "/etcdserverpb.Cluster/MemberList";
const ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const DEACTIVATE: i32 = 2;
const NO_SPACE: i32 = 1;
const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
/// How soon a member that has joined is asked where others do not answer.
const LEARN_INTERVAL: Duration = Duration::from_secs(10);
/// What etcd 3.4 says of a learner that has not caught up.
const BEHIND: &str = "in sync with leader";

/// Asks an etcd about its members.
#[derive(Clone)]
pub struct Members(Arc<Rpc>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty: its etcd has not started yet.
    pub name: String,
    /// URL by which the others reach it.
    pub peer: String,
    /// `host:port` for clients.
    pub client: Option<String>,
    /// It has no vote yet.
    pub is_learner: bool,
}

impl Members {
    /// Connects when it is asked. The error says what of the settings is wrong.
    pub fn connect(config: &EtcdConfig) -> Result<Self, String> {
        Ok(Self(Arc::new(Rpc::new(config)?)))
    }

    pub(super) fn of(rpc: Arc<Rpc>) -> Self {
        Self(rpc)
    }

    /// Has members that join later asked as well.
    pub(super) async fn learn_in_turn(self) {
        loop {
            tokio::time::sleep(LEARN_INTERVAL).await;
            let learnt = self.list().await.map(|all| {
                let clients = all.into_iter().filter_map(|member| member.client);
                self.0.learn(clients)
            });
            match learnt {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(why, "a member of etcd is not asked"),
                Err(error) => tracing::debug!(%error, "the members of etcd are not known"),
            }
        }
    }

    /// As the member that is asked knows them; it needs no others for that.
    pub async fn list(&self) -> Result<Vec<Member>> {
        let asked = self
            .0
            .ask::<_, wire::MembersResponse>(LIST, &wire::Empty {}, Repeat::Safe);
        let answer = asked.await.map_err(unread)?;
        Ok(answer.members.into_iter().map(Member::from).collect())
    }

    /// Adds one that has no vote yet, and says which there are then. An etcd takes one at a time.
    pub async fn add_learner(&self, peer: &str) -> Result<(Member, Vec<Member>)> {
        let request = wire::MemberAddRequest {
            peer_urls: vec![peer.to_owned()],
            is_learner: true,
        };
        let asked = self
            .0
            .ask::<_, wire::MemberAddResponse>(ADD, &request, Repeat::Unsent);
        let answer = asked.await.map_err(Failure::of_commit)?;
        let nothing =
            || StoreError::Unavailable("etcd added a member and did not say which".into());
        let member = answer.member.ok_or_else(nothing)?.into();
        Ok((
            member,
            answer.members.into_iter().map(Member::from).collect(),
        ))
    }

    /// Gives a learner its vote. False: it has not caught up yet.
    pub async fn promote(&self, id: u64) -> Result<bool> {
        let request = wire::MemberRequest { id };
        let asked = self
            .0
            .ask::<_, wire::MembersResponse>(PROMOTE, &request, Repeat::Unsent);
        match asked.await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(why)) if why.contains(BEHIND) => Ok(false),
            Err(failure) => Err(failure.of_commit()),
        }
    }

    /// Has the member that is asked give free pages of its file back. It answers nothing else meanwhile.
    pub async fn defragment(&self) -> Result<()> {
        let asked = self
            .0
            .ask::<_, wire::HeaderOnly>(DEFRAGMENT, &wire::Empty {}, Repeat::Unsent);
        asked.await.map_err(Failure::of_commit)?;
        Ok(())
    }

    /// Takes the alarms of members without space back, so that etcd takes writes again: how many there were.
    pub async fn disarm(&self) -> Result<usize> {
        let list = wire::AlarmRequest::default();
        let asked = self
            .0
            .ask::<_, wire::AlarmResponse>(ALARM, &list, Repeat::Safe);
        let raised = asked.await.map_err(unread)?.alarms;
        let raised = raised.into_iter().filter(|alarm| alarm.alarm == NO_SPACE);
        let mut count = 0;
        for alarm in raised {
            let disarm = wire::AlarmRequest {
                action: DEACTIVATE,
                member_id: alarm.member_id,
                alarm: NO_SPACE,
            };
            let asked = self
                .0
                .ask::<_, wire::AlarmResponse>(ALARM, &disarm, Repeat::Safe);
            asked.await.map_err(Failure::of_commit)?;
            count += 1;
        }
        Ok(count)
    }

    /// Takes a member out, whether it runs or not.
    pub async fn remove(&self, id: u64) -> Result<()> {
        let request = wire::MemberRequest { id };
        let asked = self
            .0
            .ask::<_, wire::MembersResponse>(REMOVE, &request, Repeat::Unsent);
        asked.await.map_err(Failure::of_commit)?;
        Ok(())
    }
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        let client = member.client_urls.first();
        let client = client.and_then(|url| Some(url.split_once("://")?.1.to_owned()));
        Self {
            id: member.id,
            name: member.name,
            peer: member.peer_urls.into_iter().next().unwrap_or_default(),
            client,
            is_learner: member.is_learner,
        }
    }
}
