//! A storage driver for tests on one node, with its sidecars:
//! `csi-hostpath KUBELET-DIRECTORY DATA-DIRECTORY NODE KUBECONFIG`.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::signal::Signal;
use tests::csi::sidecars::Sidecars;
use tests::csi::{Driver, Sockets};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // A test that is killed leaves no driver.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kubelet, data, node, kubeconfig] = arguments.as_slice() else {
        bail!("csi-hostpath KUBELET-DIRECTORY DATA-DIRECTORY NODE KUBECONFIG");
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let config = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options).await?;
        let sockets = Sockets::of(Path::new(kubelet));
        let sidecars = Sidecars {
            client: Client::try_from(config)?,
            socket: sockets.services.clone(),
        };
        tokio::spawn(sidecars.run());
        Driver::new(node, Path::new(data)).serve(&sockets).await
    })
}
