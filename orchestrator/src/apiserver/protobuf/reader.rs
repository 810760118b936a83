//! Protobuf's wire format: numbered fields of four shapes.

/// Why bytes are no protobuf, or not of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// The value of a field as it lies in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they were written.
pub struct Reader<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            failed: false,
        }
    }

    /// The numbers of a packed list.
    pub fn varints(mut self) -> impl Iterator<Item = Result<u64, Broken>> {
        std::iter::from_fn(move || {
            let more = !self.rest.is_empty() && !self.failed;
            more.then(|| self.varint().inspect_err(|_| self.failed = true))
        })
    }

    fn field(&mut self) -> Result<(u32, Field<'a>), Broken> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Broken("a field number is too large"))?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed(self.little_endian(8)?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| Broken("it is cut off"))?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed(self.little_endian(4)?),
            _ => return Err(Broken("a field has an unknown shape")),
        };
        Ok((number, field))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Broken("a number is too long"))
    }

    fn little_endian(&mut self, length: usize) -> Result<u64, Broken> {
        let bytes = self.take(length)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Broken("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Field<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.failed {
            return None;
        }
        Some(self.field().inspect_err(|_| self.failed = true))
    }
}

impl<'a> Field<'a> {
    pub fn varint(self) -> Result<u64, Broken> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Broken("a field is no number")),
        }
    }

    pub fn fixed(self) -> Result<u64, Broken> {
        match self {
            Self::Fixed(number) => Ok(number),
            _ => Err(Broken("a field is no floating-point number")),
        }
    }

    pub fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Broken("a field has no length")),
        }
    }

    pub fn text(self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken("a text is not UTF-8"))
    }
}
