//! Files made byte by byte, so that they can be as wrong as wanted.

use gguf::Endian;

/// A number of `width` bytes.
pub fn num(endian: Endian, v: u64, width: usize) -> Vec<u8> {
    match endian {
        Endian::Little => v.to_le_bytes()[..width].to_vec(),
        Endian::Big => v.to_be_bytes()[8 - width..].to_vec(),
    }
}

/// Little-endian numbers, for the hostile cases.
pub fn n32(v: u32) -> Vec<u8> {
    v.to_le_bytes().to_vec()
}

/// As [`n32`].
pub fn n64(v: u64) -> Vec<u8> {
    v.to_le_bytes().to_vec()
}

/// A file to be. `Default` is an empty one; [`Raw::sample`] has something of everything.
#[derive(Clone)]
pub struct Raw {
    pub endian: Endian,
    pub magic: [u8; 4],
    pub version: u32,
    /// Replaces the true number of tensors.
    pub tensor_count: Option<u64>,
    /// Replaces the true number of keys.
    pub key_count: Option<u64>,
    pub keys: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    /// Alignment of the start of the data.
    pub align: usize,
    pub data: Vec<u8>,
}

impl Default for Raw {
    fn default() -> Raw {
        Raw {
            endian: Endian::Little,
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            align: 32,
            data: Vec::new(),
        }
    }
}

impl Raw {
    /// Two keys and two tensors: `a` of 2 rows of q8_0 (68 bytes, padded to 96), `b` of 4 f32.
    pub fn sample() -> Raw {
        Raw::sample_in(Endian::Little)
    }

    /// The same in either byte order.
    pub fn sample_in(endian: Endian) -> Raw {
        let mut raw = Raw { endian, ..Raw::default() };
        let arch = raw.string(b"llama");
        raw.key("general.architecture", 8, &arch);
        let value = num(endian, 7, 4);
        raw.key("test.u32", 4, &value);
        raw.tensor("a", &[32, 2], 8, 0);
        raw.tensor("b", &[4], 0, 96);
        raw.data = (0..112).map(|i| if (68..96).contains(&i) { 0 } else { i as u8 + 1 }).collect();
        raw
    }

    /// A length and bytes.
    pub fn string(&self, text: &[u8]) -> Vec<u8> {
        [num(self.endian, text.len() as u64, 8), text.to_vec()].concat()
    }

    /// Appends a key with its type id and the bytes of its value.
    pub fn key(&mut self, key: impl AsRef<[u8]>, type_id: u32, value: &[u8]) {
        let id = num(self.endian, type_id.into(), 4);
        self.keys.push([self.string(key.as_ref()), id, value.to_vec()].concat());
    }

    /// Appends an entry to the tensor table.
    pub fn tensor(&mut self, name: impl AsRef<[u8]>, dims: &[u64], format: u32, offset: u64) {
        let mut entry = self.string(name.as_ref());
        entry.extend(num(self.endian, dims.len() as u64, 4));
        dims.iter().for_each(|&d| entry.extend(num(self.endian, d, 8)));
        entry.extend(num(self.endian, format.into(), 4));
        entry.extend(num(self.endian, offset, 8));
        self.tensors.push(entry);
    }

    /// Everything before the data, without padding.
    pub fn head(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(num(self.endian, self.version.into(), 4));
        out.extend(num(self.endian, self.tensor_count.unwrap_or(self.tensors.len() as u64), 8));
        out.extend(num(self.endian, self.key_count.unwrap_or(self.keys.len() as u64), 8));
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        out.resize(out.len().next_multiple_of(self.align), 0);
        out.extend(&self.data);
        out
    }
}

/// Changes a sample and gives its bytes.
pub fn sample_with(change: impl FnOnce(&mut Raw)) -> Vec<u8> {
    let mut raw = Raw::sample();
    change(&mut raw);
    raw.bytes()
}
