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

/// A sum in 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// What takes a sum back when it is added to it.
#[inline(always)]
pub const fn negative(sum: u32) -> u32 {
    !fold(sum) & 0xffff
}

/// What words add to a sum in place of others; at most 16 bits, 0 only if they are the same.
#[inline(always)]
pub fn difference(from: &[u16; 2], to: &[u16; 2]) -> u32 {
    if from[0] == to[0] && from[1] == to[1] {
        return 0;
    }
    fold(add(negative(add(0, from)), to))
}

/// A checksum after `added` was added to what it covers (RFC 1624).
#[inline(always)]
pub const fn adjusted(check: u16, added: u32) -> u16 {
    finish(!check as u32 + fold(added))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_follows_what_it_covers() {
        let before = [0x1234, 0xffff, 0x8001, 7];
        let mut after = before;
        [after[1], after[2]] = [0x0102, 0xfffe];
        let added = difference(&[before[1], before[2]], &[after[1], after[2]]);
        let check = adjusted(finish(add(0, &before)), added);
        assert_eq!(check, finish(add(0, &after)));
        assert_eq!(fold(added + negative(added)) % 0xffff, 0);
        assert_eq!(difference(&[1, 2], &[1, 2]), 0);
        // The sums are equal, the words are not.
        assert_ne!(difference(&[1, 2], &[2, 1]), 0);
    }

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
