//! Files of pods and what is mounted among them, on the real kernel: what a container could lead the agent
//! to, which is root, with links, with directories that it swaps, and with mounts of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use agent::runtime::container_spec::SpecError;
use agent::runtime::{Mount, Propagation};
use agent::volumes::images::{Images, Wanted};
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
                read_only: false,
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

    /// A volume of the pod, made if it is missing, as a mount at that path.
    fn at(&self, volume: &str, target: &str) -> Mount {
        let source = self.root().join("volumes").join(volume);
        fs::create_dir_all(&source).unwrap();
        Mount {
            source,
            target: target.to_owned(),
            read_only: false,
            propagation: Propagation::Private,
            joined: false,
        }
    }

    /// What the Engine is given for the next start of a container with these mounts.
    fn join(&self, mounts: &[Mount]) -> Result<Vec<Mount>, SpecError> {
        self.dir.mount_sub_paths("c", &[])?;
        self.dir.join_nested(&self.dir.sub_paths("c", 0), mounts)
    }

    /// The one mount that the Engine is given for these.
    fn joined(&self, mounts: &[Mount]) -> PathBuf {
        let given = self.join(mounts).unwrap();
        assert_eq!(given.len(), 1, "{given:?}");
        assert!(given[0].joined);
        given[0].source.clone()
    }
}

fn read_only(mount: Mount) -> Mount {
    Mount {
        read_only: true,
        ..mount
    }
}

fn is_read_only(dir: &Path) -> bool {
    match fs::write(dir.join("probe"), "") {
        Ok(()) => false,
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => true,
        Err(error) => panic!("{}: {error}", dir.display()),
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
fn a_key_that_is_mounted_alone_stays_as_it_was_until_its_container_starts_again() {
    let stage = Stage::new();
    let write = |version: &str, value: &str| {
        fs::create_dir(stage.volume().join(version)).unwrap();
        fs::write(stage.volume().join(version).join("key"), value).unwrap();
        symlink(version, stage.volume().join("..new")).unwrap();
        fs::rename(stage.volume().join("..new"), stage.volume().join("..data")).unwrap();
    };
    write("..1", "one");
    let place = stage.mount("key", Origin::Written).unwrap();
    write("..2", "two");
    fs::remove_dir_all(stage.volume().join("..1")).unwrap();
    assert_eq!(fs::read_to_string(&place).unwrap(), "one");
    let place = stage.mount("key", Origin::Written).unwrap();
    assert_eq!(fs::read_to_string(place).unwrap(), "two");
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

#[test]
fn volumes_at_any_depth_are_mounted_inside_each_other_before_the_engine_is_given_the_outermost() {
    let stage = Stage::new();
    let mounts = [
        stage.at("g", "/e/a/b"),
        stage.at("e", "/e"),
        stage.at("h", "/e/x/y/z"),
        stage.at("f", "/e/a"),
        stage.at("o", "/other"),
    ];
    for name in ["e", "f", "g", "h"] {
        fs::write(stage.root().join("volumes").join(name).join("name"), name).unwrap();
    }
    let given = stage.join(&mounts).unwrap();
    let targets: Vec<&str> = given.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(targets, ["/e", "/other"]);
    let place = &given[0].source;
    for (path, name) in [("", "e"), ("a", "f"), ("a/b", "g"), ("x/y/z", "h")] {
        let found = fs::read_to_string(place.join(path).join("name")).unwrap();
        assert_eq!(found, name, "{path}");
    }
    // What is made for a mount is the root user's, and what is mounted there is seen by that container only.
    let volume = stage.root().join("volumes/e");
    for path in ["a", "x", "x/y/z"] {
        let made = fs::metadata(volume.join(path)).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, 0), "{path}");
    }
    assert_eq!(fs::read_dir(volume.join("a")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(volume.join("x/y/z")).unwrap().count(), 0);
    let bench = stage.dir.sub_paths("c", 0).join("bench");
    let left = mounts::list().unwrap();
    assert!(!left.iter().any(|it| it.point.starts_with(&bench)));
}

#[test]
fn a_file_is_mounted_on_a_file_which_is_made_if_it_is_missing() {
    let stage = Stage::new();
    let message = stage.root().join("message");
    fs::write(&message, "x").unwrap();
    let file = |target: &str| Mount {
        source: message.clone(),
        ..stage.at("unused", target)
    };
    let place = stage.joined(&[stage.at("e", "/e"), file("/e/logs/message")]);
    assert_eq!(fs::read_to_string(place.join("logs/message")).unwrap(), "x");
    let made = fs::metadata(stage.root().join("volumes/e/logs/message")).unwrap();
    assert_eq!((made.len(), made.mode() & 0o7777), (0, 0o755));
    fs::create_dir(stage.root().join("volumes/e/dir")).unwrap();
    for mounts in [
        [stage.at("e", "/e"), file("/e/dir")],
        [stage.at("e", "/e"), stage.at("f", "/e/logs/message")],
        [file("/m"), stage.at("f", "/m/below")],
    ] {
        let said = stage.join(&mounts).unwrap_err();
        assert!(said.message.contains("cover each other"), "{said}");
    }
}

#[test]
fn each_mount_is_read_only_or_not_by_itself() {
    let stage = Stage::new();
    let (e, f) = (stage.at("e", "/e"), stage.at("f", "/e/f"));
    fs::create_dir(e.source.join("f")).unwrap();
    for (outer, inner) in [(false, false), (false, true), (true, false), (true, true)] {
        let of = |mount: &Mount, wanted| match wanted {
            true => read_only(mount.clone()),
            false => mount.clone(),
        };
        let place = stage.joined(&[of(&e, outer), of(&f, inner)]);
        assert_eq!(is_read_only(&place), outer, "{outer} {inner}");
        assert_eq!(is_read_only(&place.join("f")), inner, "{outer} {inner}");
        assert!(!is_read_only(&e.source) && !is_read_only(&f.source));
    }
}

#[test]
fn a_read_only_mount_keeps_what_else_is_said_of_it() {
    let stage = Stage::new();
    let e = stage.at("e", "/e");
    let none = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, &e.source, Some("tmpfs"), flags, none).unwrap();
    fs::create_dir(e.source.join("f")).unwrap();
    let place = stage.joined(&[read_only(e), stage.at("f", "/e/f")]);
    let flags = nix::sys::statvfs::statvfs(&place).unwrap().flags();
    use nix::sys::statvfs::FsFlags;
    let kept = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    assert!(flags.contains(kept), "{flags:?}");
}

#[test]
fn nothing_is_made_in_a_volume_that_is_mounted_read_only() {
    let stage = Stage::new();
    let outer = read_only(stage.at("e", "/e"));
    let said = stage.join(&[outer, stage.at("f", "/e/new/f")]).unwrap_err();
    assert_eq!(said.reason, "CreateContainerConfigError");
    for part in ["\"/e/new/f\"", "\"/e\"", "read-only"] {
        assert!(said.message.contains(part), "{said}");
    }
    assert!(!stage.root().join("volumes/e/new").exists());
}

#[test]
fn a_link_in_a_volume_leads_no_other_volume_away() {
    let stage = Stage::new();
    let e = stage.at("e", "/e");
    fs::create_dir(e.source.join("dir")).unwrap();
    for link in ["link", "dir/link"] {
        symlink(stage.node(), e.source.join(link)).unwrap();
    }
    for target in ["/e/link", "/e/link/new", "/e/dir/link", "/e/dir/link/a/b"] {
        let said = stage.join(&[e.clone(), stage.at("f", target)]).unwrap_err();
        assert!(said.message.contains("symbolic link"), "{target}: {said}");
        assert_eq!(said.reason, "CreateContainerConfigError");
    }
    assert_eq!(fs::read_dir(stage.node()).unwrap().count(), 1);
    // A link inside the volume between the two counts, not one that this volume covers.
    symlink(stage.node(), e.source.join("a")).unwrap();
    fs::remove_file(e.source.join("a")).unwrap();
    fs::create_dir(e.source.join("a")).unwrap();
    symlink(stage.node(), e.source.join("a/b")).unwrap();
    let [a, b] = [stage.at("f", "/e/a"), stage.at("g", "/e/a/b")];
    stage.join(&[e.clone(), a.clone(), b.clone()]).unwrap();
    stage.dir.mount_sub_paths("c", &[]).unwrap();
    fs::remove_dir(a.source.join("b")).unwrap();
    symlink(stage.node(), a.source.join("b")).unwrap();
    assert!(stage.join(&[e, a, b]).is_err());
}

/// As the Engine does it: the place is looked at, then mounted at by its path.
fn join_by_path(e: &Mount, place: &Path, f: &Mount) -> bool {
    let at = place.join("in/f");
    bind(&e.source, place);
    let straight = fs::symlink_metadata(place.join("in")).is_ok_and(|it| it.is_dir());
    let none = None::<&str>;
    let mounted = straight && mount(Some(&f.source), &at, none, MsFlags::MS_BIND, none).is_ok();
    let outside = mounted && fs::metadata(stage_secret(e).join("f")).unwrap().ino() == inode(f);
    mounts::detach_below(place).unwrap();
    mounts::detach_below(&stage_secret(e)).unwrap();
    outside
}

fn stage_secret(e: &Mount) -> PathBuf {
    e.source.ancestors().nth(4).unwrap().join("node")
}

fn inode(mount: &Mount) -> u64 {
    fs::metadata(&mount.source).unwrap().ino()
}

#[test]
fn a_container_that_swaps_the_place_of_a_mount_for_a_link_while_others_start_wins_nothing() {
    let stage = Stage::new();
    let (e, f) = (stage.at("e", "/e"), stage.at("f", "/e/in/f"));
    let proc_mount = stage.at("f", "/e/in");
    fs::create_dir_all(e.source.join("in/f")).unwrap();
    fs::create_dir(stage.node().join("f")).unwrap();
    symlink(stage.node(), e.source.join("link")).unwrap();
    symlink("/proc/sys", e.source.join("proc")).unwrap();
    let of = |name: &str| e.source.join(name);
    let over = AtomicBool::new(false);
    let (mut mounted, mut refused, mut by_path) = (0, 0, 0);
    let secret = inode(&stage.at("f", "/unused"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As in a container: what is a mount point in another mount namespace can be renamed.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
            mount(none, "/", none, private, none).unwrap();
            while !over.load(Ordering::Relaxed) {
                for link in ["link", "proc"] {
                    for _ in 0..2 {
                        renameat_with(CWD, of("in"), CWD, of(link), RenameFlags::EXCHANGE).unwrap();
                    }
                }
            }
        });
        for round in 0..300 {
            let inner = [&f, &proc_mount][round % 2];
            match stage.join(&[e.clone(), inner.clone()]) {
                Ok(_) => mounted += 1,
                Err(_) => refused += 1,
            }
            let outside = [stage.node().join("f"), stage.node(), "/proc/sys".into()];
            for path in outside {
                let found = fs::metadata(&path).unwrap().ino();
                assert_ne!(found, secret, "{} is covered", path.display());
            }
        }
        // This test sees an attack that succeeds.
        let place = stage.root().join("by-path");
        fs::create_dir(&place).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while by_path == 0 && std::time::Instant::now() < deadline {
            by_path += usize::from(join_by_path(&e, &place, &f));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(mounted > 0 && refused > 0, "{mounted} {refused}");
    assert!(by_path > 0, "no attack was one");
    let list = mounts::list().unwrap();
    let inside = |it: &&mounts::Mounted| it.point.starts_with(stage.node());
    assert_eq!(list.iter().filter(inside).count(), 0);
    assert!(
        !list
            .iter()
            .any(|it| it.point.starts_with("/proc/sys/kernel"))
    );
    fs::remove_dir(stage.node().join("f")).unwrap();
}

#[test]
fn a_restarted_agent_finds_joined_mounts_and_makes_them_anew() {
    let stage = Stage::new();
    let mounts = [stage.at("e", "/e"), stage.at("f", "/e/f")];
    let of_pod = || {
        let mut list = mounts::list().unwrap();
        list.retain(|it| it.point.starts_with(stage.root()));
        list.len()
    };
    for _ in 0..3 {
        stage.joined(&mounts);
        assert_eq!(of_pod(), 2);
    }
    // One that died before it was done left its bench.
    let bench = stage.dir.sub_paths("c", 0).join("bench");
    bind(&bench, &bench);
    fs::create_dir_all(bench.join("0")).unwrap();
    bind(&stage.node(), &bench.join("0"));
    stage.joined(&mounts);
    assert_eq!(of_pod(), 2);
    fs::write(stage.root().join("volumes/e/kept"), "x").unwrap();
    stage.dir.remove_volumes().unwrap();
    assert_eq!(of_pod(), 0);
    assert!(!stage.root().join("sub-paths").exists());
}

#[test]
fn what_is_mounted_on_the_node_later_reaches_a_volume_that_follows_it_and_nothing_goes_back() {
    let stage = Stage::new();
    let shared = stage.at("e", "/e");
    let none = None::<&str>;
    bind(&shared.source, &shared.source);
    mount(none, &shared.source, none, MsFlags::MS_SHARED, none).unwrap();
    for name in ["f", "late"] {
        fs::create_dir(shared.source.join(name)).unwrap();
    }
    let follows = |propagation| Mount {
        propagation,
        ..shared.clone()
    };
    let inner = stage.at("f", "/e/f");
    let given = stage.join(&[follows(Propagation::HostToContainer), inner.clone()]);
    let given = given.unwrap().remove(0);
    assert_eq!(given.propagation, Propagation::HostToContainer);
    bind(&stage.node(), &shared.source.join("late"));
    assert!(given.source.join("late/secret").exists());
    let back = fs::metadata(shared.source.join("f")).unwrap().ino();
    assert_ne!(back, inode(&inner));
    let both_ways = follows(Propagation::Bidirectional);
    let said = stage.join(&[both_ways, inner]).unwrap_err();
    assert!(said.message.contains("mountPropagation"), "{said}");
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

const MIB: u64 = 1 << 20;

fn wanted(bytes: u64) -> Wanted {
    Wanted {
        name: "pvc-1".to_owned(),
        bytes,
        thick: false,
        options: Vec::new(),
        is_block: false,
    }
}

/// The same volume as a device.
fn device(bytes: u64) -> Wanted {
    Wanted {
        is_block: true,
        ..wanted(bytes)
    }
}

fn loop_devices(of: &Path) -> String {
    let mut losetup = std::process::Command::new("losetup");
    let found = losetup.arg("--associated").arg(of.join("image"));
    String::from_utf8(found.output().unwrap().stdout).unwrap()
}

/// The kernel gives a loop device up when its last mount is gone, and a namespace that another process makes meanwhile has
/// a copy of it for a moment.
fn wait_until_detached(image: &Path) {
    let gone = || Ok(loop_devices(image).is_empty().then_some(()));
    tests::cluster::wait("its loop device is given up", gone);
}

#[test]
fn a_local_volume_keeps_its_size_and_its_files_until_it_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::new(temp.path());
    let dir = temp.path().join("images/pvc-1");
    let data = images.take(&wanted(32 * MIB), "u1").unwrap();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    // More than the volume has cannot be written, whatever the disk has.
    let block = vec![1; MIB as usize];
    let mut file = fs::File::create(data.join("fill")).unwrap();
    let full = (0..64).find_map(|_| std::io::Write::write_all(&mut file, &block).err());
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    fs::write(data.join("fill"), "kept").unwrap();
    // A second pod has the same volume, and the first goes.
    assert_eq!(images.take(&wanted(32 * MIB), "u2").unwrap(), data);
    images.release("u1").unwrap();
    assert!(images.remove("pvc-1").is_err());
    assert_eq!(fs::read_to_string(data.join("fill")).unwrap(), "kept");
    images.release("u2").unwrap();
    assert!(!data.exists());
    wait_until_detached(&dir);
    // As after a reboot: nothing is mounted, and the next pod finds its files.
    images.take(&wanted(32 * MIB), "u3").unwrap();
    assert_eq!(fs::read_to_string(data.join("fill")).unwrap(), "kept");
    images.release("u3").unwrap();
    images.remove("pvc-1").unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_local_volume_grows_at_once_or_when_it_is_mounted_the_next_time() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::new(temp.path());
    assert!(images.grow("pvc-1", 64 * MIB).unwrap());
    let data = images.take(&wanted(32 * MIB), "u1").unwrap();
    fs::write(data.join("f"), "kept").unwrap();
    let at_once = images.grow("pvc-1", 64 * MIB).unwrap();
    assert_eq!(
        images.size("pvc-1"),
        Some(if at_once { 64 * MIB } else { 32 * MIB })
    );
    images.release("u1").unwrap();
    images.take(&wanted(64 * MIB), "u2").unwrap();
    assert_eq!(images.size("pvc-1"), Some(64 * MIB));
    fs::write(data.join("g"), vec![1; 48 * MIB as usize]).unwrap();
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "kept");
    images.release("u2").unwrap();
    // Unmounted, it grows at once. It never shrinks.
    assert!(images.grow("pvc-1", 96 * MIB).unwrap());
    assert!(images.grow("pvc-1", 8 * MIB).unwrap());
    assert_eq!(images.size("pvc-1"), Some(96 * MIB));
    images.remove("pvc-1").unwrap();
}

fn bytes_of(device: &Path) -> u64 {
    let mut file = fs::File::open(device).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap()
}

#[test]
fn a_volume_that_is_a_device_keeps_what_is_on_it_and_grows() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::new(temp.path());
    let disk = images.take(&device(8 * MIB), "u1").unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_block_device(
        &fs::metadata(&disk).unwrap().file_type()
    ));
    assert_eq!(bytes_of(&disk), 8 * MIB);
    fs::OpenOptions::new()
        .write(true)
        .open(&disk)
        .unwrap()
        .write_all(b"kept")
        .unwrap();
    assert_eq!(images.take(&device(8 * MIB), "u2").unwrap(), disk);
    assert!(images.grow("pvc-1", 16 * MIB).unwrap());
    assert_eq!(
        (bytes_of(&disk), images.size("pvc-1")),
        (16 * MIB, Some(16 * MIB))
    );
    images.release("u1").unwrap();
    images.release("u2").unwrap();
    assert_eq!(loop_devices(&temp.path().join("images/pvc-1")), "");
    let disk = images.take(&device(16 * MIB), "u3").unwrap();
    let mut found = [0; 4];
    fs::File::open(&disk)
        .unwrap()
        .read_exact(&mut found)
        .unwrap();
    assert_eq!(&found, b"kept");
    images.release("u3").unwrap();
    images.remove("pvc-1").unwrap();
}

#[test]
fn a_pod_that_tells_the_kernel_to_let_go_of_its_device_does_not_get_the_next_volumes() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::new(temp.path());
    let disk = images.take(&device(8 * MIB), "u1").unwrap();
    // What a pod can do that may write the device: LOOP_CLR_FD.
    let detached = std::process::Command::new("losetup")
        .arg("--detach")
        .arg(&disk)
        .status();
    assert!(detached.unwrap().success());
    let dir = temp.path().join("images/pvc-1");
    assert!(loop_devices(&dir).starts_with(disk.to_str().unwrap()));
    let other = Wanted {
        name: "pvc-2".to_owned(),
        ..wanted(8 * MIB)
    };
    images.take(&other, "u2").unwrap();
    let others = loop_devices(&temp.path().join("images/pvc-2"));
    assert!(!others.is_empty() && !others.starts_with(&format!("{}:", disk.display())));
    // Nothing is left when the pod is gone, though the kernel had been told.
    images.release("u1").unwrap();
    images.release("u2").unwrap();
    wait_until_detached(&dir);
    images.remove("pvc-1").unwrap();
    images.remove("pvc-2").unwrap();
}

#[test]
fn a_pod_leads_nothing_out_of_its_local_volume() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::new(temp.path());
    let data = images.take(&wanted(32 * MIB), "u1").unwrap();
    let outside = temp.path().join("outside");
    fs::write(&outside, "of the node").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&outside, data.join("link")).unwrap();
    fs::create_dir(data.join("d")).unwrap();
    symlink(temp.path(), data.join("d/up")).unwrap();
    let root = Dir::open(&data).unwrap();
    sys::ownership::give(&root, 4711).unwrap();
    let found = fs::metadata(&outside).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o777), (0, 0o600));
    assert_eq!(fs::metadata(data.join("d")).unwrap().gid(), 4711);
    assert_eq!(fs::symlink_metadata(data.join("link")).unwrap().gid(), 4711);
    drop(root);
    // The next mount goes where the agent says, not where a link that was left says.
    images.release("u1").unwrap();
    images.take(&wanted(32 * MIB), "u2").unwrap();
    assert!(data.join("link").symlink_metadata().is_ok());
    images.unmount_all().unwrap();
    fs::remove_dir_all(temp.path().join("images/pvc-1/users")).unwrap();
    images.remove("pvc-1").unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "of the node");
}
