//! Programs of a few instructions, which no compiler is needed for: nothing at all, and only the kernel's
//! own part of what the datapath does to a packet. No program that does the same can cost less than those.

use anyhow::Result;
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// One instruction, as the kernel reads it (RFC 9669, section 3).
pub type Instruction = [u8; 8];

/// Helpers by their numbers in linux/bpf.h.
const L4_CSUM_REPLACE: i32 = 11;
const SKB_ADJUST_ROOM: i32 = 50;
const REDIRECT_NEIGH: i32 = 152;
const REDIRECT_PEER: i32 = 155;

const ADJ_ROOM_MAC: i32 = 1;
/// BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, _L4_UDP and _L2_ETH, and the length of the inner frame's header.
const ENCAPSULATE: u64 = 2 | 16 | 64 | 14 << 56;
const DECAP_L3_IPV4: u64 = 128;
const PSEUDO_HEADER: i32 = 16;

/// What a tunnel over IPv4 puts before a frame.
const OUTER: i32 = 50;
const TCP_CHECK: i32 = 14 + 20 + 16;
const AF_INET: i32 = 2;
/// The size of `struct bpf_redir_neigh`, in the words that are written.
const NEXT_HOP: i32 = 20;

const EXIT: Instruction = instruction(0x95, 0, 0, 0);

/// `TCX_NEXT`: the next program is asked.
pub fn nothing() -> Vec<Instruction> {
    vec![set(0, -1), EXIT]
}

/// Room for the outer headers, and out to a next hop that is known.
pub fn encapsulation() -> Vec<Instruction> {
    [
        keep_context(),
        adjust_room(OUTER, ENCAPSULATE),
        to_next_hop(),
    ]
    .concat()
}

/// The outer headers' room taken away, and on to a pod.
pub fn decapsulation() -> Vec<Instruction> {
    let to_pod = vec![set(1, 77), set(2, 0), call(REDIRECT_PEER), EXIT];
    [keep_context(), adjust_room(-OUTER, DECAP_L3_IPV4), to_pod].concat()
}

/// The transport's checksum for other addresses and for other ports, which are two calls, as nobody tells
/// a program whether the hardware has yet to add the ports; then as [`encapsulation`].
pub fn translation() -> Vec<Instruction> {
    let addresses = replace_check(PSEUDO_HEADER);
    let ports = replace_check(4);
    let out = adjust_room(OUTER, ENCAPSULATE);
    [keep_context(), addresses, ports, out, to_next_hop()].concat()
}

fn keep_context() -> Vec<Instruction> {
    vec![copy(6, 1)]
}

fn adjust_room(by: i32, flags: u64) -> Vec<Instruction> {
    let [low, high] = set_wide(4, flags);
    let room = [copy(1, 6), set(2, by), set(3, ADJ_ROOM_MAC), low, high];
    [room.as_slice(), &[call(SKB_ADJUST_ROOM)]].concat()
}

fn replace_check(flags: i32) -> Vec<Instruction> {
    let what = [copy(1, 6), set(2, TCP_CHECK), set(3, 0), set(4, 77)];
    [what.as_slice(), &[set(5, flags), call(L4_CSUM_REPLACE)]].concat()
}

fn to_next_hop() -> Vec<Instruction> {
    let words = [AF_INET, i32::from_le_bytes([172, 31, 0, 12]), 0, 0, 0];
    let written = (0..).zip(words).map(|(at, word)| {
        let offset = 4 * at - NEXT_HOP as i16;
        instruction(0x62, 10, offset, word)
    });
    let mut program: Vec<_> = written.collect();
    program.extend([set(1, 90), copy(2, 10), instruction(0x07, 2, 0, -NEXT_HOP)]);
    program.extend([set(3, NEXT_HOP), set(4, 0), call(REDIRECT_NEIGH), EXIT]);
    program
}

const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), value.to_le_bytes());
    [code, registers, a, b, c, d, e, f]
}

const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, value)
}

/// A value of 64 bits takes two.
const fn set_wide(register: u8, value: u64) -> [Instruction; 2] {
    let (low, high) = (value as i32, (value >> 32) as i32);
    [
        instruction(0x18, register, 0, low),
        instruction(0, 0, 0, high),
    ]
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, from << 4 | to, 0, 0)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, helper)
}

/// An object with programs of these names.
pub fn object(programs: &[(&str, Vec<Instruction>)]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let text = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
    for (name, instructions) in programs {
        let value = object.append_section_data(text, instructions.as_flattened(), 8);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: (8 * instructions.len()) as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    Ok(object.write()?)
}
