//! `orchestrator server encrypt`: what Secrets are encrypted with in the store of a server.

use std::path::PathBuf;

use anyhow::Result;

use apiserver::encryption::upkeep::{self, Place, Status};

use super::SERVER_DATA_DIR;

/// See and change what Secrets are encrypted with in the store. The server must be stopped
///
/// Examples:
///   orchestrator server encrypt status
///   orchestrator server encrypt rotate
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Where the server keeps its data
    #[arg(long, global = true, value_name = "DIR", default_value = SERVER_DATA_DIR)]
    data_dir: PathBuf,
    /// The server's --encryption-provider-config, if it has one
    #[arg(long, global = true, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say whether Secrets are encrypted, and with which keys
    Status,
    /// Make a new key, encrypt everything with it, and throw the former keys away
    Rotate,
    /// Store everything as the configuration says; without one, encrypt Secrets with a new key
    Rewrite,
    /// Store Secrets without encryption, and throw the keys away
    Off,
}

pub fn run(args: Args) -> Result<()> {
    let place = Place::in_directory(&args.data_dir, args.encryption_provider_config.as_deref());
    if !place.store.exists() {
        anyhow::bail!(
            "there is no store {}: give --data-dir",
            place.store.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let written = runtime.block_on(async {
        match args.verb {
            Verb::Status => {
                print!("{}", shown(&upkeep::status(&place).await?));
                return Ok(None);
            }
            Verb::Rotate => upkeep::rotate(&place).await,
            Verb::Rewrite => upkeep::rewrite(&place).await,
            Verb::Off => upkeep::off(&place).await,
        }
        .map(Some)
    })?;
    if let Some(count) = written {
        println!(
            "{count} objects stored anew; keys: {}",
            place.file.display()
        );
    }
    Ok(())
}

fn shown(status: &Status) -> String {
    let mut text = format!(
        "new Secrets are {}\n",
        if status.is_on {
            "encrypted"
        } else {
            "not encrypted"
        }
    );
    for (by, count) in &status.secrets {
        let by = match by.as_str() {
            "" => "not encrypted".to_owned(),
            by => format!("encrypted with {by}"),
        };
        text.push_str(&format!("{count} Secrets are {by}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_new_and_old_secrets_are_encrypted_with() {
        let secrets = [(String::new(), 2), ("key \"a\" of aesgcm".to_owned(), 3)];
        let status = Status {
            is_on: true,
            secrets: secrets.into(),
        };
        assert_eq!(
            shown(&status),
            "new Secrets are encrypted\n2 Secrets are not encrypted\n\
             3 Secrets are encrypted with key \"a\" of aesgcm\n"
        );
    }
}
