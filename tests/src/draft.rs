//! A GGUF file as a list of its entries, written without any check: what a test needs to make both sound files and
//! files that lie. `gguf::Writer` refuses to write most of the latter.

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(Vec<u8>),
    Strings(Vec<Vec<u8>>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// Any type id with any bytes after it.
    Raw {
        type_id: u32,
        bytes: Vec<u8>,
    },
}

impl Value {
    /// A string.
    pub fn str(text: &str) -> Value {
        Value::Str(text.as_bytes().to_vec())
    }

    /// Type id and bytes, as they follow the key in a file.
    fn write(&self, out: &mut Vec<u8>) {
        let mut array = |elem: u32, len: usize| {
            out.extend(9u32.to_le_bytes());
            out.extend(elem.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Value::Strings(items) => {
                array(8, items.len());
                items.iter().for_each(|item| string(out, item));
            }
            Value::F32s(items) => {
                array(6, items.len());
                items.iter().for_each(|item| out.extend(item.to_le_bytes()));
            }
            Value::I32s(items) => {
                array(5, items.len());
                items.iter().for_each(|item| out.extend(item.to_le_bytes()));
            }
            Value::U32(value) => scalar(out, 4, &value.to_le_bytes()),
            Value::F32(value) => scalar(out, 6, &value.to_le_bytes()),
            Value::Bool(value) => scalar(out, 7, &[u8::from(*value)]),
            Value::Str(value) => {
                out.extend(8u32.to_le_bytes());
                string(out, value);
            }
            Value::Raw { type_id, bytes } => scalar(out, *type_id, bytes),
        }
    }
}

fn scalar(out: &mut Vec<u8>, type_id: u32, bytes: &[u8]) {
    out.extend(type_id.to_le_bytes());
    out.extend(bytes);
}

/// A length of 64 bits and the bytes.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// One row of the tensor table and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name.
    pub name: Vec<u8>,
    /// Dimensions, row length first.
    pub dims: Vec<u64>,
    /// Format id.
    pub format: u32,
    /// Data, already encoded.
    pub data: Vec<u8>,
    /// Offset to state instead of the true one.
    pub offset: Option<u64>,
}

/// The entries of a file, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// First four bytes.
    pub magic: [u8; 4],
    /// Format version.
    pub version: u32,
    /// Keys in file order, as often as they are listed.
    pub keys: Vec<(Vec<u8>, Value)>,
    /// Tensors in file order.
    pub tensors: Vec<Tensor>,
    /// Number of tensors to state instead of the true one.
    pub n_tensors: Option<u64>,
    /// Number of keys to state instead of the true one.
    pub n_keys: Option<u64>,
    /// Alignment by which data is laid out, whatever `general.alignment` says.
    pub alignment: usize,
}

impl Default for Draft {
    fn default() -> Self {
        let (keys, tensors) = (Vec::new(), Vec::new());
        Draft { magic: *b"GGUF", version: 3, keys, tensors, n_tensors: None, n_keys: None, alignment: 32 }
    }
}

impl Draft {
    /// Sets a key: in place where it exists, otherwise at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.keys.iter_mut().find(|entry| entry.0 == key.as_bytes()) {
            Some(entry) => entry.1 = value,
            None => self.keys.push((key.as_bytes().to_vec(), value)),
        }
    }

    /// Removes a key.
    ///
    /// # Panics
    /// If there is none: a test that removes nothing tests nothing.
    pub fn unset(&mut self, key: &str) {
        let before = self.keys.len();
        self.keys.retain(|entry| entry.0 != key.as_bytes());
        assert!(self.keys.len() < before, "the draft has no key {key}");
    }

    /// The tensor of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("the draft has no tensor {name}"))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        for tensor in &self.tensors {
            pad(&mut out, self.alignment);
            out.extend(&tensor.data);
        }
        pad(&mut out, self.alignment);
        out
    }

    /// The bytes before the tensor data: header, metadata, tensor table.
    pub fn head(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.format.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}
