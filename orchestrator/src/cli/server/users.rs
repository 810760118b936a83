//! The flags of `orchestrator server` that say where users come from, named as kube-apiserver's.

use std::path::PathBuf;

use apiserver::Sources;

#[derive(clap::Args)]
pub struct UserArgs {
    /// File with tokens of users, for development: lines of token,user,uid,"group1,group2". Only its
    /// owner may read it
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
}

impl UserArgs {
    /// What the API server is told.
    pub fn sources(&self) -> anyhow::Result<Sources> {
        Ok(Sources {
            token_file: self.token_auth_file.clone(),
        })
    }
}
