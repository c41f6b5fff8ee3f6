//! Any bytes as the front of a connection behind a proxy: however they are torn, the same address
//! comes out and the same bytes are left. The first byte is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_transport::proxy::{Decoder, Header, Malformed};

/// The longest header there can be.
const LONGEST: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = decode(bytes, bytes.len());
    assert_eq!(decode(bytes, usize::from(*step)), whole);
    if let Ok(Some(header)) = whole {
        assert!(header.used > 0 && header.used <= LONGEST);
        assert_eq!(decode(&bytes[..header.used], 1), whole, "no byte behind it matters");
        assert_eq!(decode(&bytes[..header.used - 1], 1), Ok(None), "no byte of it is too many");
    }
});

fn decode(bytes: &[u8], step: usize) -> Result<Option<Header>, Malformed> {
    let mut decoder = Decoder::default();
    let mut before = 0;
    for piece in bytes.chunks(step.max(1)) {
        if let Some(header) = decoder.handle_bytes(piece)? {
            assert!(header.used <= piece.len());
            return Ok(Some(Header { used: before + header.used, ..header }));
        }
        before += piece.len();
    }
    Ok(None)
}
