//! The process of the hollow nodes: this program again, by another first argument.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use sys::{Shutdown, descriptors};

use crate::api_load::side::Side;
use crate::hollow_nodes::{self, Settings};

/// The first argument: `nodes SERVER TOKEN-FILE COUNT DIRECTORY`.
pub const MODE: &str = "nodes";

/// It is killed when this is dropped: nothing of it is needed any more.
pub struct NodesProcess {
    child: Child,
    log: PathBuf,
}

impl NodesProcess {
    pub fn start(count: usize, server: &Side, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = directory.with_extension("log");
        let token = server.kubeconfig().with_file_name("node-token");
        let mut command = Command::new(env::current_exe()?);
        command.args([MODE, &server.url()]).arg(token);
        command.arg(count.to_string()).arg(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log)?).spawn()?;
        Ok(Self { child, log })
    }

    pub fn memory_bytes(&self) -> Result<u64> {
        crate::strangers::resident_bytes(self.child.id())
    }

    /// # Errors
    /// It has ended; the text has what it said.
    pub fn check(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            bail!(
                "the hollow nodes have ended: {}",
                fs::read_to_string(&self.log)?
            );
        }
        Ok(())
    }
}

impl Drop for NodesProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side.
pub fn run(arguments: &[String]) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let [server, token, count, directory] = arguments else {
        bail!("{MODE} SERVER TOKEN-FILE COUNT DIRECTORY");
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    sys::telemetry::init("error")?;
    descriptors::raise_limit();
    let text = fs::read_to_string(token).with_context(|| token.clone())?;
    let settings = Settings {
        server: server.parse()?,
        token: text.trim().to_owned(),
        count: count.parse()?,
        directory: PathBuf::from(directory),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        hollow_nodes::run(settings, &shutdown).await?;
        shutdown.requested().await;
        Ok(())
    })
}
