//! A short byte string of 16 bytes: a filter, or the levels of one node of the trie.

use triomphe::ThinArc;

const INLINE_BYTES: usize = 14;

/// Up to [`INLINE_BYTES`] bytes in place, longer ones behind one pointer.
pub(crate) enum Label {
    Inline(u8, [u8; INLINE_BYTES]),
    Heap(ThinArc<(), u8>),
}

impl Label {
    pub fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES];
        match inline.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Label::Inline(bytes.len() as u8, inline)
            }
            None => Label::Heap(ThinArc::from_header_and_slice((), bytes)),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Label::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Label::Heap(bytes) => &bytes.slice,
        }
    }
}

const _: () = assert!(size_of::<Label>() == 16);
