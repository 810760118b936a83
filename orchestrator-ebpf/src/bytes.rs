//! Bytes of a packet in place: reading, writing, and a checksum among them.

use orchestrator_common::csum;

/// Reads from an address of any alignment. BPF's loads have none to keep; telling LLVM otherwise
/// would make four loads of one.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` are readable.
#[inline(always)]
pub unsafe fn load<T: Copy>(at: usize) -> T {
    #[cfg(target_arch = "bpf")]
    unsafe {
        *(at as *const T)
    }
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        (at as *const T).read_unaligned()
    }
}

/// Writes to an address of any alignment.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` are writable.
#[inline(always)]
pub unsafe fn store<T: Copy>(at: usize, value: T) {
    #[cfg(target_arch = "bpf")]
    unsafe {
        *(at as *mut T) = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        (at as *mut T).write_unaligned(value);
    }
}

/// Has a checksum follow what was added to what it covers.
///
/// # Safety
/// Two bytes at `at` are readable and writable.
#[inline(always)]
pub unsafe fn adjust(at: usize, added: u32) {
    unsafe { store(at, csum::adjusted(load(at), added)) };
}
