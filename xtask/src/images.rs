//! The demo images, made on the machine from Debian's packages: no registry is asked.
//!
//! An image is a root file system (packages unpacked, not installed), a few files of ours, and the
//! settings that the image of that name is known for. Its label holds the recipe's hash: made again
//! only when the recipe changed. An image of that name that is not ours is left alone.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::{cluster::dev_dir, command, engine::Engine, packages};

pub const LABEL: &str = "orchestrator.dev.recipe";

/// Raise it when the way images are put together changes.
const FORMAT: u32 = 1;

pub struct Recipe {
    /// The first is what is looked up; the others are further names of the same image.
    pub tags: &'static [&'static str],
    pub packages: &'static [&'static str],
    /// Packages that those depend on and that the image does without, by the beginning of their name.
    pub without: &'static [&'static str],
    pub files: &'static [(&'static str, &'static str)],
    pub directories: &'static [&'static str],
    pub command: &'static [&'static str],
    pub working_dir: &'static str,
    pub port: Option<u16>,
    pub volume: Option<&'static str>,
    pub stop_signal: &'static str,
}

/// What a recipe has unless it says otherwise.
pub const PLAIN: Recipe = Recipe {
    tags: &[],
    packages: &[],
    without: &[],
    files: &[],
    directories: &[],
    command: &[],
    working_dir: "/",
    port: None,
    volume: None,
    stop_signal: "SIGTERM",
};

const RECIPES: &[Recipe] = &[
    Recipe {
        tags: &["nginx:latest", "nginx:1.7.9"],
        packages: &["nginx"],
        files: &[
            (
                "etc/nginx/nginx.conf",
                include_str!("../images/nginx/nginx.conf"),
            ),
            (
                "etc/nginx/conf.d/default.conf",
                include_str!("../images/nginx/default.conf"),
            ),
            (
                "usr/share/nginx/html/index.html",
                include_str!("../images/nginx/index.html"),
            ),
        ],
        directories: &["var/log/nginx", "var/lib/nginx"],
        command: &["nginx", "-g", "daemon off;"],
        port: Some(80),
        stop_signal: "SIGQUIT",
        ..PLAIN
    },
    Recipe {
        tags: &["redis:latest"],
        packages: &["redis-server"],
        directories: &["data"],
        command: &["redis-server", "--protected-mode", "no"],
        working_dir: "/data",
        port: Some(6379),
        volume: Some("/data"),
        ..PLAIN
    },
    Recipe {
        tags: &["django:latest"],
        packages: &["python3-django", "python3-redis"],
        files: &[("app/app.py", include_str!("../images/django/app.py"))],
        command: &[
            "python3",
            "-u",
            "/app/app.py",
            "runserver",
            "--noreload",
            "0.0.0.0:8080",
        ],
        working_dir: "/app",
        port: Some(8080),
        stop_signal: "SIGINT",
        ..PLAIN
    },
    Recipe {
        tags: &["tools:latest"],
        packages: &["curl"],
        command: &["sleep", "infinity"],
        stop_signal: "SIGKILL",
        ..PLAIN
    },
];

/// Packages that only an installation needs, by the beginning of their name.
const NOT_IN_AN_IMAGE: &[&str] = &[
    "adduser",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "libaudit",
    "libcap2-bin",
    "libfile-find-rule-perl",
    "libgdbm",
    "libnumber-compare-perl",
    "libpam",
    "libperl",
    "libsemanage",
    "libsepol",
    "libtext-glob-perl",
    "lsb-base",
    "passwd",
    "perl",
    "sysvinit-utils",
    "tar_",
    "usrmerge",
];

/// What documentation and translations weigh is no use in a demo.
const PRUNED: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/info",
    "usr/lib/systemd",
    "var/lib/systemd",
];

/// Makes the demo images that are missing or out of date; returns the names of those made.
pub fn ensure(engine: &Engine) -> Result<Vec<&'static str>> {
    ensure_all(engine, RECIPES)
}

/// The same for other recipes.
pub fn ensure_all(
    engine: &Engine,
    recipes: impl IntoIterator<Item = &'static Recipe>,
) -> Result<Vec<&'static str>> {
    let mut made = Vec::new();
    for recipe in recipes {
        let (hash, name) = (recipe.hash(), recipe.tags[0]);
        let mut tags = Vec::new();
        for tag in recipe.tags {
            match label(engine, tag) {
                // An image that somebody pulled under this name does the same and is theirs.
                Some(found) if found == hash || found.is_empty() => {}
                _ => tags.push(*tag),
            }
        }
        if !tags.is_empty() {
            make(engine, recipe, &tags).with_context(|| format!("cannot make the image {name}"))?;
            made.push(name);
        }
    }
    Ok(made)
}

impl Recipe {
    fn hash(&self) -> String {
        let mut hasher = DefaultHasher::new();
        FORMAT.hash(&mut hasher);
        (self.tags, self.packages, self.files, self.directories).hash(&mut hasher);
        (self.command, self.working_dir, self.port).hash(&mut hasher);
        (self.volume, self.stop_signal).hash(&mut hasher);
        (PASSWD, GROUP, self.left_out(), PRUNED).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// The beginnings of the names of packages that are not unpacked.
    fn left_out(&self) -> Vec<&'static str> {
        [NOT_IN_AN_IMAGE, self.without].concat()
    }
}

const PASSWD: &str = include_str!("../images/base/passwd");
const GROUP: &str = include_str!("../images/base/group");

/// The recipe's hash that an image carries: empty for one that is not ours, None without image.
pub fn label(engine: &Engine, image: &str) -> Option<String> {
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    let inspect = ["image", "inspect", "--format", &format, image];
    let found = command::output(engine.client().args(inspect)).ok()?;
    Some(found.trim().replace("<no value>", ""))
}

fn make(engine: &Engine, recipe: &Recipe, tags: &[&str]) -> Result<()> {
    let (name, _) = recipe.tags[0]
        .split_once(':')
        .unwrap_or((recipe.tags[0], ""));
    let dir = dev_dir().join("cache/images").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let root = dir.join("root");
    unpack(recipe, &root)?;
    furnish(recipe, &root)?;
    load(engine, recipe, tags, &dir)?;
    fs::remove_dir_all(&dir).context("cannot remove the unpacked image")
}

fn unpack(recipe: &Recipe, root: &Path) -> Result<()> {
    // Debian has one /usr; the links come first, so that packages unpack through them.
    for dir in ["bin", "sbin", "lib"] {
        fs::create_dir_all(root.join("usr").join(dir))?;
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    fs::create_dir_all(root.join("usr/lib64"))?;
    symlink("usr/lib64", root.join("lib64"))?;
    let wanted = [recipe.packages, &["busybox-static"]].concat();
    for archive in packages::download(&wanted)? {
        let file = archive
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !recipe
            .left_out()
            .iter()
            .any(|start| file.starts_with(start))
        {
            unpack_archive(&archive, root)?;
        }
    }
    Ok(())
}

fn unpack_archive(archive: &Path, root: &Path) -> Result<()> {
    let mut deb = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let stream = deb.stdout.take().context("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .args(["-x", "--keep-directory-symlink", "-C"])
        .arg(root)
        .stdin(stream)
        .status()
        .context("cannot start tar")?;
    if !deb.wait()?.success() || !tar.success() {
        bail!(
            "cannot unpack {}: remove it and try again",
            archive.display()
        );
    }
    Ok(())
}

/// What the packages' scripts would have done, and our own files.
fn furnish(recipe: &Recipe, root: &Path) -> Result<()> {
    for dir in PRUNED {
        let _ = fs::remove_dir_all(root.join(dir));
    }
    for dir in ["etc", "root", "run", "tmp", "var/run"]
        .iter()
        .chain(recipe.directories)
    {
        fs::create_dir_all(root.join(dir))?;
    }
    let base = [("etc/passwd", PASSWD), ("etc/group", GROUP)];
    for (path, content) in base.iter().chain(recipe.files) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    command::run("chmod", ["1777".as_ref(), root.join("tmp").as_os_str()])?;
    let busybox = root.join("usr/bin/busybox");
    for applet in command::run(&busybox.to_string_lossy(), ["--list"])?.lines() {
        let places = ["usr/bin", "usr/sbin"].map(|dir| root.join(dir).join(applet));
        if places.iter().all(|place| place.symlink_metadata().is_err()) {
            symlink("busybox", &places[0])?;
        }
    }
    command::run("ldconfig", ["-r".as_ref(), root.as_os_str()]).map(drop)
}

/// Hands the Engine an archive in the form that `docker save` writes: one layer, its settings, and
/// its names. (`docker import` takes no stop signal.)
fn load(engine: &Engine, recipe: &Recipe, tags: &[&str], dir: &Path) -> Result<()> {
    let layer = dir.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(dir.join("root"))
        .arg("-cf")
        .arg(&layer)
        .args(["--numeric-owner", "."]);
    command::output(&mut tar)?;
    let sum = command::run("sha256sum", [&layer])?;
    let sum = sum
        .split_whitespace()
        .next()
        .context("sha256sum prints no sum")?;
    fs::write(dir.join("config.json"), recipe.config(sum).to_string())?;
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]).to_string();
    fs::write(dir.join("manifest.json"), manifest)?;
    let archive = dir.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir).arg("-cf").arg(&archive);
    command::output(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
    command::output(engine.client().args(["load", "--input"]).arg(&archive)).map(drop)
}

impl Recipe {
    /// The image's settings, as Docker writes them.
    fn config(&self, layer_sum: &str) -> Value {
        let set = |key: Option<String>| -> Value {
            key.map(|key| (key, json!({})))
                .into_iter()
                .collect::<Map<_, _>>()
                .into()
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Cmd": self.command,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": self.working_dir,
                "ExposedPorts": set(self.port.map(|port| format!("{port}/tcp"))),
                "Volumes": set(self.volume.map(str::to_owned)),
                "StopSignal": self.stop_signal,
                "Labels": { LABEL: self.hash() },
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_sum}")] },
        })
    }
}
