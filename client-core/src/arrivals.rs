//! Messages of the server that wait for their acknowledgement by the application.

use whimbrel_codec::{PacketId, PacketType, ReasonCode};
use whimbrel_protocol::Ring;

use crate::storage::Queue;

/// A message that is not acknowledged, or none: for [`Memory`](crate::Memory).
#[derive(Clone, Copy, Debug, Default)]
pub struct ArrivalSlot {
    id: u16,
    qos2: bool,
    /// What the application has answered; it goes out once all before it has.
    answer: Option<ReasonCode>,
}

impl ArrivalSlot {
    /// Without a message.
    pub const EMPTY: ArrivalSlot = ArrivalSlot { id: 0, qos2: false, answer: None };
}

/// An acknowledgement that may go out.
pub(crate) struct Answer {
    pub(crate) packet_type: PacketType,
    pub(crate) id: PacketId,
    pub(crate) reason: ReasonCode,
}

/// In the order of their arrival, which is the order of PUBACK and PUBREC `[MQTT-4.6.0-2]`,
/// `[MQTT-4.6.0-3]`. They end with the network connection: the server sends them again.
pub(crate) struct Arrivals<'m> {
    queue: Queue<'m, ArrivalSlot>,
    /// QoS 2 messages that the application has not answered.
    unanswered_qos2: usize,
}

impl<'m> Arrivals<'m> {
    pub(crate) const fn new(queue: Queue<'m, ArrivalSlot>) -> Arrivals<'m> {
        Arrivals { queue, unanswered_qos2: 0 }
    }

    /// The most messages that there can be.
    pub(crate) fn max(&self) -> usize {
        self.queue.max()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// QoS 2 messages that the application has not answered.
    pub(crate) fn unanswered_qos2(&self) -> usize {
        self.unanswered_qos2
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.unanswered_qos2 = 0;
    }

    pub(crate) fn shrink(&mut self) {
        self.queue.shrink();
    }

    /// False if there is no memory for it.
    pub(crate) fn push(&mut self, id: PacketId, qos2: bool, answer: Option<ReasonCode>) -> bool {
        let pushed = self.queue.push_back(ArrivalSlot { id: id.get(), qos2, answer });
        self.unanswered_qos2 += usize::from(pushed && qos2 && answer.is_none());
        pushed
    }

    /// Whether a QoS 2 message with this identifier is among them.
    pub(crate) fn contains_qos2(&self, id: PacketId) -> bool {
        let of = |at| self.queue.get(at).is_some_and(|one| one.id == id.get() && one.qos2);
        (0..self.queue.len()).any(of)
    }

    /// The application acknowledges a message; none if it does not wait for that, or whether its
    /// QoS is 2.
    pub(crate) fn answer(&mut self, id: PacketId, reason: ReasonCode) -> Option<bool> {
        let at = self.position(id.get())?;
        let one = self.queue.get_mut(at)?;
        one.answer = Some(reason);
        self.unanswered_qos2 -= usize::from(one.qos2);
        Some(one.qos2)
    }

    /// Servers count upwards, so the distance from the front is the place to look first.
    fn position(&self, id: u16) -> Option<usize> {
        let is = |at: &usize| {
            self.queue.get(*at).is_some_and(|one| one.id == id && one.answer.is_none())
        };
        let guess = id.wrapping_sub(self.queue.get(0)?.id).into();
        Some(guess).filter(is).or_else(|| (0..self.queue.len()).find(is))
    }

    /// The next acknowledgement, if everything that arrived before is acknowledged.
    pub(crate) fn pop_answered(&mut self) -> Option<Answer> {
        let &ArrivalSlot { id, qos2, answer } = self.queue.get(0)?;
        let reason = answer?;
        self.queue.pop_front();
        let packet_type = if qos2 { PacketType::PubRec } else { PacketType::PubAck };
        Some(Answer { packet_type, id: PacketId::new(id)?, reason })
    }
}
