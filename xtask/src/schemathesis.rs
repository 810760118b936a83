//! `cargo xtask schemathesis [GROUP …]`: requests made from the server's own OpenAPI documents, valid and
//! invalid ones; none may be answered by 5xx. The server is one of its own, without nodes: the requests delete
//! whatever they meet. The last run on each document is a row of `schemathesis/RUNS.md`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    cluster::{dev_dir, workspace},
    command, conformance, guard, kubectl,
    packages::{self, Need},
    processes::wait_for,
    progress::{Progress, Step},
    python, up,
};

const NEEDS: &[Need] = &[("curl", "curl")];
const PACKAGE: &str = "schemathesis==4.32.5";
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A request may take that long.
const REQUEST_TIMEOUT_S: &str = "20";

/// The page of the runs, from the root of the repository.
const PAGE: &str = "xtask/schemathesis/RUNS.md";
const HEAD: &str = "\
# Runs of `cargo xtask schemathesis`

The last run on each document of the API, written by the command itself. A request is a fault if it is answered by
5xx; `hooks.py` has what is left out.

| document | requests | faults | date and commit |
|---|---|---|---|
";

/// The server under test; it ends when this is dropped.
struct Server {
    guard: Child,
    url: String,
    dir: PathBuf,
}

/// `parts`: only documents whose path has one of them, `apis/apps/v1` for one.
pub fn run(parts: &[String], examples: u32) -> Result<ExitCode> {
    let progress = Progress::new();
    let program = progress.step("schemathesis", |step| {
        packages::ensure(NEEDS)?;
        step.note(PACKAGE);
        Ok(python::shown(step, "schemathesis", &[PACKAGE])?.join("bin/schemathesis"))
    })?;
    let binary = progress.step("orchestrator binary", |step| {
        up::build_binary(up::Profile::default(), |build| step.run(build).map(drop))
    })?;
    let server = progress.step("server", |step| {
        let server = Server::start(&binary)?;
        step.note(server.url.clone());
        Ok(server)
    })?;
    let chosen = |path: &String| parts.is_empty() || parts.iter().any(|it| path.contains(it));
    let stamp = conformance::stamp()?;
    let mut failed = Vec::new();
    for path in server.documents()?.into_iter().filter(chosen) {
        let result = progress.step(&path, |step| {
            let checked = server.check(step, &program, &path, examples);
            let text = match &checked {
                Ok(text) => text.clone(),
                Err(error) => format!("{error:#}"),
            };
            let counted = counted(&text);
            step.note(format!("{} requests", counted.requests));
            note(&workspace().join(PAGE), &path, &counted, &stamp)?;
            checked.map(drop)
        });
        failed.extend(result.err().map(|_| path));
    }
    if failed.is_empty() {
        println!("no answer was 5xx");
        return Ok(ExitCode::SUCCESS);
    }
    let (failed, logs) = (failed.join(", "), server.dir.display());
    println!("FAILED: {failed}; what was asked is in {logs}");
    Ok(ExitCode::FAILURE)
}

/// What schemathesis says at its end.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    requests: u64,
    faults: u64,
}

/// `360 generated, 2 found 2 unique failures`, `360 generated, 360 passed`; neither if there is no operation.
fn counted(text: &str) -> Counted {
    let line = text.lines().find(|line| line.contains(" generated, "));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    let before = |word: &str| {
        let at = words.iter().position(|it| it.trim_end_matches(',') == word);
        let number = at.and_then(|at| words.get(at.checked_sub(1)?));
        number.and_then(|number| number.parse().ok())
    };
    Counted {
        requests: before("generated").unwrap_or_default(),
        faults: before("unique").unwrap_or_default(),
    }
}

/// Writes the row of a document in the place of its former one.
fn note(page: &Path, document: &str, counted: &Counted, stamp: &str) -> Result<()> {
    let old = fs::read_to_string(page).unwrap_or_default();
    fs::write(page, with(&old, document, counted, stamp))
        .with_context(|| format!("cannot write {}", page.display()))
}

fn with(page: &str, document: &str, counted: &Counted, stamp: &str) -> String {
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| document"));
    let key = |row: &str| row.split('|').nth(1).unwrap_or_default().trim().to_owned();
    let mut rows: BTreeMap<String, String> = rows.map(|row| (key(row), row.to_owned())).collect();
    let Counted { requests, faults } = counted;
    let row = format!("| {document} | {requests} | {faults} | {stamp} |");
    rows.insert(document.to_owned(), row);
    let rows: Vec<String> = rows.into_values().collect();
    format!("{HEAD}{}\n", rows.join("\n"))
}

impl Server {
    fn start(binary: &Path) -> Result<Self> {
        let dir = dev_dir().join("schemathesis");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec \"$0\" \"$@\" > server.log 2>&1"])
            .arg(binary);
        shell.args([
            "server",
            "--bind",
            &address.to_string(),
            "--data-dir",
            "data",
        ]);
        let server = Self {
            guard: guard::spawn_silent(shell.current_dir(&dir))?,
            url: format!("https://{address}"),
            dir,
        };
        let kubeconfig = server.dir.join("data/admin.kubeconfig");
        if !wait_for(START_TIMEOUT, || kubeconfig.exists()) {
            bail!("the server does not start, see {}", server.dir.display());
        }
        server.write_credentials(&kubeconfig)?;
        if !wait_for(START_TIMEOUT, || server.get("/readyz").is_ok()) {
            bail!("the server is not ready, see {}", server.dir.display());
        }
        Ok(server)
    }

    /// Authority, certificate and key of the administrator, as files.
    fn write_credentials(&self, kubeconfig: &Path) -> Result<()> {
        for (name, field) in [
            ("ca.crt", "clusters[0].cluster.certificate-authority-data"),
            ("client.crt", "users[0].user.client-certificate-data"),
            ("client.key", "users[0].user.client-key-data"),
        ] {
            let mut view = Command::new(kubectl::debian()?);
            view.arg("--kubeconfig").arg(kubeconfig);
            view.args(["config", "view", "--raw", "-o"]);
            let data = command::output(view.arg(format!("jsonpath={{.{field}}}")))?;
            let mut decode = Command::new("base64");
            let text = command::with_input(decode.arg("-d"), data.as_bytes())?;
            fs::write(self.dir.join(name), text)?;
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.current_dir(&self.dir)
            .args(["-sS", "--fail", "--max-time", "20"]);
        curl.args([
            "--cacert",
            "ca.crt",
            "--cert",
            "client.crt",
            "--key",
            "client.key",
        ]);
        command::output(curl.arg(format!("{}{path}", self.url)))
    }

    /// The paths of all documents, `api/v1` for one.
    fn documents(&self) -> Result<Vec<String>> {
        let index: Value = serde_json::from_str(&self.get("/openapi/v3")?)?;
        let paths = index["paths"]
            .as_object()
            .context("the index has no paths")?;
        let documents: Vec<String> = paths.keys().cloned().collect();
        Ok(documents)
    }

    fn check(&self, step: &Step, program: &Path, path: &str, examples: u32) -> Result<String> {
        let mut check = Command::new(program);
        check.current_dir(&self.dir);
        check.env("SCHEMATHESIS_HOOKS", "hooks");
        check.env("PYTHONPATH", workspace().join("xtask/schemathesis"));
        check
            .arg("run")
            .arg(format!("{}/openapi/v3/{path}", self.url));
        check.args(["--url", &self.url, "--tls-verify", "ca.crt"]);
        check.args([
            "--request-cert",
            "client.crt",
            "--request-cert-key",
            "client.key",
        ]);
        check.args(["--checks", "server_fault", "--phases", "fuzzing"]);
        check.args(["--max-examples", &examples.to_string(), "--no-shrink"]);
        check.args([
            "--request-timeout",
            REQUEST_TIMEOUT_S,
            "--continue-on-failure",
        ]);
        // How fast a busy machine makes requests up says nothing about the server.
        check.args(["--suppress-health-check", "all"]);
        check.args(["--warnings", "off", "--no-color"]);
        let result = step.run(&mut check);
        let log = self.dir.join(format!("{}.log", path.replace('/', "_")));
        let text = match &result {
            Ok(text) => text.clone(),
            Err(error) => format!("{error:#}"),
        };
        std::io::Write::write_all(&mut File::create(log)?, text.as_bytes())?;
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard's standard input: its end ends the server.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_counted_by_its_last_lines_and_takes_the_place_of_the_former_one() {
        let of = |requests, faults| Counted { requests, faults };
        let failed = "Test cases:\n  1624 generated, 8 found 8 unique failures, 2 skipped\n";
        assert_eq!(counted(failed), of(1624, 8));
        assert_eq!(counted("  360 generated, 360 passed"), of(360, 0));
        assert_eq!(counted("nothing"), Counted::default());
        let page = with("", "apis/b", &of(3, 1), "then");
        let page = with(&page, "api/v1", &of(4, 0), "then");
        let page = with(&page, "apis/b", &of(5, 0), "now");
        let rows: Vec<&str> = page.lines().skip(7).collect();
        assert_eq!(
            rows,
            ["| api/v1 | 4 | 0 | then |", "| apis/b | 5 | 0 | now |"]
        );
    }
}
