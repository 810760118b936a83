//! The images that the tests name, made from Debian's packages: no registry is asked.
//!
//! Two of them are root file systems, the others are a few lines on top of one of the two. An image's label
//! holds the sum of what it is made of, so it is made again only when that changes.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};

use super::build::mirror;
use crate::{command, engine::Engine, images, progress::Step};

/// Debian with the programs that tests call in containers.
const BASE: &str = "e2e-base:1";
const BASE_PACKAGES: &str = "busybox-static,curl,ca-certificates,dnsutils,netcat-openbsd,iproute2,\
    iputils-ping,procps,redis-server,wget,socat,etcd-server";
const BUSYBOX: &str = "busybox:1.29";
const PATH: &str = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Tests that files of other owners keep their rights need a program with set-user-ID.
const NO_NEW_PRIVILEGES: &str = "gcr.io/kubernetes-e2e-test-images/nonewprivs:1.0";
const BUSYBOX_DIRECTORIES: &[&str] = &["bin", "tmp", "etc", "root", "var", "home", "run"];
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// Raise it when the way images are put together changes.
const FORMAT: u32 = 1;

/// An image of a few lines on top of another.
struct Recipe {
    tags: &'static [&'static str],
    lines: &'static [&'static str],
    /// Files of the context that the lines copy.
    files: &'static [&'static str],
}

const fn recipe(
    tags: &'static [&'static str],
    lines: &'static [&'static str],
    files: &'static [&'static str],
) -> Recipe {
    Recipe { tags, lines, files }
}

const AGNHOST: &[&str] = &[
    "FROM e2e-base:1",
    "COPY agnhost agnhost-2 localhost.crt localhost.key /",
    "COPY uploads /uploads",
    "ENTRYPOINT [\"/agnhost\"]",
    "CMD [\"pause\"]",
];
const HTTPD: &[&str] = &[
    "FROM busybox:1.29",
    "COPY htdocs /usr/local/apache2/htdocs",
    "EXPOSE 80",
    "CMD [\"httpd\",\"-f\",\"-p\",\"80\",\"-h\",\"/usr/local/apache2/htdocs\"]",
];
const NGINX: &[&str] = &[
    "FROM busybox:1.29",
    "COPY htdocs /usr/share/nginx/html",
    "EXPOSE 80",
    "CMD [\"httpd\",\"-f\",\"-p\",\"80\",\"-h\",\"/usr/share/nginx/html\"]",
];
const NAUTILUS: &[&str] = &[
    "FROM busybox:1.29",
    "COPY nautilus /usr/share/nginx/html",
    "EXPOSE 80",
    "CMD [\"httpd\",\"-f\",\"-p\",\"80\",\"-h\",\"/usr/share/nginx/html\"]",
];
const KITTEN: &[&str] = &[
    "FROM busybox:1.29",
    "COPY kitten /usr/share/nginx/html",
    "EXPOSE 80",
    "CMD [\"httpd\",\"-f\",\"-p\",\"80\",\"-h\",\"/usr/share/nginx/html\"]",
];

const RECIPES: &[Recipe] = &[
    recipe(
        &["k8s.gcr.io/e2e-test-images/agnhost:2.21"],
        AGNHOST,
        &["agnhost", "localhost.crt", "localhost.key"],
    ),
    recipe(&["httpd:2.4.38-alpine", "httpd:2.4.39-alpine"], HTTPD, &[]),
    recipe(&["nginx:1.14-alpine", "nginx:1.15-alpine"], NGINX, &[]),
    recipe(
        &["gcr.io/kubernetes-e2e-test-images/nautilus:1.0"],
        NAUTILUS,
        &[],
    ),
    recipe(
        &["gcr.io/kubernetes-e2e-test-images/kitten:1.0"],
        KITTEN,
        &[],
    ),
    recipe(
        &["k8s.gcr.io/pause:3.2"],
        &[
            "FROM busybox:1.29",
            "ENTRYPOINT [\"/bin/sleep\",\"100000000\"]",
        ],
        &[],
    ),
    recipe(
        &["redis:5.0.5-alpine"],
        &[
            "FROM e2e-base:1",
            "EXPOSE 6379",
            "CMD [\"redis-server\",\"--protected-mode\",\"no\"]",
        ],
        &[],
    ),
    recipe(
        &["gcr.io/kubernetes-e2e-test-images/jessie-dnsutils:1.0"],
        &["FROM e2e-base:1", "CMD [\"sleep\",\"infinity\"]"],
        &[],
    ),
    recipe(
        &["perl:5.26"],
        &["FROM e2e-base:1", "CMD [\"perl\",\"-v\"]"],
        &[],
    ),
    recipe(
        &["k8s.gcr.io/etcd:3.4.13-0"],
        &["FROM e2e-base:1", "CMD [\"etcd\"]"],
        &[],
    ),
    recipe(
        &["gcr.io/kubernetes-e2e-test-images/sample-apiserver:1.17"],
        &[
            "FROM e2e-base:1",
            "COPY kube-sample-apiserver /kube-sample-apiserver",
            "ENTRYPOINT [\"/kube-sample-apiserver\"]",
        ],
        &["kube-sample-apiserver"],
    ),
];

/// Makes the images that are missing; says how many there are.
pub fn ensure(step: &Step, engine: &Engine, built: &Path) -> Result<String> {
    let work = built.join("images");
    fs::create_dir_all(&work)?;
    roots(step, engine, built, &work)?;
    context(built, &work)?;
    let mut made = 0;
    for recipe in RECIPES {
        let sum = recipe.sum(&work)?;
        let missing = |tag: &&&str| images::label(engine, tag).is_none_or(|found| found != sum);
        let tags: Vec<&str> = recipe.tags.iter().filter(missing).copied().collect();
        if !tags.is_empty() {
            step.show(tags[0]);
            build(step, engine, &work, recipe, &tags, &sum)?;
            made += 1;
        }
    }
    Ok(format!("{} images, {made} made", RECIPES.len() + 3))
}

impl Recipe {
    fn sum(&self, work: &Path) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        (FORMAT, self.lines).hash(&mut hasher);
        for file in self.files {
            let found = fs::metadata(work.join(file)).with_context(|| (*file).to_owned())?;
            found.len().hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// The root file systems: Debian, BusyBox, and BusyBox with a program of set-user-ID.
fn roots(step: &Step, engine: &Engine, built: &Path, work: &Path) -> Result<()> {
    let debian = work.join("root.tar");
    if fs::metadata(&debian).map_or(0, |found| found.len()) == 0 {
        step.show("a Debian of the packages that tests call");
        let mut make = Command::new("mmdebstrap");
        make.args(["--variant=minbase", &format!("--include={BASE_PACKAGES}")]);
        make.arg("--customize-hook=ln -s /usr/bin/etcd \"$1/usr/local/bin/etcd\"");
        step.run(make.arg("bookworm").arg(&debian).arg(mirror()))?;
    }
    import(engine, &debian, BASE, &[])?;
    let bb = work.join("bb");
    busybox(&bb)?;
    import(engine, &packed(&bb)?, BUSYBOX, &["CMD [\"sh\"]", PATH])?;
    let program = bb.join("usr/local/bin/nnp");
    fs::create_dir_all(bb.join("usr/local/bin"))?;
    fs::copy(built.join("nnp"), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755))?;
    let command = ["CMD [\"/usr/local/bin/nnp\"]"];
    import(engine, &packed(&bb)?, NO_NEW_PRIVILEGES, &command)?;
    Ok(fs::remove_dir_all(&bb)?)
}

/// BusyBox, with a link for each of its applets.
fn busybox(root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    for dir in BUSYBOX_DIRECTORIES {
        fs::create_dir_all(root.join(dir))?;
    }
    let program = root.join("bin/busybox");
    fs::copy("/bin/busybox", &program).context("busybox-static is not installed")?;
    for applet in command::run(&program.to_string_lossy(), ["--list"])?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    Ok(fs::write(root.join("etc/group"), GROUP)?)
}

fn packed(root: &Path) -> Result<std::path::PathBuf> {
    let archive = root.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root).arg("-cf").arg(&archive).arg(".");
    command::output(&mut tar)?;
    Ok(archive)
}

/// Imports a root file system, unless the image of that name came of a file of the same size.
fn import(engine: &Engine, archive: &Path, tag: &str, changes: &[&str]) -> Result<()> {
    let sum = format!("{FORMAT}-{}", fs::metadata(archive)?.size());
    if images::label(engine, tag).is_some_and(|found| found == sum) {
        return Ok(());
    }
    let label = format!("LABEL {}={sum}", images::LABEL);
    let mut import = engine.client();
    import.arg("import");
    for change in changes.iter().copied().chain([label.as_str()]) {
        import.args(["--change", change]);
    }
    command::output(import.arg(archive).arg(tag)).map(drop)
}

/// The files that recipes copy.
fn context(built: &Path, work: &Path) -> Result<()> {
    fs::write(work.join(".dockerignore"), "root.tar\nbb\nbb.tar\n")?;
    for (from, to) in [
        ("agnhost", "agnhost"),
        ("agnhost", "agnhost-2"),
        ("localhost.crt", "localhost.crt"),
        ("localhost.key", "localhost.key"),
        ("sample-apiserver", "kube-sample-apiserver"),
    ] {
        let (from, to) = (built.join(from), work.join(to));
        let size = |path: &Path| fs::metadata(path).map(|it| it.len()).ok();
        if size(&from) != size(&to) {
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    for dir in ["uploads", "htdocs", "nautilus", "kitten"] {
        fs::create_dir_all(work.join(dir))?;
    }
    let page = "<html><body><h1>It works!</h1></body></html>\n";
    fs::write(work.join("htdocs/index.html"), page)?;
    for name in ["nautilus", "kitten"] {
        // Pods of the update demo answer with the picture's name.
        let data = format!("{{\n\"image\": \"{name}.jpg\"\n}}\n");
        fs::write(work.join(name).join("data.json"), data)?;
    }
    Ok(())
}

fn build(
    step: &Step,
    engine: &Engine,
    work: &Path,
    recipe: &Recipe,
    tags: &[&str],
    sum: &str,
) -> Result<()> {
    fs::write(work.join("Dockerfile"), recipe.lines.join("\n") + "\n")?;
    let mut docker = engine.client();
    docker
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet"]);
    docker.args(["--label", &format!("{}={sum}", images::LABEL)]);
    for tag in tags {
        docker.args(["--tag", tag]);
    }
    step.run(docker.arg(work)).map(drop)
}
