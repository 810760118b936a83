//! Where etcd is and who asks it.

use std::net::IpAddr;
use std::time::Duration;

/// What the store keys begin with where the address names nothing.
const PREFIX: &str = "/orchestrator";

/// Longer than an election, shorter than clients of the API wait.
const TIMEOUT: Duration = Duration::from_secs(8);

/// The members of one etcd, how they are reached, and where in it the store lies. Holds secrets, so
/// it is never printed.
#[derive(Clone)]
pub struct EtcdConfig {
    /// `host:port` of each member; at least one.
    pub members: Vec<String>,
    /// What every key of this store begins with: `/` and a name, no `/` at the end.
    pub prefix: String,
    /// None: connections are neither encrypted nor authenticated.
    pub tls: Option<EtcdTls>,
    pub user: Option<EtcdUser>,
    /// How long a request may take with all its attempts.
    pub timeout: Duration,
    /// Whether members that join later are asked, too.
    pub learns_members: bool,
}

/// PEM texts.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who must have signed the members' certificates.
    pub authority: Vec<u8>,
    /// The certificate that is shown to etcd, and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A user of etcd's own authentication.
#[derive(Clone)]
pub struct EtcdUser {
    pub name: String,
    pub password: String,
}

impl EtcdConfig {
    /// Reads `etcd://host:2379,host2:2379/prefix`. The port is 2379 and the prefix `/orchestrator`
    /// where they are missing. The error is a sentence without its subject.
    pub fn parse(address: &str) -> Result<Self, String> {
        let rest = address
            .strip_prefix("etcd://")
            .ok_or("must begin with etcd://")?;
        if rest.contains('@') {
            return Err("must hold no user or password: give --etcd-user".to_owned());
        }
        if rest.contains(['?', '#', ' ']) {
            return Err("is hosts, and a prefix behind a slash: nothing else".to_owned());
        }
        let (hosts, prefix) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let members: Vec<String> = hosts.split(',').map(member).collect::<Result<_, _>>()?;
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { PREFIX } else { prefix };
        if prefix.contains("//") {
            return Err("has an empty name in its prefix".to_owned());
        }
        Ok(Self {
            members,
            prefix: prefix.to_owned(),
            tls: None,
            user: None,
            timeout: TIMEOUT,
            learns_members: false,
        })
    }

    /// Whether anything that this etcd is told crosses a network without encryption.
    pub fn is_exposed(&self) -> bool {
        self.tls.is_none() && !self.members.iter().all(|member| is_local(member))
    }
}

fn member(text: &str) -> Result<String, String> {
    let is_bare = match text.rfind(']') {
        Some(end) => !text[end..].contains(':'),
        None => !text.contains(':'),
    };
    let full = match is_bare {
        true => format!("{text}:2379"),
        false => text.to_owned(),
    };
    let wrong = || format!("names {text:?}, which is no host or host:port");
    let (host, port) = full.rsplit_once(':').ok_or_else(wrong)?;
    let is_host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(v6) => v6.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        }
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    (is_host && is_port).then_some(full).ok_or_else(wrong)
}

fn is_local(member: &str) -> bool {
    let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_hosts_and_a_prefix() {
        let read = |address| EtcdConfig::parse(address).map(|it| (it.members.join(" "), it.prefix));
        let is = |members: &str, prefix: &str| Ok((members.to_owned(), prefix.to_owned()));
        assert_eq!(
            read("etcd://10.0.0.1"),
            is("10.0.0.1:2379", "/orchestrator")
        );
        assert_eq!(read("etcd://a:1,b-2.c:3/x/y/"), is("a:1 b-2.c:3", "/x/y"));
        assert_eq!(read("etcd://[::1]/p"), is("[::1]:2379", "/p"));
        assert_eq!(read("etcd://[::1]:9"), is("[::1]:9", "/orchestrator"));
        for wrong in [
            "http://a",
            "etcd://",
            "etcd://a,,b",
            "etcd://a:0",
            "etcd://a:x",
            "etcd://u:p@a",
            "etcd://a?x",
            "etcd://a/x//y",
            "etcd://::1",
            "etcd://[a]:1",
            "etcd://a b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_reached_without_a_network() {
        let exposed = |address| EtcdConfig::parse(address).map(|it| it.is_exposed());
        assert_eq!(exposed("etcd://127.0.0.1,localhost,[::1]"), Ok(false));
        assert_eq!(exposed("etcd://127.0.0.1,10.0.0.1"), Ok(true));
    }
}
