//! How a server joins others: `--join TOKEN@ADDRESS`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use apiserver::{SERVER_JOIN_PATH, ServerJoin, ServerJoined, is_shared_file, server_token};
use http::{StatusCode, Uri};
use sys::certificates::{der_of, fingerprint};
use sys::https::{Post, PostError};
use sys::{files, tls};

/// How long a server that cannot take another one now is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);

/// What the file of `--join-file` says; `None`: it is not there any more, and not needed.
pub fn from_file(file: &Path, has_joined: bool) -> Result<Option<String>> {
    let shown = file.display();
    let text = files::read_if_present(file);
    let text = text.with_context(|| format!("--join-file {shown} cannot be read"))?;
    if text.is_none() && !has_joined {
        bail!(
            "there is no file {shown} (--join-file), and this server has not joined yet: make one with \
             `orchestrator server token` on another server. The first server of a cluster is started without \
             the flag"
        );
    }
    Ok(text)
}

/// Asks a server to take this one in, and keeps what all servers share.
pub async fn ask(join: &str, request: ServerJoin, pki: &Path) -> Result<ServerJoined> {
    let (token, server) = parse(join)?;
    let (authority, signed) = server_token::parse(token)
        .context("--join: the token does not read: `orchestrator server token` makes one")?;
    check_own(pki, authority)?;
    let body = serde_json::to_string(&request)?;
    let started = Instant::now();
    let joined = loop {
        let post = Post {
            server: &server,
            path: SERVER_JOIN_PATH,
            bearer: Some(signed),
            body: body.clone(),
        };
        let why = match post.send(tls::pinned_client_config(authority)?).await {
            Ok((StatusCode::OK, answer)) => break answer,
            Ok((status, answer)) if status.is_server_error() => said(&answer),
            Ok((_, answer)) => bail!("{server} refused this server: {}", said(&answer)),
            Err(error @ PostError::Unreachable { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if started.elapsed() > PATIENCE {
            bail!("this server could not join: {why}");
        }
        tracing::warn!(why, "this server cannot join yet");
        tokio::time::sleep(PAUSE).await;
    };
    let joined: ServerJoined =
        serde_json::from_slice(&joined).map_err(|_| anyhow::anyhow!("the answer does not read"))?;
    keep(&joined, pki, authority)?;
    Ok(joined)
}

/// `TOKEN@HOST:PORT`; a URL is taken, too.
fn parse(join: &str) -> Result<(&str, Uri)> {
    let wrong = "--join: write it as TOKEN@ADDRESS:PORT, as `orchestrator server token` prints it";
    let (token, address) = join.trim().split_once('@').context(wrong)?;
    let address = address.strip_prefix("https://").unwrap_or(address);
    let server: Uri = format!("https://{address}").parse().context(wrong)?;
    if server.port_u16().is_none() || server.path() != "/" {
        bail!("{wrong}");
    }
    Ok((token, server))
}

/// A server that has an authority already joins no cluster of another one.
fn check_own(pki: &Path, authority: &str) -> Result<()> {
    let path = pki.join("ca.crt");
    let Some(own) = files::read_if_present(&path)? else {
        return Ok(());
    };
    if fingerprint(&der_of(&own)?) != authority {
        bail!(
            "{} is the authority of another cluster than the token's: give another --data-dir, or move \
             that one away",
            path.display()
        );
    }
    Ok(())
}

fn keep(joined: &ServerJoined, pki: &Path, authority: &str) -> Result<()> {
    let shown = joined
        .files
        .get("ca.crt")
        .context("the answer has no authority")?;
    if fingerprint(&der_of(shown)?) != authority {
        bail!("the answer's authority is not the token's");
    }
    files::create_private_dir(pki)?;
    for (name, text) in &joined.files {
        if !is_shared_file(name) {
            bail!("the answer has a file {name:?}, which servers do not share");
        }
        files::write_atomic(&pki.join(name), text.as_bytes(), files::PRIVATE)
            .with_context(|| format!("{name} cannot be written"))?;
    }
    Ok(())
}

/// The message of a Kubernetes status.
fn said(answer: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    match status["message"].as_str() {
        Some(message) => message.chars().take(500).collect(),
        None => "it did not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_join_is_a_token_and_an_address() {
        let (token, server) = parse("a.b.c.d@10.0.0.1:6443\n").expect("a join");
        assert_eq!(
            (token, server.to_string()),
            ("a.b.c.d", "https://10.0.0.1:6443/".to_owned())
        );
        let (_, server) = parse("a@https://[fd00::1]:6443").expect("a join");
        assert_eq!(server.port_u16(), Some(6443));
        for wrong in ["", "a", "a@", "a@b", "a@b:1/c", "a@b c:1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_has_not_joined_does_not_start_without_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("join");
        let why = from_file(&file, false).err().map(|it| it.to_string());
        assert!(why.unwrap_or_default().contains("has not joined yet"));
        assert_eq!(from_file(&file, true).expect("not needed"), None);
        std::fs::write(&file, "a@b:1").expect("a file");
        let read = from_file(&file, false).expect("read");
        assert_eq!(read.as_deref(), Some("a@b:1"));
    }

    fn answer(names: &[&str]) -> (ServerJoined, String) {
        let now = Timestamp::now();
        let authority = sys::certificates::Authority::create("a", now).expect("an authority");
        let certificate = authority.certificate().to_owned();
        let print = fingerprint(&der_of(&certificate).expect("a certificate"));
        let files = names
            .iter()
            .map(|name| ((*name).to_owned(), certificate.clone()));
        let joined = ServerJoined {
            files: files.collect(),
            name: "a".to_owned(),
            initial_cluster: String::new(),
            clients: Vec::new(),
        };
        (joined, print)
    }

    #[test]
    fn nothing_is_kept_beside_what_servers_share() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path().join("pki");
        let (good, print) = answer(&["ca.crt", "ca.key"]);
        keep(&good, &pki, &print).expect("kept");
        assert!(check_own(&pki, &print).is_ok());
        assert!(
            check_own(&pki, &"0".repeat(64)).is_err(),
            "another cluster's"
        );
        assert!(
            keep(&good, &pki, &"0".repeat(64)).is_err(),
            "another authority"
        );
        for outside in ["../evil", "/tmp/evil", "admin.crt"] {
            let (evil, print) = answer(&["ca.crt", outside]);
            assert!(keep(&evil, &pki, &print).is_err(), "{outside}");
        }
        assert!(!directory.path().join("evil").exists());
    }
}
