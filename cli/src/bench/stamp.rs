//! The stamp at the start of each payload, from which loss, repetition and latency are counted.

/// Length of a stamp in bytes.
pub const LEN: usize = 20;

/// Which message of which publisher, sent when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub publisher: u32,
    pub sequence: u64,
    /// Nanoseconds since the start of the bench.
    pub sent_ns: u64,
}

impl Stamp {
    /// Overwrites the start of `payload`.
    pub fn write(&self, payload: &mut [u8]) {
        let fields = [
            &self.publisher.to_be_bytes()[..],
            &self.sequence.to_be_bytes(),
            &self.sent_ns.to_be_bytes(),
        ];
        payload.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
    }

    /// None for a payload that is not of the bench.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (publisher, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent_ns, _) = rest.split_first_chunk()?;
        Some(Stamp {
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            sent_ns: u64::from_be_bytes(*sent_ns),
        })
    }
}

/// The sequence of one publisher as one subscriber sees it. TCP and the broker keep order, so a
/// number that does not grow is a repetition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    next: u64,
}

impl Sequence {
    /// True if the message is new.
    pub fn take(&mut self, sequence: u64) -> bool {
        let new = sequence >= self.next;
        self.next = self.next.max(sequence + 1);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back() {
        let stamp = Stamp { publisher: 1, sequence: 2, sent_ns: 3 };
        let mut payload = [0; LEN];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..LEN - 1]), None);
    }

    #[test]
    fn repetitions_are_told_from_gaps() {
        let mut sequence = Sequence::default();
        let new: Vec<_> = [0, 1, 1, 4, 2, 5].map(|n| sequence.take(n)).into();
        assert_eq!(new, [true, true, false, true, false, true]);
    }
}
