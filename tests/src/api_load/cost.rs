//! What the audit log and encryption at rest cost: our server with them beside our server without, under one load;
//! and one decision of RBAC.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use apiserver::measuring::Decisions;

use super::load::{self, Sizes};
use super::side::{Kind, Side};
use super::table::{Better, Case, Figures, Row};

/// How many bindings a decision is made among, and how long it may take, in microseconds.
const BINDINGS: usize = 1_000;
const DECISION_MARK_US: f64 = 5.0;
const DECISIONS: usize = 200_000;

const fn case(name: &'static str) -> Case {
    Case {
        name,
        unit: "/s",
        better: Better::More,
        mark: None,
    }
}

/// A server with something: flags, the files that they name, and its rows (creates, gets, merge patches).
struct Variant {
    file: &'static str,
    text: &'static str,
    flag: &'static str,
    audits: bool,
    cases: [Case; 3],
}

/// The load is of ConfigMaps: a new cluster encrypts only Secrets, so the configuration names them too.
const VARIANTS: [Variant; 3] = [
    Variant {
        file: "metadata.yaml",
        text: "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
               rules: [{level: Metadata}]\n",
        flag: "--audit-policy-file",
        audits: true,
        cases: [
            case("creates, audit at Metadata"),
            case("gets, audit at Metadata"),
            case("merge patches, audit at Metadata"),
        ],
    },
    Variant {
        file: "bodies.yaml",
        text: "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
               rules: [{level: RequestResponse}]\n",
        flag: "--audit-policy-file",
        audits: true,
        cases: [
            case("creates, audit at RequestResponse"),
            case("gets, audit at RequestResponse"),
            case("merge patches, audit at RequestResponse"),
        ],
    },
    Variant {
        file: "encryption.yaml",
        text: "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
               - resources: [configmaps, secrets]\n  providers:\n  - aesgcm: {keys: [{name: bench, secret: \
               c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=}]}\n",
        flag: "--encryption-provider-config",
        audits: false,
        cases: [
            case("creates, encrypted"),
            case("gets, encrypted"),
            case("merge patches, encrypted"),
        ],
    },
];

impl Variant {
    fn side(&self, directory: &Path) -> Result<Side> {
        let own = directory.join(self.file.trim_end_matches(".yaml"));
        let mut side = Side::new(Kind::Ours, &own, None)?;
        let file = own.join(self.file);
        // The server takes no configuration with keys that others can read.
        sys::files::write_atomic(&file, self.text.as_bytes(), sys::files::PRIVATE)?;
        side.flags = vec![self.flag.to_owned(), file.display().to_string()];
        if self.audits {
            let log = own.join("audit.log").display().to_string();
            side.flags.extend(["--audit-log-path".to_owned(), log]);
        }
        Ok(side)
    }
}

/// The rows: each with the figure of the server with it, that of the server without, and their ratio.
pub async fn rows(directory: &Path, rounds: usize, sizes: Sizes) -> Result<Vec<Row>> {
    fs::create_dir_all(directory)?;
    let mut plain = Side::new(Kind::Ours, &directory.join("plain"), None)?;
    let mut sides = Vec::new();
    for variant in &VARIANTS {
        sides.push(variant.side(directory)?);
    }
    for side in std::iter::once(&mut plain).chain(&mut sides) {
        side.start().await?;
        load::prepare(&side.target()?).await?;
        // Once for caches and connections.
        loaded(side, rounds, sizes).await?;
    }
    let mut figures = vec![<[(Vec<f64>, Vec<f64>); 3]>::default(); VARIANTS.len()];
    for number in 0..rounds {
        for (side, figures) in sides.iter().zip(&mut figures) {
            let first_with = number % 2 == 0;
            let mut with = [0.0; 3];
            if first_with {
                with = loaded(side, number, sizes).await?;
            }
            // Each pair has a load of its own, beside it in time.
            let without = loaded(&plain, number, sizes).await?;
            if !first_with {
                with = loaded(side, number, sizes).await?;
            }
            for (at, (ours, real)) in figures.iter_mut().enumerate() {
                ours.push(with[at]);
                real.push(without[at]);
            }
        }
        eprintln!("round {} of {rounds}", number + 1);
    }
    let pairs = VARIANTS.iter().zip(figures).flat_map(|(variant, figures)| {
        let rows = variant.cases.iter().zip(figures);
        rows.map(|(case, (ours, real))| case.row(&Figures { ours, real }))
    });
    let mut rows: Vec<Row> = pairs.collect();
    rows.extend(decisions());
    Ok(rows)
}

/// Creates, gets and merge patches a second; what was made is deleted.
async fn loaded(side: &Side, number: usize, sizes: Sizes) -> Result<[f64; 3]> {
    let target = side.target()?;
    let creates = load::creates(&target, number, sizes).await;
    let creates = creates.context("creates")?;
    let gets = load::gets(&target, number, sizes).await.context("gets")?;
    let merges = load::merges(&target, number, sizes).await;
    let merges = merges.context("merge patches")?;
    let deletes = load::deletes(&target, number, sizes).await;
    deletes.context("deletes")?;
    Ok([creates.per_second, gets.per_second, merges.per_second])
}

/// Two that are allowed and refused in turn, so the mean of both.
fn decisions() -> [Row; 2] {
    let each_us = |all_of_one_group: bool| {
        let decisions = Decisions::among(BINDINGS, all_of_one_group);
        let began = Instant::now();
        for number in 0..DECISIONS {
            // The last binding's things, and things of nobody.
            black_box(decisions.decide(BINDINGS - 1 + number % 2));
        }
        began.elapsed().as_secs_f64() * 1e6 / DECISIONS as f64
    };
    let mark = Some(DECISION_MARK_US);
    [
        Row::alone(
            "RBAC's decision, 1,000 bindings",
            "us",
            each_us(false),
            mark,
        ),
        Row::alone(
            "the same, all of the caller's group",
            "us",
            each_us(true),
            mark,
        ),
    ]
}
