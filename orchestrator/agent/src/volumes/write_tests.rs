use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

fn files(listed: &[(&str, &str)]) -> Files {
    let listed = listed.iter().map(|(path, text)| {
        let file = File {
            bytes: text.as_bytes().to_vec(),
            mode: 0o644,
            owner: None,
        };
        ((*path).to_owned(), file)
    });
    listed.collect()
}

/// A volume, and beside it what an attack aims at.
struct Stage {
    temp: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let temp = tempfile::tempdir().expect("a directory");
        fs::create_dir(temp.path().join("volume")).expect("made");
        fs::create_dir(temp.path().join("node")).expect("made");
        fs::write(temp.path().join("node/file"), "the node's").expect("written");
        fs::set_permissions(
            temp.path().join("node/file"),
            fs::Permissions::from_mode(0o600),
        )
        .expect("set");
        Stage { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("volume").join(name)
    }

    fn node(&self, name: &str) -> PathBuf {
        self.temp.path().join("node").join(name)
    }

    fn write(&self, wanted: &Files) -> io::Result<bool> {
        let volume = Dir::open(&self.path("")).expect("opened");
        write(&volume, wanted, None)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| format!("{name}: {e}"))
    }

    fn names(&self) -> Vec<String> {
        let volume = Dir::open(&self.path("")).expect("opened");
        let names = volume.names().expect("read").into_iter();
        names
            .map(|name| name.into_string().expect("text"))
            .collect()
    }

    fn generation(&self) -> String {
        let target = fs::read_link(self.path(DATA)).expect("a link");
        target.into_os_string().into_string().expect("text")
    }

    /// The volume has these files as a write leaves them, and the node's file is what it was.
    fn must_hold(&self, wanted: &Files, after: &str) {
        let generation = self.generation();
        let mut expected: BTreeSet<String> = wanted.keys().map(|it| first(it).to_owned()).collect();
        for name in &expected {
            let target = fs::read_link(self.path(name)).expect(after);
            assert_eq!(target, Path::new(DATA).join(name), "{after}");
        }
        expected.extend([DATA.to_owned(), generation]);
        assert_eq!(BTreeSet::from_iter(self.names()), expected, "{after}");
        for (path, file) in wanted {
            assert_eq!(self.read(path).as_bytes(), file.bytes, "{after}: {path}");
        }
        self.must_be_untouched(after);
    }

    fn must_be_untouched(&self, after: &str) {
        let node = fs::read_dir(self.node("")).expect(after);
        assert_eq!(node.count(), 1, "{after}");
        let text = fs::read_to_string(self.node("file")).expect(after);
        assert_eq!(text, "the node's", "{after}");
        let mode = fs::metadata(self.node("file")).expect(after).mode();
        assert_eq!(mode & 0o7777, 0o600, "{after}");
    }
}

#[test]
fn files_are_links_through_data_and_names_that_went_are_removed() {
    let stage = Stage::new();
    let one = files(&[("a", "one"), ("dir/deep/b", "two"), ("dir/c", "three")]);
    assert!(stage.write(&one).expect("written"));
    stage.must_hold(&one, "the first write");
    let first = stage.generation();
    let two = files(&[("a", "new"), ("dir/c", "three"), ("e", "")]);
    assert!(stage.write(&two).expect("written"));
    stage.must_hold(&two, "an update");
    assert_ne!(stage.generation(), first);
    assert!(stage.write(&Files::new()).expect("written"));
    stage.must_hold(&Files::new(), "nothing is left");
}

#[test]
fn the_same_files_are_not_written_again() {
    let stage = Stage::new();
    let wanted = files(&[("a", "one"), ("dir/b", "two")]);
    stage.write(&wanted).expect("written");
    let before = (
        stage.generation(),
        fs::metadata(stage.path("a")).expect("there").ino(),
    );
    assert!(!stage.write(&wanted).expect("written"));
    let after = (
        stage.generation(),
        fs::metadata(stage.path("a")).expect("there").ino(),
    );
    assert_eq!(before, after);
    let mut stricter = wanted.clone();
    stricter.get_mut("a").expect("a file").mode = 0o400;
    assert!(stage.write(&stricter).expect("written"), "a mode counts");
    let mode = fs::metadata(stage.path("a")).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o400);
}

#[test]
fn the_pods_group_reads_files_and_enters_directories() {
    let stage = Stage::new();
    let own = nix::unistd::getgid().as_raw();
    let mut wanted = files(&[("a", "one"), ("dir/b", "two")]);
    wanted.get_mut("a").expect("a file").mode = 0o400;
    let volume = Dir::open(&stage.path("")).expect("opened");
    write(&volume, &wanted, Some(own)).expect("written");
    let of = |name: &str| {
        let found = fs::metadata(stage.path(name)).expect("there");
        (found.mode() & 0o7777, found.gid())
    };
    assert_eq!(of("a"), (0o440, own));
    assert_eq!(of("dir/b"), (0o644, own));
    assert_eq!(of("dir"), (0o2755, own));
    assert_eq!(of(""), (0o2755, own));
    assert!(!write(&volume, &wanted, Some(own)).expect("written"));
}

/// Puts a link where something was.
fn plant(target: &Path, at: &Path) {
    if at
        .symlink_metadata()
        .is_ok_and(|it| it.file_type().is_dir())
    {
        fs::remove_dir_all(at).expect("removed");
    } else {
        // It may not be there.
        let _ = fs::remove_file(at);
    }
    symlink(target, at).expect("planted");
}

#[test]
fn no_link_that_a_container_planted_is_written_through_or_kept() {
    // Each attack is tried before a write of the same files and before one of new files.
    let old = files(&[("a", "one"), ("dir/b", "two")]);
    let new = files(&[("a", "new"), ("dir/b", "new"), ("c", "new")]);
    let attacks: [(&str, &str); 9] = [
        ("a", "file"),
        ("c", "file"),
        ("dir", ""),
        ("..data", ""),
        ("..data_tmp", ""),
        ("..data_tmp", "file"),
        ("GENERATION", ""),
        ("GENERATION/a", "file"),
        ("GENERATION/dir", ""),
    ];
    for (at, target) in attacks {
        for wanted in [&old, &new] {
            let stage = Stage::new();
            stage.write(&old).expect("written");
            let at = at.replace("GENERATION", &stage.generation());
            plant(&stage.node(target), &stage.path(&at));
            stage.write(wanted).expect(&at);
            stage.must_hold(wanted, &at);
        }
    }
}

#[test]
fn a_link_to_a_file_with_the_same_bytes_counts_as_a_change() {
    let stage = Stage::new();
    let wanted = files(&[("a", "the node's")]);
    stage.write(&wanted).expect("written");
    let at = stage.path(&stage.generation()).join("a");
    plant(&stage.node("file"), &at);
    assert!(stage.write(&wanted).expect("written"));
    stage.must_hold(&wanted, "a link in the generation");
    assert!(
        stage
            .path("..data/a")
            .symlink_metadata()
            .expect("there")
            .is_file()
    );
}

#[test]
fn a_second_name_of_a_file_of_the_node_is_not_written_through() {
    let stage = Stage::new();
    let wanted = files(&[("a", "one")]);
    stage.write(&wanted).expect("written");
    for at in [stage.path(&stage.generation()).join("a"), stage.path("a")] {
        fs::remove_file(&at).expect("removed");
        fs::hard_link(stage.node("file"), &at).expect("linked");
        stage.write(&wanted).expect("written");
        stage.must_hold(&wanted, "a hard link");
    }
}

#[test]
fn what_is_no_file_is_replaced() {
    let stage = Stage::new();
    let wanted = files(&[("a", "one"), ("dir/b", "two")]);
    let fifo = |at: &Path| nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let attacks: [&dyn Fn(); 5] = [
        &|| fifo(&stage.path("a")),
        &|| fs::create_dir_all(stage.path("a/b/c")).expect("made"),
        &|| fs::create_dir_all(stage.path("..data/x")).expect("made"),
        &|| fs::create_dir_all(stage.path("..data_tmp/x")).expect("made"),
        &|| fifo(&stage.path("..data/a")),
    ];
    for (number, attack) in attacks.into_iter().enumerate() {
        stage.write(&wanted).expect("written");
        for name in ["a", "..data_tmp"] {
            // It may not be there.
            let _ = fs::remove_file(stage.path(name));
        }
        match number {
            2 => fs::remove_file(stage.path(DATA)).expect("removed"),
            4 => fs::remove_file(stage.path("..data/a")).expect("removed"),
            _ => {}
        }
        attack();
        stage.write(&wanted).expect("written");
        stage.must_hold(&wanted, &format!("attack {number}"));
    }
}

#[test]
fn what_a_dead_agent_left_is_repaired() {
    let old = files(&[("a", "one"), ("gone", "x")]);
    let new = files(&[("a", "two"), ("b", "two")]);
    let died: [(&str, &dyn Fn(&Stage)); 5] = [
        ("in a generation", &|stage| {
            fs::create_dir(stage.path("..half")).expect("made");
            fs::write(stage.path("..half/a"), "tw").expect("written");
        }),
        ("before the swap", &|stage| {
            symlink("..data/b", stage.path("b")).expect("linked");
            symlink("..half", stage.path(NEXT)).expect("linked");
        }),
        ("after the swap", &|stage| {
            let volume = Dir::open(&stage.path("")).expect("opened");
            let fresh = make_generation(&volume, &new, None).expect("made");
            swap(&volume, &fresh).expect("swapped");
        }),
        ("before it linked a name", &|stage| {
            fs::remove_file(stage.path("a")).expect("removed");
        }),
        ("before the first swap", &|stage| {
            fs::remove_file(stage.path(DATA)).expect("removed");
        }),
    ];
    for (when, die) in died {
        for wanted in [&old, &new] {
            let stage = Stage::new();
            stage.write(&old).expect("written");
            die(&stage);
            stage.write(wanted).expect(when);
            stage.must_hold(wanted, when);
        }
    }
}

#[test]
fn a_reader_never_sees_the_files_of_two_writes() {
    const WRITES: usize = 300;
    let stage = Stage::new();
    let nth = |number: usize| {
        let text = number.to_string();
        files(&[("a", text.as_str()), ("b", text.as_str())])
    };
    stage.write(&nth(0)).expect("written");
    let done = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // One write, as long as its directory is open. It may go before it is opened.
                let Ok(data) = Dir::open(&stage.path(DATA)) else {
                    continue;
                };
                let pair = ["a", "b"].map(|name| data.read(Path::new(name), 100));
                if let [Ok(a), Ok(b)] = pair {
                    assert_eq!(a, b);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for number in 1..=WRITES {
            stage.write(&nth(number)).expect("written");
        }
        // A reader that never came to read has judged nothing.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while seen.load(Ordering::Relaxed) == 0 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_container_that_swaps_links_during_writes_leads_none_astray() {
    const WRITES: usize = 300;
    let stage = Stage::new();
    let done = AtomicBool::new(false);
    let mut written = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Errors are the rule: the writer is at work on the same names.
            while !done.load(Ordering::Relaxed) {
                for name in ["a", "dir", "..data", "..data_tmp"] {
                    let at = stage.path(name);
                    let _ = fs::remove_file(&at);
                    let _ = symlink(stage.node(""), &at);
                }
                let names = fs::read_dir(stage.path("")).into_iter().flatten().flatten();
                for entry in names.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())) {
                    let inner = entry.path().join("dir");
                    let _ = fs::rename(&inner, entry.path().join("moved"));
                    let _ = symlink(stage.node(""), &inner);
                    let _ = fs::remove_file(entry.path().join("a"));
                    let _ = symlink(stage.node("file"), entry.path().join("a"));
                }
            }
        });
        for number in 0..WRITES {
            let text = number.to_string();
            let wanted = files(&[("a", text.as_str()), ("dir/deep/b", text.as_str())]);
            written += usize::from(stage.write(&wanted).is_ok());
        }
        done.store(true, Ordering::Relaxed);
    });
    stage.must_be_untouched("a race");
    let last = files(&[("a", "last"), ("dir/deep/b", "last")]);
    stage.write(&last).expect("written");
    stage.must_hold(&last, "a race");
    assert!(written > 0, "some writes came through");
}
