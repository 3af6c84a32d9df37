//! The states of all slots of a hot table, by layout.
//!
//! Knows slots, no keys. Invariant: a slot without a state has zeros or nothing.

use crate::plugin::StateLayout;

/// Zeros or empty bytes in a slot without a state.
#[derive(Debug)]
pub(super) enum States {
    None,
    /// `width` words a slot.
    Fixed {
        width: usize,
        words: Vec<u64>,
    },
    /// `bytes` is the capacity of all blobs.
    Blob {
        blobs: Vec<Vec<u8>>,
        bytes: usize,
    },
}

/// What the allocator adds to a blob, about.
const BLOB_OVERHEAD_BYTES: usize = 16;

impl States {
    pub fn new(layout: StateLayout) -> Self {
        match layout {
            StateLayout::None => States::None,
            StateLayout::Fixed(width) => States::Fixed {
                width: width as usize,
                words: Vec::new(),
            },
            StateLayout::Blob => States::Blob {
                blobs: Vec::new(),
                bytes: 0,
            },
        }
    }

    pub fn push_slot(&mut self) {
        match self {
            States::None => {}
            States::Fixed { width, words } => words.resize(words.len() + *width, 0),
            States::Blob { blobs, .. } => blobs.push(Vec::new()),
        }
    }

    pub fn clear(&mut self, slot: u32) {
        match self {
            States::None => {}
            States::Fixed { width, words } => words[slot as usize * *width..][..*width].fill(0),
            States::Blob { blobs, bytes } => {
                *bytes -= blobs[slot as usize].capacity();
                blobs[slot as usize] = Vec::new();
            }
        }
    }

    pub fn accepts(&self, state: Option<&[u8]>) -> Result<(), String> {
        let found = state.map(<[u8]>::len);
        let fits = match (self, found) {
            (_, None) => true,
            (States::None, Some(len)) => len == 0,
            (States::Fixed { width, .. }, Some(len)) => len == 8 * width,
            (States::Blob { .. }, Some(len)) => len > 0,
        };
        let found = found.unwrap_or(0);
        fits.then_some(()).ok_or_else(|| match self {
            States::Fixed { width, .. } => {
                format!("a stored state has {found} bytes, the layout has {width} words of 8")
            }
            _ => format!("a stored state has {found} bytes, the layout does not allow that"),
        })
    }

    /// `state` was [accepted](Self::accepts), or is empty for none.
    pub fn load(&mut self, slot: u32, state: &[u8]) {
        match self {
            States::None => {}
            States::Fixed { width, words } => {
                let slot_words = &mut words[slot as usize * *width..][..*width];
                for (word, bytes) in slot_words.iter_mut().zip(state.as_chunks().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
            }
            States::Blob { blobs, bytes } => {
                blobs[slot as usize] = state.to_vec();
                *bytes += state.len();
            }
        }
    }

    /// As the allocator was asked for it.
    pub fn bytes(&self) -> usize {
        match self {
            States::None => 0,
            States::Fixed { words, .. } => words.capacity() * 8,
            States::Blob { blobs, bytes } => blobs.capacity() * size_of::<Vec<u8>>() + bytes,
        }
    }

    /// A new state in layout `Blob`.
    pub fn set_blob(&mut self, slot: u32, state: &[u8]) {
        if let States::Blob { blobs, bytes } = self {
            let blob = &mut blobs[slot as usize];
            *bytes -= blob.capacity();
            replace(blob, state);
            *bytes += blob.capacity();
        }
    }

    /// What the states of `slots` slots take.
    pub fn used_bytes(&self, slots: usize) -> usize {
        match self {
            States::None => 0,
            States::Fixed { width, .. } => slots * width * 8,
            States::Blob { bytes, .. } => {
                slots * (size_of::<Vec<u8>>() + BLOB_OVERHEAD_BYTES) + bytes
            }
        }
    }
}

/// Keeps the allocation while the new state fits and does not leave most of it unused.
fn replace(blob: &mut Vec<u8>, state: &[u8]) {
    let wasteful = blob.capacity() > 256 && state.len() < blob.capacity() / 4;
    if state.len() > blob.capacity() || wasteful {
        // An eighth to grow: a state that grows a little at each update is not moved at each.
        *blob = Vec::with_capacity(state.len() + state.len() / 8);
    }
    blob.clear();
    blob.extend_from_slice(state);
}
