//! The steps of one pod's volumes: attached, staged, published, and back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::{Api, Client};
use serde_json::json;

use super::super::{fs_group, make_dir};
use super::attached;
use super::driver::Driver;
use super::messages::{
    MOUNTS_FOR_GROUP, PublishVolume, STAGES, StageVolume, UnpublishVolume, UnstageVolume,
    VolumeCapability,
};
use super::records::Note;
use super::wish::{Manners, SecretName, Wish};
use super::{Inner, keeper};
use crate::api::sources::Mounted;
use crate::pod::worker::ask_for_token;

/// In a volume's context: the tokens that its driver asks for (KEP-1855).
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// Of directories that only root and drivers enter.
const MODE: u32 = 0o750;
/// Why a driver is not told again of a volume.
const LET_GO: &str = "the volume is let go";

impl Inner {
    pub(super) async fn mount_all(
        &self,
        pod: &Pod,
        wishes: Vec<Wish>,
    ) -> Result<BTreeMap<String, Mounted>, String> {
        let mounts = wishes.into_iter().map(|wish| async move {
            let mounted = self.mount(pod, &wish, false).await;
            let mounted = mounted.map_err(|why| {
                format!(
                    "MountVolume.SetUp failed for volume {:?} : {why}",
                    wish.name
                )
            });
            Ok::<_, String>((wish.volume, mounted?))
        });
        Ok(try_join_all(mounts).await?.into_iter().collect())
    }

    /// Mounts one volume, if that was not done in this boot. With `again`, the driver is told once more.
    pub(super) async fn mount(
        &self,
        pod: &Pod,
        wish: &Wish,
        again: bool,
    ) -> Result<Mounted, String> {
        let turn = self.turn(&wish.key());
        let driver = self.driver(&wish.driver)?;
        let manners = manners(&self.client, &wish.driver).await?;
        if let Some(why) = wish.refusal(&manners) {
            return Err(why);
        }
        let offers = driver.offers().await.map_err(|error| error.to_string())?;
        let mut note = match self.known(pod, wish)? {
            Some(note) => note,
            None if again => return Err(LET_GO.to_owned()),
            None => self.new_note(pod, wish, &manners, &offers)?,
        };
        if note.boot.is_empty() || again {
            let published = match &note.attached {
                None => HashMap::new(),
                Some(key) => {
                    if !again {
                        self.in_use.add(key);
                        attached::wait(&self.client, &self.node, wish).await?;
                    }
                    attached::context(&self.client, &self.node, wish).await?
                }
            };
            let _turn = turn.lock().await;
            // Whoever lets go has the turn too.
            if again && self.known(pod, wish)?.is_none() {
                return Err(LET_GO.to_owned());
            }
            self.check_alone(wish, &note)?;
            let failed = |error| format!("note the volume: {error}");
            note.begun.clone_from(&self.boot);
            self.places.write(&note).map_err(failed)?;
            let group = self.driver_group(pod, &offers)?;
            let how = wish.capability(&offers, group);
            if note.staging.is_some() && !again && !self.is_staged(&note) {
                self.stage(&driver, wish, &note, (&published, &how)).await?;
            }
            self.publish(&driver, (pod, wish), &note, (&published, how, &manners))
                .await?;
            note.boot.clone_from(&self.boot);
            self.places.write(&note).map_err(failed)?;
        }
        check(&note.target, wish.is_block)?;
        keeper::grow(self, pod, wish, (&driver, &offers, &note)).await;
        Ok(Mounted {
            path: note.target,
            is_given: wish.is_given(&manners) && !offers.contains(&MOUNTS_FOR_GROUP),
            read_only: wish.read_only,
            is_block: wish.is_block,
        })
    }

    /// What is known of the volume from before.
    fn known(&self, pod: &Pod, wish: &Wish) -> Result<Option<Note>, String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let notes = self.places.of_pod(uid);
        let notes = notes.map_err(|error| format!("read the pod's notes: {error}"))?;
        let mut known = notes.into_iter().find(|note| note.volume == wish.volume);
        if let Some(note) = known.as_mut().filter(|note| note.boot != self.boot) {
            note.boot.clear();
        }
        Ok(known)
    }

    /// A note that is on disk from now on.
    fn new_note(
        &self,
        pod: &Pod,
        wish: &Wish,
        manners: &Manners,
        offers: &[i32],
    ) -> Result<Note, String> {
        let failed = |error: std::io::Error| format!("note the volume: {error}");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let stages = offers.contains(&STAGES) && !wish.is_inline;
        let note = Note {
            target: self.places.target(wish, &uid),
            uid,
            volume: wish.volume.clone(),
            driver: wish.driver.clone(),
            handle: wish.handle.clone(),
            staging: stages.then(|| self.places.staging(wish)),
            begun: String::new(),
            boot: String::new(),
            attached: (manners.attaches && !wish.is_inline).then(|| wish.key()),
        };
        self.places.write(&note).map_err(failed)?;
        Ok(note)
    }

    /// A volume for one pod is not another pod's at the same time (KEP-2485). A pod for which the driver was not
    /// asked in this boot has no volume yet, so that of two pods that wait one gets it. The volume's turn is held.
    fn check_alone(&self, wish: &Wish, note: &Note) -> Result<(), String> {
        if !wish.modes.iter().any(|mode| mode == "ReadWriteOncePod") {
            return Ok(());
        }
        let all = self.places.all().map_err(|error| error.to_string())?;
        let same = |other: &&Note| {
            let is_same = (&other.driver, &other.handle) == (&note.driver, &note.handle);
            is_same && other.uid != note.uid && other.is_begun(&self.boot)
        };
        match all.iter().find(same) {
            None => Ok(()),
            Some(_) => Err(
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
                    .to_owned(),
            ),
        }
    }

    /// Whether another pod has the volume published in this boot, so that it is staged.
    fn is_staged(&self, note: &Note) -> bool {
        let all = self.places.all().unwrap_or_default();
        all.iter()
            .any(|other| other.staging == note.staging && other.boot == self.boot)
    }

    /// The group for which the driver mounts, if it is one that does.
    fn driver_group(&self, pod: &Pod, offers: &[i32]) -> Result<Option<u32>, String> {
        let group = fs_group(pod).map_err(|error| error.message)?;
        Ok(group.filter(|_| offers.contains(&MOUNTS_FOR_GROUP)))
    }

    async fn stage(
        &self,
        driver: &Driver,
        wish: &Wish,
        note: &Note,
        (published, how): (&HashMap<String, String>, &VolumeCapability),
    ) -> Result<(), String> {
        let Some(staging) = &note.staging else {
            return Ok(());
        };
        make_dir(staging, MODE).map_err(|error| format!("make {}: {error}", staging.display()))?;
        let message = StageVolume {
            volume_id: wish.handle.clone(),
            publish_context: published.clone(),
            staging_target_path: text(staging)?,
            volume_capability: Some(how.clone()),
            secrets: secrets(&self.client, wish.stage_secret.as_ref()).await?,
            volume_context: wish.attributes.clone().into_iter().collect(),
        };
        let staged = driver.stage(&message).await;
        staged.map_err(|error| format!("MountVolume.MountDevice failed: {error}"))
    }

    async fn publish(
        &self,
        driver: &Driver,
        (pod, wish): (&Pod, &Wish),
        note: &Note,
        (published, how, manners): (&HashMap<String, String>, VolumeCapability, &Manners),
    ) -> Result<(), String> {
        let above = note.target.parent().unwrap_or(&note.target);
        make_dir(above, MODE).map_err(|error| format!("make {}: {error}", above.display()))?;
        let mut volume_context = wish.context(pod, manners);
        if !manners.tokens.is_empty() {
            let tokens = tokens(&self.client, pod, manners).await?;
            volume_context.insert(TOKENS.to_owned(), tokens);
        }
        let staging = note.staging.as_deref().map(text).transpose()?;
        let message = PublishVolume {
            volume_id: wish.handle.clone(),
            publish_context: published.clone(),
            staging_target_path: staging.unwrap_or_default(),
            target_path: text(&note.target)?,
            volume_capability: Some(how),
            readonly: wish.read_only,
            secrets: secrets(&self.client, wish.publish_secret.as_ref()).await?,
            volume_context,
        };
        let done = driver.publish(&message).await;
        done.map_err(|error| error.to_string())
    }

    /// Undoes everything that notes say of a pod.
    pub(super) async fn release_all(&self, notes: Vec<Note>) -> Result<(), String> {
        for note in notes {
            let released = self.release(&note).await;
            released.map_err(|why| {
                format!(
                    "UnmountVolume.TearDown failed for volume {:?} : {why}",
                    note.volume
                )
            })?;
        }
        Ok(())
    }

    async fn release(&self, note: &Note) -> Result<(), String> {
        let turn = self.turn(&api::kinds::storage::attach::volume_key(
            &note.driver,
            &note.handle,
        ));
        let _turn = turn.lock().await;
        let driver = self.driver(&note.driver)?;
        let unpublish = UnpublishVolume {
            volume_id: note.handle.clone(),
            target_path: text(&note.target)?,
        };
        let done = driver.unpublish(&unpublish).await;
        done.map_err(|error| error.to_string())?;
        let cleared = |path: &Path| {
            let cleared = self.places.clear(path);
            cleared.map_err(|error| format!("remove {}: {error}", path.display()))
        };
        cleared(&note.target)?;
        let all = self.places.all().map_err(|error| error.to_string())?;
        let others = || all.iter().filter(|other| *other != note);
        if let Some(staging) = &note.staging
            && !others().any(|other| other.staging == note.staging)
        {
            let unstage = UnstageVolume {
                volume_id: note.handle.clone(),
                staging_target_path: text(staging)?,
            };
            let done = driver.unstage(&unstage).await;
            done.map_err(|error| format!("UnmountVolume.UnmountDevice failed: {error}"))?;
            cleared(staging)?;
        }
        self.places
            .forget(note)
            .map_err(|error| error.to_string())?;
        if let Some(key) = &note.attached
            && !others().any(|other| other.attached == note.attached)
        {
            self.in_use.remove(key);
        }
        Ok(())
    }
}

/// Whether what the driver has made is what was asked for. No link of it is followed.
fn check(target: &Path, is_block: bool) -> Result<(), String> {
    let found = fs::symlink_metadata(target);
    let found = found.map_err(|error| format!("the driver published nothing: {error}"))?;
    match (is_block, found.file_type()) {
        (true, kind) if kind.is_block_device() => Ok(()),
        (true, _) => Err("the driver published no block device".to_owned()),
        (false, kind) if kind.is_dir() => Ok(()),
        (false, _) => Err("the driver published no directory".to_owned()),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{:?} is not text", path.display()))
}

/// What the cluster knows of the driver.
pub(super) async fn manners(client: &Client, driver: &str) -> Result<Manners, String> {
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    let found = drivers.get_opt(driver).await;
    let found = found.map_err(|error| format!("read CSIDriver {driver}: {error}"))?;
    Ok(Manners::of(found))
}

/// What a Secret has for the driver. The error says nothing of it.
pub(super) async fn secrets(
    client: &Client,
    name: Option<&SecretName>,
) -> Result<HashMap<String, String>, String> {
    let Some((namespace, name)) = name else {
        return Ok(HashMap::new());
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get(name).await;
    let failed = |error| format!("failed to get secret {namespace}/{name}: {error}");
    let data = secret.map_err(failed)?.data.unwrap_or_default();
    let read = data.into_iter().map(|(key, value)| {
        let value = String::from_utf8(value.0);
        let value = value.map_err(|_| format!("key {key:?} of secret {namespace}/{name}: no text"));
        Ok((key, value?))
    });
    read.collect()
}

/// The pod's tokens as the driver reads them.
async fn tokens(client: &Client, pod: &Pod, manners: &Manners) -> Result<String, String> {
    let mut all = serde_json::Map::new();
    for wish in &manners.tokens {
        let (token, ends) = ask_for_token(client, pod, wish).await?;
        let token = json!({"token": &*token.0, "expirationTimestamp": ends.to_string()});
        all.insert(wish.audience.clone(), token);
    }
    Ok(serde_json::Value::from(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_or_a_file_is_not_taken_for_what_was_asked_of_a_driver() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = |name: &str| temp.path().join(name);
        std::os::unix::fs::symlink("/etc", path("link")).expect("a link");
        fs::write(path("file"), "").expect("a file");
        fs::create_dir(path("dir")).expect("a directory");
        for name in ["link", "file", "absent"] {
            assert!(check(&path(name), false).is_err(), "{name}");
            assert!(check(&path(name), true).is_err(), "{name}");
        }
        assert_eq!(check(&path("dir"), false), Ok(()));
        assert!(check(&path("dir"), true).is_err());
    }
}
