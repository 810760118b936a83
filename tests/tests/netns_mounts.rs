//! Files of pods and what is mounted among them, on the real kernel: what a container could lead the agent
//! to, which is root, with links, with directories that it swaps, and with mounts of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use agent::container_spec::SpecError;
use agent::runtime::Propagation;
use agent::volumes::{Made, Origin, PodDir, SubPath};
use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sys::beneath::Dir;
use sys::mounts;

/// A pod with one volume, which its containers write, and a directory beside it.
struct Stage {
    temp: tempfile::TempDir,
    dir: PodDir,
}

impl Stage {
    fn new() -> Stage {
        let temp = tempfile::tempdir().unwrap();
        let dir = PodDir::new(temp.path(), "uid");
        fs::create_dir_all(temp.path().join("pods/uid").join("volumes/v")).unwrap();
        fs::create_dir(temp.path().join("node")).unwrap();
        fs::write(temp.path().join("node/secret"), "of the node").unwrap();
        Stage { temp, dir }
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join("pods/uid")
    }

    fn volume(&self) -> PathBuf {
        self.temp.path().join("pods/uid").join("volumes/v")
    }

    fn node(&self) -> PathBuf {
        self.temp.path().join("node")
    }

    fn part(&self, path: &str, origin: Origin) -> SubPath {
        SubPath {
            volume: Made {
                path: self.volume(),
                origin,
            },
            path: path.into(),
            place: self.dir.sub_paths("c", 0).join("0"),
            propagation: Propagation::Private,
        }
    }

    fn mount(&self, path: &str, origin: Origin) -> Result<PathBuf, SpecError> {
        let part = self.part(path, origin);
        self.dir.mount_sub_paths("c", std::slice::from_ref(&part))?;
        Ok(part.place)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.dir.remove().unwrap();
        assert!(self.node().join("secret").exists());
    }
}

#[test]
fn a_part_is_what_lies_in_the_volume_and_is_made_if_it_is_missing() {
    let stage = Stage::new();
    fs::set_permissions(stage.volume(), fs::Permissions::from_mode(0o2770)).unwrap();
    let place = stage.mount("a/b", Origin::Shared).unwrap();
    fs::write(place.join("f"), "x").unwrap();
    assert!(stage.volume().join("a/b/f").exists());
    let made = fs::metadata(stage.volume().join("a")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o2770);
    let place = stage.mount("a/b/f", Origin::Shared).unwrap();
    assert_eq!(fs::read_to_string(place).unwrap(), "x");
}

#[test]
fn a_link_on_the_way_or_at_the_end_is_refused_and_nothing_is_made_behind_it() {
    let stage = Stage::new();
    symlink(stage.node(), stage.volume().join("link")).unwrap();
    symlink("secret", stage.volume().join("inner")).unwrap();
    for origin in [Origin::Shared, Origin::Host] {
        for path in [
            "link",
            "link/new",
            "link/secret",
            "inner",
            "../../..",
            "/etc",
        ] {
            assert!(stage.mount(path, origin).is_err(), "{path} {origin:?}");
        }
    }
    let why = stage.mount("link/new", Origin::Shared).unwrap_err();
    assert!(why.message.contains("symbolic link"), "{why}");
    assert_eq!(fs::read_dir(stage.node()).unwrap().count(), 1);
}

#[test]
fn a_container_that_swaps_directories_for_links_while_others_start_wins_nothing() {
    let stage = Stage::new();
    fs::create_dir_all(stage.volume().join("a/own")).unwrap();
    symlink(stage.node(), stage.volume().join("b")).unwrap();
    let (a, b) = (stage.volume().join("a"), stage.volume().join("b"));
    let node = fs::metadata(stage.node()).unwrap().ino();
    let over = AtomicBool::new(false);
    let (mut mounted, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for round in 0..600 {
            let path = ["a/own", "a/own/new", "a"][round % 3];
            match stage.mount(path, Origin::Shared) {
                Ok(place) => {
                    mounted += 1;
                    assert_ne!(fs::metadata(place).unwrap().ino(), node, "{path}");
                }
                Err(_) => refused += 1,
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(mounted > 0 && refused > 0, "{mounted} {refused}");
    assert_eq!(fs::read_dir(stage.node()).unwrap().count(), 1);
}

#[test]
fn a_key_of_a_written_volume_is_found_behind_the_agents_own_link() {
    let stage = Stage::new();
    fs::create_dir(stage.volume().join("..1")).unwrap();
    fs::write(stage.volume().join("..1/key"), "one").unwrap();
    symlink("..1", stage.volume().join("..data")).unwrap();
    symlink("..data/key", stage.volume().join("key")).unwrap();
    let place = stage.mount("key", Origin::Written).unwrap();
    assert_eq!(fs::read_to_string(place).unwrap(), "one");
    let place = stage.mount("absent", Origin::Written).unwrap();
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    assert!(!stage.volume().join("..1/absent").exists());
}

#[test]
fn a_restarted_agent_finds_the_places_of_the_one_before_and_uses_them_again() {
    let stage = Stage::new();
    for _ in 0..3 {
        stage.mount("a", Origin::Shared).unwrap();
    }
    let again = mounts::list().unwrap();
    let places = stage.root().join("sub-paths");
    let of_pod = again.iter().filter(|it| it.point.starts_with(&places));
    assert_eq!(of_pod.count(), 1);
}

#[test]
fn a_pod_is_removed_with_what_its_containers_mounted_inside_its_volumes() {
    let stage = Stage::new();
    let inside = stage.volume().join("m/n");
    fs::create_dir_all(&inside).unwrap();
    let none = None::<&str>;
    mount(Some(&stage.node()), &inside, none, MsFlags::MS_BIND, none).unwrap();
    symlink(stage.node(), stage.volume().join("link")).unwrap();
    stage.dir.remove().unwrap();
    assert!(!stage.root().exists());
    assert!(stage.node().join("secret").exists());
}

#[test]
fn a_reset_leaves_no_pods_files_and_no_mount_among_them() {
    let stage = Stage::new();
    let data_dir = stage.temp.path();
    stage.mount("a", Origin::Shared).unwrap();
    let memory = stage.root().join("memory");
    fs::create_dir(&memory).unwrap();
    let none = None::<&str>;
    mount(none, &memory, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir(memory.join("inside")).unwrap();
    bind(&stage.node(), &memory.join("inside"));
    // Of a pod that no agent knows any more.
    let other = data_dir.join("pods/other/volumes/v");
    fs::create_dir_all(&other).unwrap();
    bind(&stage.node(), &other);
    fs::create_dir(data_dir.join("pki")).unwrap();
    assert_eq!(PodDir::remove_all(data_dir).unwrap(), 2);
    let left = mounts::list().unwrap();
    assert!(!left.iter().any(|it| it.point.starts_with(data_dir)));
    assert!(!data_dir.join("pods").exists());
    assert!(data_dir.join("pki").exists());
    assert_eq!(PodDir::remove_all(data_dir).unwrap(), 0);
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
fn mounts_below_a_directory_go_and_what_was_mounted_stays() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let treasure = temp.path().join("treasure");
    fs::create_dir_all(root.join("a/b c\n")).unwrap();
    fs::create_dir(&treasure).unwrap();
    fs::write(treasure.join("file"), "x").unwrap();
    symlink(&treasure, root.join("link")).unwrap();
    // On a mount, twice on one place, and at a name that needs escapes.
    bind(&treasure, &root.join("a/b c\n"));
    bind(&treasure, &root.join("a/b c\n"));
    bind(&root, &root);
    bind(&treasure, &treasure);
    mounts::detach_below(&root).unwrap();
    let left = mounts::list().unwrap();
    assert!(!left.iter().any(|it| it.point.starts_with(&root)));
    assert!(left.iter().any(|it| it.point == treasure));
    mounts::detach_below(&treasure).unwrap();
    Dir::open(temp.path())
        .unwrap()
        .remove("root".as_ref())
        .unwrap();
    assert!(treasure.join("file").exists());
    mounts::detach_below(&root).unwrap();
}
