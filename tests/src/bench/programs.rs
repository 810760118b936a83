//! What a program costs a packet: the kernel's own clock around every run, while datagrams stream from
//! pod to pod, less that of a program that does nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use aya::sys::{Stats, enable_stats};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

use super::case::{Mark, Outcome};
use super::load::{self, Job, Kind};
use super::service::{Size, server_addr, target};
use super::side::{From, Ours, Side, Who};

const NOTHING: &str = "nothing";
/// `r0 = TCX_NEXT; exit`: the next program is asked.
const INSTRUCTIONS: [u8; 16] = [
    0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0,
];
const ROUNDS: usize = 10;
const MILLIS: u64 = 200;

pub fn figures() -> Result<Vec<Outcome>> {
    let ours = Ours::start()?;
    let mut idle = Ebpf::load(&nothing()?)?;
    ours.in_server(|| attach(&mut idle))?;
    let side = Side::Ours(Who::Ours, Box::new(ours));
    let _counting = enable_stats(Stats::RunTime)?;
    let job = Job {
        kind: Kind::UdpStream,
        to: target(server_addr(0), Kind::UdpStream),
        flows: 1,
        millis: MILLIS,
    };
    let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = totals()?;
        load::run(&side.client(From::Pod), &job)?;
        let after = totals()?;
        let cost = |name: &str| ns_a_run(&before, &after, name);
        for name in ["from_container", "from_overlay"] {
            costs
                .entry(name)
                .or_default()
                .push(cost(name)? - cost(NOTHING)?);
        }
    }
    let figure = |name: &str, case: &str, limit| -> Result<Outcome> {
        let mark = Some(Mark::AtMost(limit));
        let costs = costs.get(name).context("no round ran")?;
        Ok(Outcome::alone(case, Size::NONE, "ns", costs, mark))
    };
    Ok(vec![
        figure("from_container", "a packet, overlay egress", 150.0)?,
        figure("from_overlay", "a packet, overlay ingress", 120.0)?,
    ])
}

/// On the server's own end: it sees the packets that our programs have let through.
fn attach(ebpf: &mut Ebpf) -> Result<()> {
    let program = ebpf.program_mut(NOTHING).context("no such program")?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    program.attach("eth0", TcAttachType::Ingress)?;
    Ok(())
}

/// Nanoseconds and runs of all programs of a name.
type Totals = BTreeMap<String, (f64, f64)>;

fn totals() -> Result<Totals> {
    let mut totals = Totals::new();
    for program in loaded_programs() {
        // One may go while they are listed.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let total = totals.entry(name).or_default();
        total.0 += program.run_time().as_nanos() as f64;
        total.1 += program.run_count() as f64;
    }
    Ok(totals)
}

fn ns_a_run(before: &Totals, after: &Totals, name: &str) -> Result<f64> {
    let (was_ns, was) = before.get(name).copied().unwrap_or_default();
    let (ns, runs) = *after
        .get(name)
        .with_context(|| format!("no program {name}"))?;
    Ok((ns - was_ns) / (runs - was).max(1.0))
}

/// An object with one program, which no compiler is needed for.
fn nothing() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let text = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
    object.append_section_data(text, &INSTRUCTIONS, 8);
    object.add_symbol(Symbol {
        name: NOTHING.into(),
        value: 0,
        size: INSTRUCTIONS.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
