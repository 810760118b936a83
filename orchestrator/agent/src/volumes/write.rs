//! Replaces the files of a volume in one step, as Kubernetes lays them out:
//!
//! ```text
//! volume/
//!   ..2026_11_29_10_00_00.0a1b2c3d/   a generation: the files of one write
//!   ..data -> ..2026_11_29_10_00_00.0a1b2c3d
//!   name   -> ..data/name
//! ```
//!
//! A reader that opens `..data` once sees the files of one write. Each step is taken beneath the
//! volume by descriptor and makes what it needs anew: what a container may have put there is
//! removed, never followed, opened or changed. An agent that died between two steps left a volume
//! that the next write repairs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File as OpenFile;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use jiff::Timestamp;

use super::projected::{File, Files};
use sys::beneath::Dir;

const DATA: &str = "..data";
/// The link that becomes `..data`.
const NEXT: &str = "..data_tmp";

/// The bits that the pod's group gets on files and directories besides those that they have.
const GROUP_READS: u32 = 0o440;
const GROUP_ENTERS: u32 = 0o2550;
const DIR_MODE: u32 = 0o755;

/// Makes the volume hold these files and nothing else; whether it held something else before.
pub fn write(volume: &Dir, files: &Files, group: Option<u32>) -> io::Result<bool> {
    give(volume, group)?;
    let current = generation(volume);
    let same = current
        .as_ref()
        .filter(|it| holds(volume, it, files, group));
    let changed = same.is_none();
    let generation = match same {
        Some(current) => current.clone(),
        None => {
            // Room for the new files first.
            sweep(volume, |name| {
                !name.as_encoded_bytes().starts_with(b"..")
                    || name == DATA
                    || Some(name) == current.as_deref()
            })?;
            make_generation(volume, files, group)?
        }
    };
    let names: BTreeSet<&str> = files.keys().map(|path| first(path)).collect();
    for name in &names {
        link(volume, name)?;
    }
    if changed {
        swap(volume, &generation)?;
    }
    sweep(volume, |name| {
        name == DATA || name == generation || name.to_str().is_some_and(|it| names.contains(it))
    })?;
    Ok(changed)
}

/// The generation that readers see; none where the link is not one that a write has left.
fn generation(volume: &Dir) -> Option<OsString> {
    let target = volume.read_link(OsStr::new(DATA)).ok()?;
    let bytes = target.as_encoded_bytes();
    let ours = bytes.starts_with(b"..") && bytes.len() > 2 && !bytes.contains(&b'/');
    (ours && target != DATA && target != NEXT).then_some(target)
}

/// Whether a generation is exactly these files.
fn holds(volume: &Dir, generation: &OsStr, files: &Files, group: Option<u32>) -> bool {
    let Ok(root) = volume.enter(Path::new(generation)) else {
        return false;
    };
    let mut directories = vec![String::new()];
    let mut found = 0;
    while let Some(directory) = directories.pop() {
        let names = root.enter(Path::new(&directory)).and_then(|it| {
            let own = owned_as(&it, DIR_MODE, GROUP_ENTERS, group)?;
            Ok((own, it.names()?))
        });
        let Ok((true, names)) = names else {
            return false;
        };
        for name in names {
            let Some(name) = name.to_str() else {
                return false;
            };
            let path = match directory.as_str() {
                "" => name.to_owned(),
                above => format!("{above}/{name}"),
            };
            if let Some(file) = files.get(&path) {
                if !is_same(&root, &path, file, group).unwrap_or(false) {
                    return false;
                }
                found += 1;
            } else if has_below(files, &path) {
                directories.push(path);
            } else {
                return false;
            }
        }
    }
    found == files.len()
}

fn is_same(root: &Dir, path: &str, file: &File, group: Option<u32>) -> io::Result<bool> {
    let path = Path::new(path);
    let known = OpenFile::from(root.place(path)?).metadata()?;
    let fits = known.is_file()
        && known.len() == file.bytes.len() as u64
        && known.mode() & 0o7777 == mode(file.mode, GROUP_READS, group)
        && file.owner.is_none_or(|owner| known.uid() == owner)
        && group.is_none_or(|group| known.gid() == group);
    Ok(fits && root.read(path, file.bytes.len() + 1)? == file.bytes)
}

fn has_below(files: &Files, directory: &str) -> bool {
    let below = format!("{directory}/");
    let next = files.range(below.clone()..).next();
    next.is_some_and(|(path, _)| path.starts_with(&below))
}

/// Makes a directory with these files; what was made of it goes if that fails.
fn make_generation(volume: &Dir, files: &Files, group: Option<u32>) -> io::Result<OsString> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let time = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    let name = OsString::from(format!("..{time}.{}", &random[..8]));
    let made = fill(volume, &name, files, group);
    if made.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = volume.remove(&name);
    }
    made.map(|()| name)
}

fn fill(volume: &Dir, name: &OsStr, files: &Files, group: Option<u32>) -> io::Result<()> {
    let root = volume.make(name, DIR_MODE)?;
    give(&root, group)?;
    for (path, file) in files {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = root.enter(Path::new(""))?;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            dir = dir.make(OsStr::new(part), DIR_MODE)?;
            give(&dir, group)?;
        }
        let mut made = dir.create(OsStr::new(name), mode(file.mode, GROUP_READS, group))?;
        if group.is_some() || file.owner.is_some() {
            fchown(&made, file.owner, group)?;
        }
        made.write_all(&file.bytes)?;
    }
    Ok(())
}

/// Makes a name of the volume lead to the file or directory of that name in every generation.
fn link(volume: &Dir, name: &str) -> io::Result<()> {
    let target = Path::new(DATA).join(name);
    let name = OsStr::new(name);
    if volume.read_link(name).is_ok_and(|known| known == target) {
        return Ok(());
    }
    volume.remove(name)?;
    volume.link(&target, name)
}

/// Lets readers see another generation.
fn swap(volume: &Dir, generation: &OsStr) -> io::Result<()> {
    let (next, data) = (OsStr::new(NEXT), OsStr::new(DATA));
    volume.remove(next)?;
    volume.link(Path::new(generation), next)?;
    if volume.rename(next, data).is_ok() {
        return Ok(());
    }
    // It is a directory: nothing that a write leaves.
    volume.remove(data)?;
    volume.rename(next, data)
}

/// Removes everything else. The first error is given when all has been tried.
fn sweep(volume: &Dir, keep: impl Fn(&OsStr) -> bool) -> io::Result<()> {
    let surplus = volume.names()?.into_iter().filter(|name| !keep(name));
    let outcomes: Vec<io::Result<()>> = surplus.map(|name| volume.remove(&name)).collect();
    outcomes.into_iter().collect()
}

/// Gives a directory to the pod's group.
fn give(dir: &Dir, group: Option<u32>) -> io::Result<()> {
    if owned_as(dir, DIR_MODE, GROUP_ENTERS, group)? {
        return Ok(());
    }
    if group.is_some() {
        dir.set_owner(None, group)?;
    }
    dir.set_mode(mode(DIR_MODE, GROUP_ENTERS, group))
}

fn owned_as(dir: &Dir, base: u32, of_group: u32, group: Option<u32>) -> io::Result<bool> {
    let known = OpenFile::from(dir.place(Path::new(""))?).metadata()?;
    Ok(known.mode() & 0o7777 == mode(base, of_group, group)
        && group.is_none_or(|group| known.gid() == group))
}

fn mode(base: u32, of_group: u32, group: Option<u32>) -> u32 {
    match group {
        Some(_) => base | of_group,
        None => base,
    }
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
