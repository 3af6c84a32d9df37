//! Bit masks in Arrow's order: bit i is bit i % 8 of byte i / 8.

/// Bit `i` of a mask; a mask left out means 1 everywhere.
#[inline(always)]
pub(crate) fn is_set(mask: Option<&[u8]>, i: usize) -> bool {
    mask.is_none_or(|bytes| bytes[i >> 3] >> (i & 7) & 1 == 1)
}

/// A mask that grows bit by bit. Bits at or above `len` are 0.
#[derive(Debug, Default)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    pub(crate) fn repeat(bit: bool, len: usize) -> Self {
        let mut bits = Bits {
            bytes: vec![if bit { 0xff } else { 0 }; len.div_ceil(8)],
            len,
        };
        bits.clear_above();
        bits
    }

    pub(crate) fn copy(mask: Option<&[u8]>, len: usize) -> Self {
        match mask {
            None => Bits::repeat(true, len),
            Some(bytes) => {
                let mut bits = Bits {
                    bytes: bytes[..len.div_ceil(8)].to_vec(),
                    len,
                };
                bits.clear_above();
                bits
            }
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, bit: bool) {
        if self.len & 7 == 0 {
            self.bytes.push(bit as u8);
        } else {
            let last = self.bytes.len() - 1;
            self.bytes[last] |= (bit as u8) << (self.len & 7);
        }
        self.len += 1;
    }

    #[inline]
    pub(crate) fn get(&self, i: usize) -> bool {
        self.bytes[i >> 3] >> (i & 7) & 1 == 1
    }

    #[inline]
    pub(crate) fn set(&mut self, i: usize, bit: bool) {
        let mask = 1 << (i & 7);
        if bit {
            self.bytes[i >> 3] |= mask
        } else {
            self.bytes[i >> 3] &= !mask
        }
    }

    pub(crate) fn all(&self) -> bool {
        let ones: u32 = self.bytes.iter().map(|byte| byte.count_ones()).sum();
        ones as usize == self.len
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.bytes.truncate(len.div_ceil(8));
            self.clear_above();
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn clear_above(&mut self) {
        if self.len & 7 != 0
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1 << (self.len & 7)) - 1;
        }
    }
}
