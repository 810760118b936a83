//! Words that nobody guesses.

use sha2::{Digest, Sha256};

/// That many lower-case letters and digits, each as likely as any other: 5.17 bits a character.
pub fn word(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // Above the largest multiple of 36 the first letters would be likelier.
    const FAIR: u8 = 252;
    let mut word = String::with_capacity(length);
    while word.len() < length {
        // Two random UUIDs are 244 random bits.
        let mut hash = Sha256::new();
        hash.update(uuid::Uuid::new_v4());
        hash.update(uuid::Uuid::new_v4());
        let fair = hash.finalize().into_iter().filter(|byte| *byte < FAIR);
        let letters = fair.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        word.extend(letters.take(length - word.len()));
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_its_length_its_alphabet_and_is_never_the_same() {
        let words = [word(16), word(16), word(100)];
        assert_eq!(words.each_ref().map(String::len), [16, 16, 100]);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(words.iter().all(|word| word.chars().all(plain)));
        assert_ne!(words[0], words[1]);
    }
}
