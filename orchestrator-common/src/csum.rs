//! The Internet checksum over bytes that are not in a packet yet.

/// Sums big-endian words of `bytes` (whose length is even) on top of `sum`.
#[inline(always)]
pub fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at + 1 < bytes.len() {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

/// The checksum to write: folded and complemented. Enough folds for any sum of less than 64 KiB of
/// words.
#[inline(always)]
pub const fn finish(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let sum = add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(finish(sum), [!0xdd, !0xf2]);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let mut header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        let check = finish(add(0, &header));
        assert_eq!(check, [0xb8, 0x61]);
        header[10..12].copy_from_slice(&check);
        assert_eq!(finish(add(0, &header)), [0, 0]);
    }
}
