//! What the members of an etcd that the servers run, and its clients, show each other.
//!
//! It has an authority of its own: etcd lets everybody in whom its authority has signed, and the cluster's signs
//! every node. What that authority signs lasts as long as it does: its key lies beside each such certificate.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Leaves, PkiError};
use sys::certificates::{AUTHORITY_VALIDITY, Authority, Credentials, Identity, Usage};
use sys::files;

/// The files for etcd, and what its client shows.
pub struct EtcdPki {
    pub authority: PathBuf,
    /// Shown by a member to clients and to other members.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client: Credentials,
}

/// Reads them below a server's directory `pki`, and makes those that are missing, due, or not for the address.
pub fn etcd_pki(directory: &Path, address: IpAddr, now: Timestamp) -> Result<EtcdPki, PkiError> {
    files::create_private_dir(directory).map_err(|source| super::file(directory, source))?;
    let own = |name: &str| directory.join(name);
    let (certificate, key) = (own("etcd-ca.crt"), own("etcd-ca.key"));
    let authority = Authority::load_or_create(&certificate, &key, "orchestrator-etcd", now)?;
    let authority = authority.with_leaf_validity(AUTHORITY_VALIDITY);
    let names = [address.to_string(), "localhost".to_owned()];
    let leaves = Leaves {
        authority: &authority,
        front_proxy: &authority,
        directory,
        names: &names,
        leaf_validity: AUTHORITY_VALIDITY,
    };
    // A member is a client of the others, too.
    let member = Identity::new("etcd-member", &[]);
    leaves.leaf("etcd-member", &member, &names, Usage::Both, now)?;
    let client = Identity::new("etcd-client", &[]);
    let client = leaves.leaf("etcd-client", &client, &[], Usage::Client, now)?;
    Ok(EtcdPki {
        authority: certificate,
        certificate: own("etcd-member.crt"),
        key: own("etcd-member.key"),
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::certificates::names_of;

    #[test]
    fn a_second_start_keeps_them_and_another_address_makes_the_member_s_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let load = |address: [u8; 4]| {
            etcd_pki(directory.path(), address.into(), Timestamp::now()).expect("files")
        };
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        let first = load([10, 0, 0, 1]);
        let (authority, member) = (read(&first.authority), read(&first.certificate));
        let again = load([10, 0, 0, 1]);
        assert_eq!(read(&again.certificate), member);
        assert_eq!(again.client.certificate, first.client.certificate);
        let moved = load([10, 0, 0, 2]);
        assert_eq!(read(&moved.authority), authority);
        let names = names_of(&read(&moved.certificate)).expect("names");
        assert!(names.contains(&"10.0.0.2".to_owned()));
    }

    #[test]
    fn etcd_believes_no_certificate_of_the_cluster_s_authority() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = ["localhost".to_owned()];
        let now = Timestamp::now();
        let pki = super::super::Pki::load_or_create(
            directory.path(),
            &names,
            std::time::Duration::from_secs(3600),
            now,
        )
        .expect("certificates");
        let etcd = etcd_pki(directory.path(), [10, 0, 0, 1].into(), now).expect("files");
        let own = std::fs::read_to_string(etcd.authority).expect("a file");
        assert_ne!(own, pki.authority.certificate());
    }
}
