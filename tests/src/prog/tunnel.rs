//! A test run knows no tunnel: this program gives the packet a tunnel key, as a VXLAN device would,
//! and goes on as `from_overlay`. Assembled here, for a dozen instructions need no compiler.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier};
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// Words of `skb->cb` in which the caller says whence: VNI, with [`V6`] for an IPv6 sender, and the
/// sender's address from the second word on, IPv4 in host order.
pub const VNI: usize = 0;
pub const SENDER: usize = 1;
pub const V6: u32 = 1 << 31;

const NAME: &str = "through_tunnel";
const MAP: &str = "next_program";

/// The instruction that loads the map's address.
const LOAD_MAP: usize = 25;

pub struct Tunnel {
    ebpf: Ebpf,
    // Keeps the program that is jumped to.
    _next: ProgramArray<MapData>,
}

impl Tunnel {
    pub fn to(next: &ProgramFd) -> Result<Tunnel> {
        let mut ebpf = Ebpf::load(&elf()?)?;
        let program: &mut SchedClassifier = ebpf
            .program_mut(NAME)
            .context("no such program")?
            .try_into()?;
        program.load()?;
        let map = ebpf.take_map(MAP).context("no such map")?;
        let mut map = ProgramArray::try_from(map)?;
        map.set(0, next, 0)?;
        Ok(Tunnel { ebpf, _next: map })
    }

    pub fn program(&mut self) -> Result<&mut SchedClassifier> {
        Ok(self
            .ebpf
            .program_mut(NAME)
            .context("no such program")?
            .try_into()?)
    }
}

/// Operation, registers (source above destination), offset, immediate.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Vec<u8> {
    let mut bytes = vec![code, registers];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(immediate.to_le_bytes());
    bytes
}

fn code() -> Vec<u8> {
    // `struct __sk_buff` has cb at 48; `struct bpf_tunnel_key` is 44 bytes: the VNI, the other's
    // address, …, at 28 the own one. What is sent from is what is later asked for as the sender.
    let cb = |word: usize| 48 + 4 * word as i16;
    let key = -48;
    let mut code = vec![instruction(0xbf, 0x16, 0, 0)]; // r6 = r1
    code.extend((0..6).map(|word| instruction(0x7a, 0x0a, key + 8 * word, 0))); // *(r10 …) = 0
    code.extend([
        instruction(0x61, 0x62, cb(VNI), 0),     // r2 = cb[VNI]
        instruction(0xbf, 0x24, 0, 0),           // r4 = r2
        instruction(0x77, 0x04, 0, 31),          // r4 >>= 31: BPF_F_TUNINFO_IPV6 is 1
        instruction(0x57, 0x02, 0, 0x00ff_ffff), // r2 &= 24 bits
        instruction(0x63, 0x2a, key, 0),         // key.tunnel_id = r2
    ]);
    for word in 0..4 {
        code.extend([
            instruction(0x61, 0x62, cb(SENDER + word), 0), // r2 = cb[SENDER + word]
            instruction(0x63, 0x2a, key + 28 + 4 * word as i16, 0), // key.local_ipv6[word] = r2
        ]);
    }
    code.extend([
        instruction(0xbf, 0x61, 0, 0),          // r1 = r6
        instruction(0xbf, 0xa2, 0, 0),          // r2 = r10
        instruction(0x07, 0x02, 0, key.into()), // r2 += key
        instruction(0xb7, 0x03, 0, 44),         // r3 = 44
        instruction(0x85, 0, 0, 21),            // bpf_skb_set_tunnel_key
        instruction(0x18, 0x02, 0, 0),          // r2 = map
        instruction(0, 0, 0, 0),
        instruction(0xbf, 0x61, 0, 0),  // r1 = r6
        instruction(0xb7, 0x03, 0, 0),  // r3 = 0
        instruction(0x85, 0, 0, 12),    // bpf_tail_call
        instruction(0xb7, 0x00, 0, -1), // r0 = -1
        instruction(0x95, 0, 0, 0),     // exit
    ]);
    code.concat()
}

fn elf() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let mut section = |name: &str, kind, bytes: Vec<u8>| {
        let section = object.add_section(Vec::new(), name.into(), kind);
        object.append_section_data(section, &bytes, 8);
        section
    };
    // Type, sizes of key and value, entries, flags, id, pinning.
    let map = [3u32, 4, 4, 1, 0, 0, 0].map(u32::to_le_bytes).concat();
    let (code, maps) = (
        section("classifier", SectionKind::Text, code()),
        section("maps", SectionKind::Data, map),
    );
    section("license", SectionKind::Data, b"GPL\0".to_vec());
    let mut symbol = |name: &str, kind, section, size| {
        object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size,
            kind,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    };
    symbol(NAME, SymbolKind::Text, code, self::code().len() as u64);
    let symbol = symbol(MAP, SymbolKind::Data, maps, 28);
    let flags = RelocationFlags::Elf {
        r_type: object::elf::R_BPF_64_64,
    };
    let offset = 8 * LOAD_MAP as u64;
    object.add_relocation(
        code,
        Relocation {
            offset,
            symbol,
            addend: 0,
            flags,
        },
    )?;
    Ok(object.write()?)
}
