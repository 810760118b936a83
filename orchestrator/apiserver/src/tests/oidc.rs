//! Users of an issuer that runs beside the server, and issuers that are hostile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::remote::{Remote, reply};
use super::*;
use crate::authn::{OidcConfig, Sources};
use api::kinds::certificates::request::Request as Csr;
use api::oidc::Rules;
use sys::certificates::{Identity, make_key, make_request};

const RSA_KEY: &str = include_str!("testdata/oidc-rsa.pem");
const RSA_MODULUS: &str = include_str!("testdata/oidc-rsa.modulus");

/// A key of P-256 with its name.
struct Key {
    id: String,
    pem: String,
}

impl Key {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            pem: make_key().expect("a key"),
        }
    }

    fn public(&self) -> Vec<u8> {
        let who = Identity::new("a", &[]);
        let request = make_request(&self.pem, &who, &[]).expect("a request");
        Csr::parse(&request).expect("it reads").public_key
    }

    fn jwk(&self) -> Value {
        let key = self.public();
        // The point is what its description ends with.
        let (x, y) = key[key.len() - 64..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": text(x), "y": text(y)})
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        let key = EncodingKey::from_ec_pem(self.pem.as_bytes()).expect("a key");
        encode(&header, claims, &key).expect("a token")
    }
}

fn rsa_jwk() -> Value {
    json!({"kty": "RSA", "kid": "rsa", "n": RSA_MODULUS.trim(), "e": "AQAB"})
}

/// What an issuer answers to the question for its keys.
type Keys = Arc<dyn Fn() -> axum::http::Response<Body> + Send + Sync>;

struct Issuer {
    url: String,
    asked: Arc<AtomicUsize>,
    keys: Arc<Mutex<Keys>>,
    cluster: Cluster,
    _remote: Remote,
    _directory: tempfile::TempDir,
}

fn set(keys: &[Value]) -> Keys {
    let text = json!({"keys": keys}).to_string();
    Arc::new(move || reply(200, text.clone()))
}

impl Issuer {
    /// An issuer and a server that believes it.
    async fn start(keys: Keys, rules: Rules) -> Self {
        let (url, asked) = (
            Arc::new(OnceLock::<String>::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        let keys = Arc::new(Mutex::new(keys));
        let (own, counted, shown) = (url.clone(), asked.clone(), keys.clone());
        let remote = Remote::start(&["localhost"], move |request| {
            let url = own.get().expect("started").clone();
            let answer = match request.uri().path() {
                "/.well-known/openid-configuration" => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
                    reply(200, document.to_string())
                }
                "/keys" => shown.lock().expect("whole").clone()(),
                _ => reply(404, ""),
            };
            async move { answer }
        });
        let remote = remote.await;
        let name = format!("https://localhost:{}", remote.address.port());
        url.set(name.clone()).expect("once");
        let directory = tempfile::tempdir().expect("a directory");
        let ca_file = directory.path().join("ca.pem");
        let pem = STANDARD.decode(remote.bundle()).expect("base64");
        std::fs::write(&ca_file, pem).expect("written");
        let rules = Rules {
            issuer: name.clone(),
            client_id: "kubernetes".to_owned(),
            ..rules
        };
        let users = Sources {
            oidc: Some(OidcConfig {
                rules,
                ca_file: Some(ca_file),
                signing_algorithms: ["RS256", "ES256"].map(str::to_owned).into(),
            }),
            ..Sources::default()
        };
        let config = ServerConfig {
            users,
            ..ServerConfig::default()
        };
        Self {
            url: name,
            asked,
            keys,
            cluster: Cluster::with(config).await,
            _remote: remote,
            _directory: directory,
        }
    }

    fn claims(&self) -> Value {
        let now = Timestamp::now().as_second();
        json!({"iss": self.url, "aud": "kubernetes", "sub": "ann", "exp": now + 600, "iat": now,
            "groups": ["dev"]})
    }

    fn with(&self, claim: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[claim] = value;
        claims
    }

    async fn who(&self, token: &str) -> Answer {
        self.cluster.whoami(token).await
    }
}

fn rules() -> Rules {
    Rules {
        username_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        groups_prefix: "oidc:".to_owned(),
        ..Rules::default()
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_is_a_user_with_its_groups() {
    let key = Key::new("one");
    let issuer = Issuer::start(set(&[rsa_jwk(), key.jwk()]), rules()).await;
    let expected = json!({"username": format!("{}#ann", issuer.url),
        "groups": ["oidc:dev", "system:authenticated"]});
    let answer = issuer.who(&key.sign(&issuer.claims())).await.expect(201);
    assert_eq!(answer["status"]["userInfo"], expected);
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some("rsa".to_owned());
    let rsa = EncodingKey::from_rsa_pem(RSA_KEY.as_bytes()).expect("a key");
    let token = encode(&header, &issuer.claims(), &rsa).expect("a token");
    let answer = issuer.who(&token).await.expect(201);
    assert_eq!(answer["status"]["userInfo"], expected);
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_token_that_was_not_made_for_this_server_by_its_issuer_is_nobodys() {
    let key = Key::new("one");
    let issuer = Issuer::start(set(&[key.jwk(), rsa_jwk()]), rules()).await;
    let good = key.sign(&issuer.claims());
    issuer.who(&good).await.expect(201);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (_, payload) = good.split_once('.').expect("parts");
    let (payload, signature) = payload.split_once('.').expect("parts");
    // Signed with the public key as if it were a secret.
    let mut secret = Header::new(Algorithm::HS256);
    secret.kid = Some("one".to_owned());
    let secret = encode(
        &secret,
        &issuer.claims(),
        &EncodingKey::from_secret(&key.public()).expect("a key"),
    );
    let forged = part(issuer.with("sub", json!("root")));
    for (case, token) in [
        (
            "another audience",
            key.sign(&issuer.with("aud", json!("other"))),
        ),
        ("no audience", key.sign(&issuer.with("aud", Value::Null))),
        (
            "another issuer",
            key.sign(&issuer.with("iss", json!("https://evil"))),
        ),
        ("ended", key.sign(&issuer.with("exp", json!(1)))),
        ("endless", key.sign(&issuer.with("exp", Value::Null))),
        ("another's key", Key::new("one").sign(&issuer.claims())),
        ("a secret", secret.expect("a token")),
        (
            "none",
            format!(
                "{}.{payload}.{signature}",
                part(json!({"alg": "none", "kid": "one"}))
            ),
        ),
        (
            "none",
            format!("{}.{payload}.", part(json!({"alg": "none"}))),
        ),
        (
            "another algorithm",
            format!(
                "{}.{payload}.{signature}",
                part(json!({"alg": "RS256", "kid": "rsa"}))
            ),
        ),
        ("other claims", good.replace(payload, &forged)),
        (
            "critical",
            format!(
                "{}.{payload}.{signature}",
                part(json!({"alg": "ES256", "kid": "one", "crit": ["exp"]}))
            ),
        ),
    ] {
        let refused = issuer.who(&token).await;
        assert_eq!(refused.code.as_u16(), 401, "{case}: {}", refused.body);
        assert_eq!(refused.message(), "Unauthorized", "{case}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_and_a_flood_of_them_no_more() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let issuer = Issuer::start(set(&[one.jwk()]), rules()).await;
    issuer.who(&one.sign(&issuer.claims())).await.expect(201);
    *issuer.keys.lock().expect("whole") = set(&[one.jwk(), two.jwk()]);
    for number in 0..50 {
        let key = Key {
            id: format!("made-up-{number}"),
            pem: two.pem.clone(),
        };
        issuer.who(&key.sign(&issuer.claims())).await.expect(401);
    }
    // The first fetch was a moment ago, so none of these was another.
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
    issuer.who(&one.sign(&issuer.claims())).await.expect(201);
}

#[tokio::test]
async fn keys_without_end_or_of_no_form_are_not_taken() {
    let key = Key::new("one");
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let endless: Keys = Arc::new(move || {
        let piece = piece.clone();
        let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        reply(200, Body::from_stream(pieces))
    });
    let bomb: Keys = Arc::new(|| reply(200, "[".repeat(1 << 19)));
    let elsewhere: Keys = Arc::new(|| {
        let mut answer = reply(302, "");
        let to = axum::http::HeaderValue::from_static("https://localhost/keys");
        answer.headers_mut().insert("location", to);
        answer
    });
    let many = set(&vec![json!({"kty": "oct", "k": "YQ"}); 1_000]);
    for keys in [endless, bomb, elsewhere, many, set(&[])] {
        let issuer = Issuer::start(keys, rules()).await;
        let began = Instant::now();
        issuer.who(&key.sign(&issuer.claims())).await.expect(401);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    }
}

/// The issuer takes the question and never answers.
#[tokio::test]
async fn an_issuer_that_is_away_holds_up_nobody_but_its_users() {
    let key = Key::new("one");
    let silent: Keys = Arc::new(|| {
        reply(
            200,
            Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()),
        )
    });
    let issuer = Arc::new(Issuer::start(silent, rules()).await);
    let token = key.sign(&issuer.claims());
    let asking = tokio::spawn({
        let issuer = issuer.clone();
        async move { issuer.who(&token).await }
    });
    while issuer.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    issuer.cluster.get(CONFIG_MAPS).await.expect(200);
    let unknown = issuer.who("not-a-token-of-the-issuer").await;
    unknown.expect(401);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(!asking.is_finished());
    asking.abort();
}
