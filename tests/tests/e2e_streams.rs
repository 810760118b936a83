//! What reaches into containers, by every kubectl of this machine and by `orchestrator`: exec, cp, attach,
//! port-forward, logs, debug, proxy.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;
use tests::cluster::{Cluster, kubectls, output, wait};

/// The oldest, the newest, and between them where clients changed their ways.
const WANTED: [u32; 4] = [20, 27, 30, 33];
/// More than all buffers between two ends.
const LARGE: usize = 48 * 1024 * 1024;

#[test]
fn every_client_reaches_into_containers() {
    let cluster = Cluster::up("streams", 2).unwrap();
    let kubectl = cluster.client().unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": [
            {"name": "web", "image": "nginx", "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 80}]},
            {"name": "shell", "image": "tools", "imagePullPolicy": "IfNotPresent",
                "command": ["sh"], "stdin": true, "tty": true}]},
    });
    kubectl.given("create", &pod).unwrap();
    kubectl
        .run("wait --for=condition=Ready pod/web --timeout=80s")
        .unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"},
            "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    });
    kubectl.given("create", &service).unwrap();
    let own = tests::cluster::workspace().join(".dev/bin/orchestrator");
    let clients = kubectls().into_iter();
    let clients = clients.filter(|(minor, _)| WANTED.contains(minor));
    let mut clients: Vec<_> = clients
        .map(|(minor, path)| (format!("kubectl 1.{minor}"), path))
        .collect();
    if own.exists() {
        clients.push(("orchestrator".to_owned(), own));
    }
    for (name, program) in &clients {
        println!("{name}");
        let client = Client {
            program,
            kubeconfig: cluster.dir().join("kubeconfig"),
        };
        client.commands().context(name.clone()).unwrap();
        client.large().context(name.clone()).unwrap();
        client.files().context(name.clone()).unwrap();
        client.ports().context(name.clone()).unwrap();
        client.logs().context(name.clone()).unwrap();
        client.attached().context(name.clone()).unwrap();
    }
    let newest = clients
        .iter()
        .rfind(|(name, _)| name.starts_with("kubectl"));
    if let Some((_, program)) = newest {
        let client = Client {
            program,
            kubeconfig: cluster.dir().join("kubeconfig"),
        };
        client.proxied().unwrap();
        client.debugged().unwrap();
    }
    cluster.down().unwrap();
}

struct Client<'a> {
    program: &'a Path,
    kubeconfig: std::path::PathBuf,
}

/// Ends a client by the `timeout` that it runs under, which hands a polite signal on and no other.
fn stop(child: &Child) {
    let Ok(pid) = i32::try_from(child.id()) else {
        return;
    };
    // It may have ended by itself.
    let _ = signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
}

impl Client<'_> {
    fn command(&self, words: &[&str]) -> Command {
        // A client that hangs must not hang the test.
        let mut command = Command::new("timeout");
        command.arg("120").arg(self.program);
        // `orchestrator` has it behind the verb.
        command.args(&words[..1]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(&words[1..]);
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(words))
    }

    fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().context("cannot start it")
    }

    fn commands(&self) -> Result<()> {
        let said = self.run(&["exec", "web", "-c", "web", "--", "echo", "a  b", "$HOME"])?;
        ensure!(said == "a  b $HOME\n", "{said:?}");
        let failed = self
            .command(&[
                "exec",
                "web",
                "-c",
                "web",
                "--",
                "sh",
                "-c",
                "echo out; echo err >&2; exit 7",
            ])
            .output()?;
        ensure!(failed.status.code() == Some(7), "{failed:?}");
        ensure!(failed.stdout == b"out\n", "{failed:?}");
        ensure!(failed.stderr.starts_with(b"err\n"), "{failed:?}");
        let mut child = self.start(&["exec", "-i", "web", "-c", "web", "--", "wc", "-c"])?;
        child.stdin.take().context("stdin")?.write_all(b"12345")?;
        let counted = child.wait_with_output()?;
        ensure!(counted.stdout == b"5\n", "stdin ends: {counted:?}");
        let missing = self
            .command(&["exec", "web", "-c", "none", "--", "ls"])
            .output()?;
        ensure!(!missing.status.success());
        Ok(())
    }

    /// Both ways through `cat`, and nothing is lost.
    fn large(&self) -> Result<()> {
        let bytes: Vec<u8> = (0..LARGE).map(|n| (n / 7 % 251) as u8).collect();
        let mut child = self.start(&["exec", "-i", "web", "-c", "web", "--", "cat"])?;
        let mut stdin = child.stdin.take().context("stdin")?;
        let mut stdout = child.stdout.take().context("stdout")?;
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || stdin.write_all(&sent));
        let mut heard = Vec::with_capacity(bytes.len());
        stdout.read_to_end(&mut heard)?;
        sending.join().expect("no panic")?;
        ensure!(child.wait()?.success());
        ensure!(
            heard.len() == bytes.len(),
            "{} of {LARGE} bytes",
            heard.len()
        );
        ensure!(heard == bytes, "bytes were changed");
        Ok(())
    }

    fn files(&self) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let from = directory.path().join("from");
        fs::create_dir_all(from.join("inner"))?;
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
        fs::write(from.join("inner/data"), &bytes)?;
        fs::write(from.join("small"), "small")?;
        let (from, to) = (from.to_string_lossy(), directory.path().join("to"));
        self.run(&["exec", "web", "-c", "web", "--", "rm", "-rf", "/tmp/copied"])?;
        self.run(&["cp", &from, "web:/tmp/copied", "-c", "web"])?;
        let list = self.run(&["exec", "web", "-c", "web", "--", "ls", "/tmp/copied"])?;
        ensure!(list == "inner\nsmall\n", "{list:?}");
        self.run(&["cp", "web:/tmp/copied", &to.to_string_lossy(), "-c", "web"])?;
        ensure!(
            fs::read(to.join("inner/data"))? == bytes,
            "the copy differs"
        );
        ensure!(fs::read_to_string(to.join("small"))? == "small");
        Ok(())
    }

    fn ports(&self) -> Result<()> {
        for what in ["pod/web", "svc/web"] {
            let remote = if what == "svc/web" { ":8080" } else { ":80" };
            let mut child = self.start(&["port-forward", what, remote])?;
            let checked = forwarded(&mut child);
            // It goes on until it is told to end.
            stop(&child);
            child.wait()?;
            checked.with_context(|| what.to_owned())?;
        }
        Ok(())
    }

    fn logs(&self) -> Result<()> {
        let line = self.run(&["logs", "web", "-c", "web", "--tail=1"])?;
        ensure!(line.lines().count() == 1, "{line:?}");
        let timed = self.run(&["logs", "web", "-c", "web", "--tail=1", "--timestamps"])?;
        ensure!(timed.starts_with("20"), "{timed:?}");
        let cut = self.run(&["logs", "web", "-c", "web", "--limit-bytes=7"])?;
        ensure!(cut.len() == 7, "{cut:?}");
        let none = self.run(&["logs", "web", "-c", "web", "--tail=0"])?;
        ensure!(none.is_empty(), "{none:?}");
        let all = self.run(&["logs", "-l", "app=web", "--all-containers"])?;
        ensure!(all.contains("GET / HTTP"), "{all:?}");
        let previous = self.command(&["logs", "web", "-c", "web", "-p"]).output()?;
        ensure!(!previous.status.success(), "{previous:?}");
        Ok(())
    }

    /// To the shell that waits for it, which goes on afterwards.
    fn attached(&self) -> Result<()> {
        let mut child = self.start(&["attach", "-i", "web", "-c", "shell"])?;
        let mut stdin = child.stdin.take().context("stdin")?;
        stdin.write_all(b"echo $((6 * 7))x\n")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let answered = stdout.lines().map_while(Result::ok);
        let answered = { answered }.any(|line| line.contains("42x"));
        stop(&child);
        child.wait()?;
        ensure!(answered, "the shell does not answer");
        let restarts = self.run(&["get", "pod", "web"])?;
        ensure!(restarts.contains("2/2"), "{restarts}");
        Ok(())
    }

    fn proxied(&self) -> Result<()> {
        for path in [
            "/api/v1/namespaces/default/pods/web/proxy/",
            "/api/v1/namespaces/default/services/web:http/proxy/",
            "/api/v1/namespaces/default/services/http:web:8080/proxy/",
        ] {
            let page = self.run(&["get", "--raw", path])?;
            ensure!(page.contains("Welcome to nginx!"), "{path}: {page}");
        }
        let mut child = self.start(&["proxy", "--port=0"])?;
        let checked = through_proxy(&mut child);
        stop(&child);
        child.wait()?;
        checked
    }

    fn debugged(&self) -> Result<()> {
        let said = self.run(&[
            "debug",
            "web",
            "--image=tools",
            "--target=web",
            "--image-pull-policy=IfNotPresent",
            "-c",
            "look",
            "--attach=false",
            "--",
            "sh",
            "-c",
            "cat /proc/1/comm; sleep 1000",
        ]);
        said?;
        wait("the debugger sees the processes of its target", || {
            let log = self.run(&["logs", "web", "-c", "look"])?;
            Ok(log.contains("nginx").then_some(()))
        });
        let state = self.run(&[
            "get",
            "pod",
            "web",
            "-o",
            "jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}",
        ])?;
        ensure!(state.starts_with("20"), "{state:?}");
        let said = self.run(&["exec", "web", "-c", "look", "--", "echo", "hello"])?;
        ensure!(said == "hello\n", "{said:?}");
        self.run(&[
            "debug",
            "web",
            "--copy-to=copy",
            "--image=tools",
            "--image-pull-policy=IfNotPresent",
            "-c",
            "extra",
            "--attach=false",
            "--",
            "sleep",
            "1000",
        ])?;
        let waited = self.run(&["wait", "--for=condition=Ready", "pod/copy", "--timeout=80s"]);
        waited.map(drop)
    }
}

/// The answer of the pod to a request through a forwarded port.
fn forwarded(child: &mut Child) -> Result<()> {
    let mut lines = BufReader::new(child.stdout.as_mut().context("stdout")?).lines();
    let said = lines.next().context("it ended")??;
    let port = said.strip_prefix("Forwarding from 127.0.0.1:");
    let port = port
        .and_then(|rest| rest.split(' ').next())
        .context(said.clone())?;
    for _ in 0..50 {
        let page = get(&format!("127.0.0.1:{port}"), "/")?;
        ensure!(page.contains("Welcome to nginx!"), "{page}");
    }
    Ok(())
}

fn through_proxy(child: &mut Child) -> Result<()> {
    let mut lines = BufReader::new(child.stdout.as_mut().context("stdout")?).lines();
    let said = lines.next().context("it ended")??;
    let address = said.rsplit(' ').next().context("no address")?;
    let page = get(
        address,
        "/api/v1/namespaces/default/services/web:http/proxy/",
    )?;
    ensure!(page.contains("Welcome to nginx!"), "{page}");
    Ok(())
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
