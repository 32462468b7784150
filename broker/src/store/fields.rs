//! Tagged fields: how the bodies of records grow. A reader skips tags it does not know.

/// Appends fields to a body.
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn bytes(&mut self, tag: u8, bytes: &[u8]) -> &mut Self {
        self.0.push(tag);
        put_number(self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(&mut self, tag: u8, text: &str) -> &mut Self {
        self.bytes(tag, text.as_bytes())
    }

    pub fn number(&mut self, tag: u8, number: u64) -> &mut Self {
        let mut bytes = [0; 10];
        let length = write_number(&mut bytes, number);
        self.bytes(tag, &bytes[..length])
    }

    pub fn group(&mut self, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let mut inner = Vec::new();
        fill(&mut inner);
        self.bytes(tag, &inner)
    }
}

/// Walks over fields. Ends early at what is not whole, which the record's checksum has already ruled out.
#[derive(Clone)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.0.split_first()?;
        self.0 = rest;
        let length = take_number(&mut self.0)? as usize;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, field))
    }
}

/// LEB128, at most ten bytes.
pub fn put_number(bytes: &mut Vec<u8>, number: u64) {
    let mut buffer = [0; 10];
    let length = write_number(&mut buffer, number);
    bytes.extend_from_slice(&buffer[..length]);
}

fn write_number(buffer: &mut [u8; 10], mut number: u64) -> usize {
    let mut length = 0;
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        buffer[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            return length;
        }
    }
}

pub fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let byte = *bytes.get(at)?;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

/// A field that is one number.
pub fn number(mut field: &[u8]) -> Option<u64> {
    take_number(&mut field)
}

pub fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}
