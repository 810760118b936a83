//! The Internet checksum over words that are not in a packet yet.
//!
//! Words are read natively from where they lie in network order: the sum does not care, as long as its
//! result is written the same way (RFC 1071).

/// Adds words on top of `sum`.
#[inline(always)]
pub fn add(mut sum: u32, words: &[u16]) -> u32 {
    let mut at = 0;
    while at < words.len() {
        sum += u32::from(words[at]);
        at += 1;
    }
    sum
}

/// The checksum to write: folded and complemented. Enough folds for any sum of less than 64 KiB.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>(bytes: [[u8; 2]; N]) -> [u16; N] {
        bytes.map(u16::from_ne_bytes)
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let sum = add(
            0,
            &words([[0x00, 0x01], [0xf2, 0x03], [0xf4, 0xf5], [0xf6, 0xf7]]),
        );
        assert_eq!(finish(sum).to_ne_bytes(), [!0xdd, !0xf2]);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let mut header = words([
            [0x45, 0],
            [0, 0x73],
            [0, 0],
            [0x40, 0],
            [0x40, 0x11],
            [0, 0],
            [0xc0, 0xa8],
            [0, 1],
            [0xc0, 0xa8],
            [0, 0xc7],
        ]);
        header[5] = finish(add(0, &header));
        assert_eq!(header[5].to_ne_bytes(), [0xb8, 0x61]);
        assert_eq!(finish(add(0, &header)), 0);
    }
}
