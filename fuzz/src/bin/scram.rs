//! Any text as client-first and, after a line end, client-final. Nobody knows the password.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use whimbrel_auth::scram::{Mechanism, NONCE_BYTES, Request, StoredKeys};

static KEYS: LazyLock<StoredKeys> = LazyLock::new(|| {
    StoredKeys::new(Mechanism::Sha256, "pencil", &[1; 16], 4096).expect("a fine password")
});

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let first = parts.next().unwrap_or_default();
    let last = parts.next().unwrap_or_default();
    let random = [7; NONCE_BYTES];
    for known in [true, false] {
        let Ok(request) = Request::parse(first) else { return };
        assert!(!request.user().is_empty() && !request.user().contains('\0'));
        let (server, message) = if known {
            request.answer(&KEYS, &random)
        } else {
            request.answer_unknown(Mechanism::Sha256, 4096, &[3; 32], &random)
        };
        let message = String::from_utf8(message).expect("text");
        assert!(message.starts_with("r=") && message.ends_with(",i=4096"));
        let fault = server.finish(last).expect_err("nobody knows the password");
        assert!(fault.message().starts_with(b"e="));
    }
});
