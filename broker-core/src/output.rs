//! Bytes that wait to be sent on one connection.

use std::collections::VecDeque;

use crate::message::Message;

/// Payloads from this length on are sent from the message itself instead of being copied.
pub(crate) const BY_REFERENCE_BYTES: usize = 16 * 1024;
/// Buffers beyond this capacity are not kept for others.
const POOLED_BYTES: usize = 64 * 1024;
/// This many buffers are kept for the next tick.
const POOLED: usize = 256;

/// Copied bytes, with large payloads between them by reference. Empty, it holds no memory.
#[derive(Default)]
pub(crate) struct Output {
    /// The copied bytes; those before `sent` are gone.
    buf: Vec<u8>,
    sent: usize,
    /// Bytes that wait, payloads by reference included.
    waiting: usize,
    /// Oldest first.
    #[expect(clippy::box_collection, reason = "few connections have any: one pointer, not four")]
    payloads: Option<Box<VecDeque<Payload>>>,
}

/// A payload that stands between the copied bytes.
struct Payload {
    /// It comes after this many bytes of `buf`.
    after: usize,
    message: Message,
    sent: usize,
}

impl Output {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Memory of what was copied; payloads by reference count where they are kept.
    pub(crate) fn held(&self) -> usize {
        self.buf.len()
    }

    /// Where to append; call [`Output::appended`] afterwards.
    #[inline]
    pub(crate) fn buf(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.buf.capacity() == 0 {
            self.buf = pool.take();
        }
        &mut self.buf
    }

    /// `n` bytes were appended to [`Output::buf`].
    #[inline]
    pub(crate) fn appended(&mut self, n: usize) {
        self.waiting += n;
    }

    /// The payload of `message` comes next.
    pub(crate) fn append_payload(&mut self, message: Message) {
        self.waiting += message.payload().len();
        let after = self.buf.len();
        self.payloads.get_or_insert_default().push_back(Payload { after, message, sent: 0 });
    }

    /// What waits, in order.
    pub(crate) fn chunks(&self) -> Chunks<'_> {
        Chunks { output: Some(self), at: self.sent, payload: 0, payload_due: false }
    }

    /// The socket took `n` bytes.
    pub(crate) fn written(&mut self, n: usize, pool: &mut Pool) {
        self.waiting = self.waiting.saturating_sub(n);
        if self.waiting == 0 {
            self.payloads = None;
            self.sent = 0;
            pool.give(std::mem::take(&mut self.buf));
            return;
        }
        self.advance(n);
        if self.sent > self.buf.len() / 2 {
            self.compact();
        }
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(payload) = self.payloads.as_mut().and_then(|list| list.front_mut()) {
            let before = payload.after - self.sent;
            if n < before {
                break;
            }
            n -= before;
            self.sent = payload.after;
            let left = payload.message.payload().len() - payload.sent;
            if n < left {
                payload.sent += n;
                return;
            }
            n -= left;
            if let Some(list) = &mut self.payloads {
                list.pop_front();
            }
        }
        self.sent += n;
    }

    fn compact(&mut self) {
        self.buf.drain(..self.sent);
        for payload in self.payloads.iter_mut().flat_map(|list| list.iter_mut()) {
            payload.after -= self.sent;
        }
        self.sent = 0;
    }
}

/// What waits to be sent on a connection, in order; most often one piece.
pub struct Chunks<'a> {
    output: Option<&'a Output>,
    at: usize,
    payload: usize,
    payload_due: bool,
}

impl Chunks<'_> {
    /// Nothing waits.
    pub(crate) fn none() -> Self {
        Chunks { output: None, at: 0, payload: 0, payload_due: false }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let output = self.output?;
        loop {
            let payload = output.payloads.as_ref().and_then(|list| list.get(self.payload));
            if std::mem::take(&mut self.payload_due) {
                self.payload += 1;
                let payload = payload?;
                return payload.message.payload().get(payload.sent..);
            }
            let end = payload.map_or(output.buf.len(), |payload| payload.after);
            self.payload_due = payload.is_some();
            let copied = output.buf.get(self.at..end).unwrap_or_default();
            self.at = end;
            if !copied.is_empty() {
                return Some(copied);
            }
            payload?;
        }
    }
}

/// Buffers that no connection needs now.
#[derive(Default)]
pub(crate) struct Pool(Vec<Vec<u8>>);

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut buf: Vec<u8>) {
        if self.0.len() < POOLED && (1..=POOLED_BYTES).contains(&buf.capacity()) {
            buf.clear();
            self.0.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use whimbrel_codec::QoS;

    use super::*;
    use crate::Millis;
    use crate::message::{Account, Publication};

    #[derive(Clone, Debug)]
    enum Step {
        Copy(usize),
        Refer(usize),
        Written(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1usize..60).prop_map(Step::Copy),
            1 => (1usize..60).prop_map(Step::Refer),
            3 => (0usize..90).prop_map(Step::Written),
        ]
    }

    proptest! {
        /// Whatever the socket takes at a time, the bytes are in order and whole.
        #[test]
        fn output_is_like_a_queue_of_bytes(steps in prop::collection::vec(step(), 1..80)) {
            let (mut output, mut pool) = (Output::default(), Pool::default());
            let account = Arc::new(Account::default());
            let mut model: Vec<u8> = Vec::new();
            let mut next = 0u8;
            for step in steps {
                let mut fresh = |len: usize| -> Vec<u8> {
                    let bytes = || { next = next.wrapping_add(1); next };
                    std::iter::repeat_with(bytes).take(len).collect()
                };
                match step {
                    Step::Copy(len) => {
                        let bytes = fresh(len);
                        output.buf(&mut pool).extend_from_slice(&bytes);
                        output.appended(len);
                        model.extend(bytes);
                    }
                    Step::Refer(len) => {
                        let bytes = fresh(len);
                        let (qos, expires) = (QoS::AtMostOnce, Millis::NEVER);
                        let mut p = Publication::new("t", &[], &bytes, qos, expires);
                        output.append_payload(p.keep(&account, &mut Vec::new()));
                        model.extend(bytes);
                    }
                    Step::Written(n) => {
                        let n = n.min(model.len());
                        output.written(n, &mut pool);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(output.len(), model.len());
                let chunks: Vec<&[u8]> = output.chunks().collect();
                prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
                prop_assert_eq!(chunks.concat(), model.clone());
            }
            output.written(model.len(), &mut pool);
            prop_assert_eq!(account.bytes(), 0);
        }
    }
}
