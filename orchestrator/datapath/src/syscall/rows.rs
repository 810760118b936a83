//! Many rows of a map in one call, and maps that stand in other maps: what aya does not wrap.
//!
//! Batches came with Linux 5.6 (commit aa2e93b8e58e), those of maps of maps with 5.14.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{bpf, bpf_fd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// Rows that are read at once.
const CHUNK: usize = 4096;

/// Writes rows in order, `keys` and `values` of one length. Returns how many were written, and why not
/// the next one.
pub fn update<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    assert_eq!(keys.len(), values.len());
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    match bpf(BPF_MAP_UPDATE_BATCH, &mut attr) {
        Ok(_) => (keys.len(), Ok(())),
        // The kernel leaves the count alone when it refuses the call as a whole.
        Err(error) if attr.count as usize >= keys.len() => (0, Err(error)),
        Err(error) => (attr.count as usize, Err(error)),
    }
}

/// Every row of a hash or an array, in no order.
pub fn read<K, V>(map: BorrowedFd<'_>, mut take: impl FnMut(K, V)) -> io::Result<()>
where
    K: aya::Pod + Default,
    V: aya::Pod + Default,
{
    let (mut keys, mut values) = (vec![K::default(); CHUNK], vec![V::default(); CHUNK]);
    // Where the last call ended, in the kernel's words: a bucket, or an array's index.
    let mut position = [0_u32; 4];
    let mut begun = false;
    loop {
        let mut attr = Batch {
            in_batch: if begun { position.as_ptr() as u64 } else { 0 },
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK as u32,
            map_fd: map.as_raw_fd() as u32,
            ..Batch::default()
        };
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(CHUNK);
        let rows = keys.iter().zip(&values).take(count);
        rows.for_each(|(key, value)| take(*key, *value));
        if last {
            return Ok(());
        }
        begun = true;
    }
}

/// A new array of numbers. `flags` are BPF_F_*.
pub fn array(name: &[u8; 16], length: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: length,
        map_flags: flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: *name,
    };
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

/// `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}
