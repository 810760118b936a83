//! How much stack a BPF program takes, as the verifier adds it up: its own frame and the frames of
//! the deepest chain of calls below it. The kernel does not tell, so it is read from the code.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use object::{File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

/// What the verifier allows.
pub const LIMIT: u32 = 512;

/// The kernel rounds every frame up to this (`round_up_stack_depth` with a JIT).
const ROUND: u32 = 16;

const FRAME_POINTER: u8 = 10;
/// `BPF_PSEUDO_CALL`: a call within the object, not of a helper.
const OWN_FUNCTION: u8 = 1;

/// A function by its section and its place there.
type Place = (usize, u64);

struct Function {
    name: String,
    frame: u32,
    calls: Vec<Place>,
}

/// The stack of a function and of what it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub bytes: u32,
    /// The frames of the deepest chain of calls, outermost first: name and bytes.
    pub chain: Vec<(String, u32)>,
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.chain.iter();
        let frames: Vec<String> = frames
            .map(|(name, bytes)| format!("{name} {bytes}"))
            .collect();
        write!(f, "{} bytes of stack: {}", self.bytes, frames.join(" > "))
    }
}

/// Stack by function.
pub fn depths(object: &[u8]) -> Result<BTreeMap<String, Depth>> {
    let functions = functions(&File::parse(object)?)?;
    let depth = |place: &Place| deepest(&functions, place, 0);
    Ok(functions
        .iter()
        .map(|(place, function)| (function.name.clone(), depth(place)))
        .collect())
}

fn deepest(functions: &BTreeMap<Place, Function>, place: &Place, nested: u32) -> Depth {
    // The verifier allows eight frames; more can only be a loop that it refuses anyway.
    let Some(function) = functions.get(place).filter(|_| nested < 8) else {
        return Depth::default();
    };
    let below = function
        .calls
        .iter()
        .map(|call| deepest(functions, call, nested + 1))
        .max_by_key(|depth| depth.bytes)
        .unwrap_or_default();
    let frame = function.frame.max(1).next_multiple_of(ROUND);
    let mut chain = vec![(function.name.clone(), frame)];
    chain.extend(below.chain);
    Depth {
        bytes: frame + below.bytes,
        chain,
    }
}

fn functions(file: &File<'_>) -> Result<BTreeMap<Place, Function>> {
    let mut functions = BTreeMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let Some(index) = symbol.section_index().filter(|_| symbol.size() > 0) else {
            continue;
        };
        let section = file.section_by_index(index)?;
        let (start, size) = (symbol.address() as usize, symbol.size() as usize);
        let code = section
            .data()?
            .get(start..start + size)
            .context("a function beyond its code")?;
        let mut calls: BTreeMap<u64, Place> = BTreeMap::new();
        for (at, relocation) in section.relocations() {
            if let RelocationTarget::Symbol(target) = relocation.target() {
                let target = file.symbol_by_index(target)?;
                if let Some(section) = target.section_index() {
                    calls.insert(at, (section.0, target.address()));
                }
            }
        }
        let mut function = Function {
            name: symbol.name()?.to_owned(),
            frame: 0,
            calls: Vec::new(),
        };
        scan(code, (index.0, symbol.address()), &calls, &mut function);
        functions.insert((index.0, symbol.address()), function);
    }
    Ok(functions)
}

/// Reads instructions of eight bytes: opcode, registers, offset, immediate.
fn scan(code: &[u8], start: Place, relocated: &BTreeMap<u64, Place>, function: &mut Function) {
    let mut copy_of_frame_pointer = None;
    for (number, bytes) in code.chunks_exact(8).enumerate() {
        let (opcode, to, from) = (bytes[0], bytes[1] & 0xf, bytes[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([bytes[2], bytes[3]]));
        let immediate = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let reach = match opcode {
            0x61 | 0x69 | 0x71 | 0x79 | 0x81 | 0x89 | 0x91 if from == FRAME_POINTER => offset,
            0x62 | 0x63 | 0x6a | 0x6b | 0x72 | 0x73 | 0x7a | 0x7b if to == FRAME_POINTER => offset,
            0x07 if copy_of_frame_pointer == Some(to) => immediate,
            _ => 0,
        };
        function.frame = function
            .frame
            .max(if reach < 0 { reach.unsigned_abs() } else { 0 });
        copy_of_frame_pointer = (opcode == 0xbf && from == FRAME_POINTER).then_some(to);
        if opcode == 0x85 && from == OWN_FUNCTION {
            let here = start.1 + 8 * number as u64;
            let ahead = 8 * (i64::from(immediate) + 1);
            let (section, base) = relocated.get(&here).copied().unwrap_or((start.0, here));
            function
                .calls
                .push((section, base.wrapping_add_signed(ahead)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(frame: u32, calls: &[Place]) -> Function {
        Function {
            name: String::new(),
            frame,
            calls: calls.to_vec(),
        }
    }

    #[test]
    fn the_deepest_chain_counts_with_every_frame_rounded() {
        let functions = BTreeMap::from([
            ((1, 0), function(100, &[(2, 0), (2, 8)])),
            ((2, 0), function(0, &[])),
            ((2, 8), function(33, &[(2, 0)])),
        ]);
        let depth = deepest(&functions, &(1, 0), 0);
        assert_eq!(depth.bytes, 112 + 48 + 16);
        let frames: Vec<u32> = depth.chain.iter().map(|(_, bytes)| *bytes).collect();
        assert_eq!(frames, [112, 48, 16]);
    }

    #[test]
    fn stores_and_addresses_below_the_frame_pointer_make_the_frame() {
        let code = [
            // *(u64 *)(r10 - 24) = r1
            [0x7b, 0x1a, 0xe8, 0xff, 0, 0, 0, 0],
            // r2 = r10; r2 += -40
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff],
            // r3 += -4096, which is no address
            [0x07, 0x03, 0, 0, 0, 0xf0, 0xff, 0xff],
            // call the function that follows
            [0x85, 0x10, 0, 0, 0, 0, 0, 0],
        ];
        let mut found = function(0, &[]);
        scan(&code.concat(), (3, 64), &BTreeMap::new(), &mut found);
        assert_eq!((found.frame, found.calls), (40, vec![(3, 64 + 5 * 8)]));
    }
}
