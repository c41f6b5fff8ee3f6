//! The stamp at the start of each payload, from which loss, repetition, order and latency are told.

use std::collections::BTreeMap;

/// Length of a stamp in bytes.
pub const LEN: usize = 20;

/// Gaps of one sequence that are remembered; what fills an older one counts as a repetition.
const GAPS_MAX: usize = 1024;

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
        let mut rest = payload;
        for field in fields {
            let Some((place, after)) = rest.split_at_mut_checked(field.len()) else { return };
            place.copy_from_slice(field);
            rest = after;
        }
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

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// For the first time, after all that were sent before it or in their place.
    InOrder,
    /// For the first time, after one that was sent later.
    Late,
    /// Once more.
    Duplicate,
}

/// The messages of one publisher as one subscriber sees them.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    next: u64,
    /// Numbers that were jumped over: first and one after the last.
    gaps: BTreeMap<u64, u64>,
}

impl Sequence {
    /// Takes note of the message with this number.
    pub fn take(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            if number > self.next {
                self.gaps.insert(self.next, number);
                if self.gaps.len() > GAPS_MAX {
                    self.gaps.pop_first();
                }
            }
            self.next = number.saturating_add(1);
            return Arrival::InOrder;
        }
        let gap = self.gaps.range(..=number).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = gap.filter(|(_, end)| number < *end) else {
            return Arrival::Duplicate;
        };
        self.gaps.remove(&start);
        if start < number {
            self.gaps.insert(start, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

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
    fn repetitions_gaps_and_disorder_are_told_apart() {
        use Arrival::{Duplicate, InOrder, Late};
        let mut sequence = Sequence::default();
        let arrivals: Vec<_> = [0, 1, 1, 4, 2, 2, 5, 3].map(|n| sequence.take(n)).into();
        assert_eq!(
            arrivals,
            [InOrder, InOrder, Duplicate, InOrder, Late, Duplicate, InOrder, Late]
        );
    }

    proptest! {
        #[test]
        fn a_sequence_is_right_whatever_comes(numbers in prop::collection::vec(0_u64..40, 0..80)) {
            let mut sequence = Sequence::default();
            let mut seen = BTreeSet::new();
            for number in numbers {
                let highest = seen.last().copied();
                let expected = match (seen.insert(number), highest) {
                    (false, _) => Arrival::Duplicate,
                    (true, Some(highest)) if number < highest => Arrival::Late,
                    (true, _) => Arrival::InOrder,
                };
                prop_assert_eq!(sequence.take(number), expected);
            }
        }
    }
}
