//! The flags of `orchestrator server` that say where users come from, named as kube-apiserver's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::oidc::Rules;
use apiserver::{OidcConfig, Sources, TokenWebhook};

use super::duration;

#[derive(clap::Args)]
pub struct UserArgs {
    /// File with tokens of users, for development: lines of token,user,uid,"group1,group2". Only its
    /// owner may read it
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// OpenID Connect issuer whose id tokens are users' tokens: an https URL
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Whom its tokens must be for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What users' names begin with; the issuer's URL and # if not given, unless the claim is email; - for
    /// nothing
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_username_prefix: Option<String>,
    /// The claim that is the user's groups; none if not given
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_groups_claim: Option<String>,
    /// What groups' names begin with
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_groups_prefix: Option<String>,
    /// A claim that tokens must have, with this value; may be given several times
    #[arg(
        long,
        value_name = "CLAIM=VALUE[,…]",
        value_delimiter = ',',
        requires = "oidc_issuer_url"
    )]
    oidc_required_claim: Vec<String>,
    /// Authority of the issuer's certificate (PEM); the machine's ones if not given
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// How tokens may be signed: RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512
    #[arg(
        long,
        value_name = "ALG[,ALG]",
        value_delimiter = ',',
        default_value = "RS256"
    )]
    oidc_signing_algs: Vec<String>,
    /// Kubeconfig of a server that is asked about tokens by TokenReviews
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are kept
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration::parse)]
    authentication_token_webhook_cache_ttl: Duration,
}

impl UserArgs {
    /// What the API server is told.
    ///
    /// # Errors
    /// A required claim without a value, or with two.
    pub fn sources(&self) -> Result<Sources> {
        let webhook = self.authentication_token_webhook_config_file.clone();
        Ok(Sources {
            token_file: self.token_auth_file.clone(),
            oidc: self.oidc()?,
            webhook: webhook.map(|config_file| TokenWebhook {
                config_file,
                cache_ttl: self.authentication_token_webhook_cache_ttl,
            }),
        })
    }

    fn oidc(&self) -> Result<Option<OidcConfig>> {
        let Some(issuer) = self.oidc_issuer_url.clone() else {
            return Ok(None);
        };
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        Ok(Some(OidcConfig {
            rules: Rules {
                issuer,
                client_id: text(&self.oidc_client_id),
                required: self.required_claims()?,
                username_claim: self.oidc_username_claim.clone(),
                username_prefix: self.oidc_username_prefix.clone(),
                groups_claim: text(&self.oidc_groups_claim),
                groups_prefix: text(&self.oidc_groups_prefix),
            },
            ca_file: self.oidc_ca_file.clone(),
            signing_algorithms: self.oidc_signing_algs.clone(),
        }))
    }

    fn required_claims(&self) -> Result<BTreeMap<String, String>> {
        let mut claims = BTreeMap::new();
        for given in &self.oidc_required_claim {
            let pair = given.split_once('=').filter(|(claim, _)| !claim.is_empty());
            let (claim, value) =
                pair.with_context(|| format!("--oidc-required-claim {given}: write CLAIM=VALUE"))?;
            if claims.insert(claim.to_owned(), value.to_owned()).is_some() {
                bail!("--oidc-required-claim: {claim} is given more than once");
            }
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(args: &[&str]) -> Result<Sources> {
        use clap::Args as _;
        let command = UserArgs::augment_args(clap::Command::new("server"));
        let matches = command.try_get_matches_from(["server"].iter().chain(args))?;
        <UserArgs as clap::FromArgMatches>::from_arg_matches(&matches)?.sources()
    }

    #[test]
    fn flags_are_kube_apiservers_and_complete_each_other() {
        let none = sources(&[]).expect("none");
        assert!(none.oidc.is_none() && none.webhook.is_none() && none.token_file.is_none());
        let oidc = ["--oidc-issuer-url", "https://i", "--oidc-client-id", "k"];
        let claims = [
            "--oidc-required-claim",
            "a=b,c=d=e",
            "--oidc-signing-algs",
            "ES256,RS256",
        ];
        let given = sources(&[&oidc[..], &claims].concat()).expect("an issuer");
        let given = given.oidc.expect("an issuer");
        assert_eq!(given.rules.username_claim, "sub");
        assert_eq!(given.rules.required["c"], "d=e");
        assert_eq!(given.signing_algorithms, ["ES256", "RS256"]);
        for wrong in [
            &oidc[..2],
            &oidc[2..],
            &["--oidc-ca-file", "a"],
            &[&oidc[..], &["--oidc-required-claim", "a"]].concat(),
            &[&oidc[..], &["--oidc-required-claim", "a=b,a=c"]].concat(),
        ] {
            assert!(sources(wrong).is_err(), "{wrong:?}");
        }
    }
}
