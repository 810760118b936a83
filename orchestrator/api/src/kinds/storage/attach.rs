//! The names by which controllers, attachers and agents speak of a volume that is at a node.
//!
//! ```text
//! pod bound to a node ─▶ attach/detach controller: VolumeAttachment (attachment_name)
//!                              │ external attacher of the driver: status.attached
//!                              ▼
//!        status.volumesAttached of the node (volume_key) ─▶ agent stages and mounts
//!        status.volumesInUse of the node, by its agent ─▶ not detached while it is there
//! ```

use sha2::{Digest, Sha256};

const PREFIX: &str = "csi-";
const KEY_PREFIX: &str = "kubernetes.io/csi/";
/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// The name of the VolumeAttachment of a volume at a node. Kubernetes' own, so that attachers and whoever looks
/// finds the same.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let hash = Sha256::digest([handle, driver, node].concat());
    format!("{PREFIX}{}", hex::encode(hash))
}

/// Whether a VolumeAttachment has such a name. Others are made by people, who also delete them.
pub fn is_attachment_name(name: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix(PREFIX)
        .is_some_and(|hash| hash.len() == DIGITS && hash.bytes().all(is_digit))
}

/// What a node's status calls a volume.
pub fn volume_key(driver: &str, handle: &str) -> String {
    format!("{KEY_PREFIX}{driver}^{handle}")
}

/// The driver and the handle of such a name.
pub fn volume_of_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(KEY_PREFIX)?.split_once('^')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_has_the_name_that_kubernetes_gives_it() {
        // sha256 of "vol-1" + "hostpath.csi.k8s.io" + "node-1".
        let name = attachment_name("hostpath.csi.k8s.io", "vol-1", "node-1");
        let expected = hex::encode(Sha256::digest("vol-1hostpath.csi.k8s.ionode-1"));
        assert_eq!(name, format!("csi-{expected}"));
        assert!(is_attachment_name(&name));
        for other in ["csi-1", "va-e2e", "", &name[4..], &format!("{name}0")] {
            assert!(!is_attachment_name(other), "{other:?}");
        }
    }

    #[test]
    fn a_volume_is_named_by_its_driver_and_its_handle() {
        assert_eq!(
            volume_key("d.example.com", "vol-1"),
            "kubernetes.io/csi/d.example.com^vol-1"
        );
        let key = volume_key("d.example.com", "a^b");
        assert_eq!(volume_of_key(&key), Some(("d.example.com", "a^b")));
        assert_eq!(volume_of_key("kubernetes.io/nfs/x"), None);
    }
}
