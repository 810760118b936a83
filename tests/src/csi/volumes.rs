//! The driver's volumes: what is on disk, and what is attached, staged and published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::volumes::csi::messages::{
    Empty, ExpandVolume, Expanded, PublishVolume, StageVolume, Stats, StatsWish, UnpublishVolume,
    UnstageVolume, VolumeUsage,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tonic::Status;

use super::messages::{
    AttachVolume, Attached, CreateVolume, Created, DeleteVolume, GrowVolume, Grown, Volume,
};
use super::{PASSPHRASE, TOLD};

/// In the context of a publication: what the controller has said of the attachment.
const ATTACHED_TO: &str = "attachedTo";
const LEAST_BYTES: i64 = 1 << 20;

type Answer<T> = Result<T, Status>;

pub struct Volumes {
    data: PathBuf,
    /// By id.
    all: BTreeMap<String, State>,
}

#[derive(Default)]
struct State {
    /// What the controller has given, and what is used of it on the node.
    bytes: i64,
    used_bytes: i64,
    is_block: bool,
    attached: BTreeSet<String>,
    staged: BTreeSet<String>,
    published: BTreeMap<String, usize>,
}

impl Volumes {
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            all: BTreeMap::new(),
        }
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.data.join(id)
    }

    fn state(&mut self, id: &str) -> Answer<&mut State> {
        let found = self.all.get_mut(id);
        found.ok_or_else(|| Status::not_found(format!("volume {id} is not known")))
    }

    pub fn create(&mut self, asked: &CreateVolume) -> Answer<Created> {
        let range = asked.capacity_range.clone().unwrap_or_default();
        let is_block = asked
            .volume_capabilities
            .iter()
            .any(|it| it.block.is_some());
        let id = format!("made-for-{}", asked.name);
        let bytes = range.required_bytes.max(LEAST_BYTES);
        self.make(&id, bytes, is_block)?;
        let volume = Volume {
            capacity_bytes: bytes,
            volume_id: id,
            volume_context: asked.parameters.clone(),
            accessible_topology: Vec::new(),
        };
        Ok(Created {
            volume: Some(volume),
        })
    }

    /// Makes a volume, unless it is there.
    fn make(&mut self, id: &str, bytes: i64, is_block: bool) -> Answer<()> {
        if self.all.contains_key(id) {
            return Ok(());
        }
        let dir = self.dir(id);
        fs::create_dir_all(dir.join("files"))?;
        if is_block {
            fs::File::create(dir.join("disk"))?.set_len(bytes.unsigned_abs())?;
        }
        let state = State {
            bytes,
            used_bytes: bytes,
            is_block,
            ..State::default()
        };
        self.all.insert(id.to_owned(), state);
        Ok(())
    }

    pub fn delete(&mut self, asked: &DeleteVolume) -> Answer<Empty> {
        if let Some(state) = self.all.get(&asked.volume_id) {
            let in_use = !state.attached.is_empty() || !state.published.is_empty();
            if in_use {
                return Err(Status::failed_precondition("the volume is in use"));
            }
            fs::remove_dir_all(self.dir(&asked.volume_id))?;
            self.all.remove(&asked.volume_id);
        }
        Ok(Empty {})
    }

    pub fn attach(&mut self, asked: &AttachVolume) -> Answer<Attached> {
        let state = self.state(&asked.volume_id)?;
        if state.attached.iter().any(|node| *node != asked.node_id) {
            return Err(Status::failed_precondition("another node has the volume"));
        }
        state.attached.insert(asked.node_id.clone());
        let said = [(ATTACHED_TO.to_owned(), asked.node_id.clone())];
        Ok(Attached {
            publish_context: said.into(),
        })
    }

    pub fn detach(&mut self, asked: &AttachVolume) -> Answer<Empty> {
        if let Some(state) = self.all.get_mut(&asked.volume_id) {
            if !state.staged.is_empty() {
                return Err(Status::failed_precondition("the volume is staged"));
            }
            state.attached.remove(&asked.node_id);
        }
        Ok(Empty {})
    }

    pub fn expand(&mut self, asked: &GrowVolume) -> Answer<Grown> {
        let range = asked.capacity_range.clone().unwrap_or_default();
        let state = self.state(&asked.volume_id)?;
        state.bytes = state.bytes.max(range.required_bytes);
        Ok(Grown {
            capacity_bytes: state.bytes,
            node_expansion_required: true,
        })
    }

    pub fn stage(&mut self, asked: &StageVolume) -> Answer<Empty> {
        check_secret(&asked.secrets)?;
        let files = self.dir(&asked.volume_id).join("files");
        let state = self.state(&asked.volume_id)?;
        let said = asked.publish_context.get(ATTACHED_TO);
        if !said.is_some_and(|node| state.attached.contains(node)) {
            return Err(Status::failed_precondition("the volume is not attached"));
        }
        let is_new = state.staged.insert(asked.staging_target_path.clone());
        if is_new && !state.is_block {
            bind(&files, Path::new(&asked.staging_target_path))?;
        }
        Ok(Empty {})
    }

    pub fn unstage(&mut self, asked: &UnstageVolume) -> Answer<Empty> {
        let staging = &asked.staging_target_path;
        if let Some(state) = self.all.get_mut(&asked.volume_id)
            && state.staged.remove(staging)
            && !state.is_block
        {
            umount2(staging.as_str(), MntFlags::empty()).map_err(io::Error::from)?;
        }
        Ok(Empty {})
    }

    /// A volume that is written in a pod is made here.
    pub fn publish(&mut self, asked: &PublishVolume) -> Answer<Empty> {
        let context = &asked.volume_context;
        let ephemeral = context.get("csi.storage.k8s.io/ephemeral");
        if ephemeral.is_some_and(|it| it == "true") {
            self.make(&asked.volume_id, LEAST_BYTES, false)?;
        } else {
            check_secret(&asked.secrets)?;
        }
        let dir = self.dir(&asked.volume_id);
        let state = self.state(&asked.volume_id)?;
        let times = state.published.entry(asked.target_path.clone());
        let times = *times.and_modify(|times| *times += 1).or_insert(1);
        let target = Path::new(&asked.target_path);
        if state.is_block {
            return publish_device(&dir.join("disk"), target, times).map(|()| Empty {});
        }
        if times == 1 {
            fs::create_dir_all(target)?;
            let staged =
                (!asked.staging_target_path.is_empty()).then_some(&asked.staging_target_path);
            bind(staged.map_or(&*dir.join("files"), Path::new), target)?;
        }
        let attached_to = asked.publish_context.get(ATTACHED_TO);
        let told = json!({"context": context, "times": times, "attachedTo": attached_to});
        fs::write(dir.join("files").join(TOLD), told.to_string())?;
        Ok(Empty {})
    }

    pub fn unpublish(&mut self, asked: &UnpublishVolume) -> Answer<Empty> {
        let target = Path::new(&asked.target_path);
        let found = self.all.get_mut(&asked.volume_id);
        let Some(state) = found.filter(|it| it.published.contains_key(&asked.target_path)) else {
            return Ok(Empty {});
        };
        umount2(target, MntFlags::empty()).map_err(io::Error::from)?;
        let is_block = state.is_block;
        state.published.remove(&asked.target_path);
        match is_block {
            true => {
                fs::remove_file(target)?;
                losetup(
                    &["--detach"],
                    &device_of(&self.dir(&asked.volume_id).join("disk"))?,
                )?;
            }
            false => fs::remove_dir(target)?,
        }
        Ok(Empty {})
    }

    pub fn expand_on_node(&mut self, asked: &ExpandVolume) -> Answer<Expanded> {
        check_secret(&asked.secrets)?;
        let disk = self.dir(&asked.volume_id).join("disk");
        let state = self.state(&asked.volume_id)?;
        if !state.published.contains_key(&asked.volume_path) {
            return Err(Status::not_found("the volume is not published there"));
        }
        state.used_bytes = state.bytes;
        let capacity_bytes = state.bytes;
        if state.is_block {
            let file = fs::OpenOptions::new().write(true).open(&disk)?;
            file.set_len(capacity_bytes.unsigned_abs())?;
            losetup(&["--set-capacity"], &device_of(&disk)?)?;
        }
        Ok(Expanded { capacity_bytes })
    }

    pub fn stats(&mut self, asked: &StatsWish) -> Answer<Stats> {
        let total = self.state(&asked.volume_id)?.used_bytes;
        let usage = VolumeUsage {
            available: total,
            total,
            used: 0,
            unit: 1,
        };
        Ok(Stats { usage: vec![usage] })
    }
}

fn check_secret(secrets: &HashMap<String, String>) -> Answer<()> {
    let (key, value) = PASSPHRASE;
    match secrets.get(key).is_some_and(|it| it == value) {
        true => Ok(()),
        false => Err(Status::permission_denied("the passphrase is wrong")),
    }
}

fn bind(from: &Path, to: &Path) -> Answer<()> {
    let none = None::<&str>;
    let done = mount(Some(from), to, none, MsFlags::MS_BIND, none);
    Ok(done.map_err(io::Error::from)?)
}

/// A device appears at its target by a mount onto a file.
fn publish_device(disk: &Path, target: &Path, times: usize) -> Answer<()> {
    if times > 1 {
        return Ok(());
    }
    let said = losetup(&["--find", "--show"], disk)?;
    fs::File::create(target)?;
    bind(Path::new(said.trim()), target)
}

fn device_of(disk: &Path) -> Answer<PathBuf> {
    let words = ["--noheadings", "--output", "NAME", "--associated"];
    Ok(PathBuf::from(losetup(&words, disk)?.trim()))
}

fn losetup(words: &[&str], path: &Path) -> Answer<String> {
    let output = Command::new("losetup").args(words).arg(path).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Status::internal(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}
