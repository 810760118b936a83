//! The bytes of an object: as they are, or compressed against others of its kind.
//!
//! The objects of a large kind are much alike: a pod of 5.5 KB of which 150,000 are held takes a tenth
//! of that. What was changed a short while ago, and small kinds as a whole, are kept as they are.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::Cached;
use super::ordered::Ordered;

/// A kind whose objects take less than this is not compressed.
const PLAIN_BYTES: usize = 32 << 20;
/// What objects are compressed against: each takes as long as it takes to read that.
const DICTIONARY_BYTES: usize = 16 << 10;
/// How many objects it is made of.
const SAMPLES: usize = 3;

/// The bytes of an object.
#[derive(Debug)]
pub(super) enum Body {
    Plain(Bytes),
    Packed {
        dictionary: Arc<[u8]>,
        packed: Box<[u8]>,
        length: usize,
    },
}

impl Body {
    /// The bytes; those of a packed body are unpacked, which takes some microseconds.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Packed { .. } => self.shown().into_owned().into(),
        }
    }

    /// The same for whoever copies them: of a plain body nothing is counted.
    pub fn shown(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Plain(bytes) => Cow::Borrowed(bytes),
            Self::Packed {
                dictionary,
                packed,
                length,
            } => match lz4_flex::block::decompress_with_dict(packed, *length, dictionary) {
                Ok(bytes) => Cow::Owned(bytes),
                Err(error) => {
                    // Only a defect of the memory or of this file can make that.
                    tracing::error!(%error, "a packed object does not unpack");
                    Cow::Borrowed(&[])
                }
            },
        }
    }

    /// What it takes in memory.
    pub fn size(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed { packed, .. } => packed.len(),
        }
    }

    /// How long the bytes are.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed { length, .. } => *length,
        }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

/// Decides which objects of a kind are packed. Written with the objects.
#[derive(Default)]
pub(super) struct Packer {
    /// What the objects that are not packed take.
    plain: usize,
    dictionary: Option<Arc<[u8]>>,
}

impl Packer {
    /// An object has taken the place of another one.
    pub fn change(&mut self, before: Option<&Cached>, now: Option<&Cached>) {
        let plain = |object: Option<&Cached>| match object {
            Some(object) if object.is_plain() => object.size(),
            _ => 0,
        };
        self.plain = (self.plain + plain(now)).saturating_sub(plain(before));
    }

    /// What objects are to be compressed against; None while the kind is small.
    pub fn dictionary(&mut self, objects: &Ordered) -> Option<Arc<[u8]>> {
        if self.plain <= PLAIN_BYTES {
            return None;
        }
        let dictionary = self.dictionary.get_or_insert_with(|| {
            let place = |sample: usize| objects.len() * (2 * sample + 1) / (2 * SAMPLES);
            let samples = (0..SAMPLES).filter_map(|sample| {
                let at = place(sample);
                objects.slice(at..at + 1).next().map(|it| it.bytes())
            });
            let mut bytes: Vec<u8> = samples.flatten().collect();
            bytes.truncate(DICTIONARY_BYTES);
            bytes.into()
        });
        Some(dictionary.clone())
    }
}

/// The bytes compressed, if that makes them much smaller.
pub(super) fn pack(bytes: &[u8], dictionary: &Arc<[u8]>) -> Option<Body> {
    let packed = lz4_flex::block::compress_with_dict(bytes, dictionary);
    (packed.len() < bytes.len() / 4 * 3).then(|| Body::Packed {
        dictionary: dictionary.clone(),
        packed: packed.into_boxed_slice(),
        length: bytes.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: usize) -> Arc<Cached> {
        let pods = api::find("", "v1", "pods").expect("pods are served");
        let text = format!(
            r#"{{"metadata":{{"name":"pod-{number}","uid":"{:032x}"}},"spec":"{}"}}"#,
            number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            "the same in all of them ".repeat(200)
        );
        let key = format!("/r/pod-{number:06}");
        Arc::new(Cached::of(pods, key.into(), text.as_bytes(), 7))
    }

    #[test]
    fn a_large_kind_is_packed_and_gives_back_what_it_was_given() {
        let (mut packer, mut objects) = (Packer::default(), Ordered::default());
        let mut number = 0;
        while packer.dictionary(&objects).is_none() {
            let object = object(number);
            packer.change(None, Some(&object));
            objects.insert(object);
            number += 1;
        }
        assert!(number * object(1_000_000).size() > PLAIN_BYTES);
        let dictionary = packer.dictionary(&objects).expect("it is large");
        assert!(dictionary.len() <= DICTIONARY_BYTES);
        let plain = object(3);
        let packed = plain.packed(&dictionary).expect("it gets smaller");
        assert_eq!(packed.bytes(), plain.bytes());
        assert!(packed.size() < plain.size() / 10, "{}", packed.size());
        packer.change(Some(&plain), Some(&packed));
        assert!(packer.dictionary(&objects).is_none(), "it is small again");
    }

    #[test]
    fn what_resembles_nothing_stays_as_it_is() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(4000).collect();
        assert!(pack(&noise, &b"{}".as_slice().into()).is_none());
    }
}
