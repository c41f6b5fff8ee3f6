//! What to subscribe to, and how.

use std::sync::Arc;

use whimbrel_codec::{QoS, RetainHandling};

use crate::PropertyList;

/// A topic filter with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// As `sensors/+/temperature` or `$share/group/jobs/#`.
    pub filter: Arc<str>,
    /// The highest QoS wanted; [`QoS::AtMostOnce`] at first.
    pub qos: QoS,
    /// Not what this client published itself (5.0).
    pub no_local: bool,
    /// RETAIN as the publisher set it (5.0).
    pub retain_as_published: bool,
    /// What to do with retained messages (5.0).
    pub retain_handling: RetainHandling,
    /// User properties of SUBSCRIBE (5.0).
    pub properties: PropertyList,
    pub(crate) manual_ack: bool,
    pub(crate) when_full: WhenFull,
    pub(crate) queue_messages: usize,
}

/// What becomes of a QoS 0 message for a subscription whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted, so that a slow consumer harms nobody but itself.
    #[default]
    Drop,
    /// Nothing more is read from the broker until there is room, for none of the subscriptions:
    /// nothing is lost on this side, and who waits for a response while its queue is full waits
    /// for ever.
    Wait,
}

impl Filter {
    /// QoS 0, acknowledged as messages are taken.
    pub fn new(filter: impl Into<Arc<str>>) -> Filter {
        Filter {
            filter: filter.into(),
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            properties: PropertyList::new(),
            manual_ack: false,
            when_full: WhenFull::Drop,
            queue_messages: 1024,
        }
    }

    /// Sets the highest QoS wanted.
    pub fn qos(mut self, qos: QoS) -> Filter {
        self.qos = qos;
        self
    }

    /// Not what this client published itself (5.0).
    pub fn no_local(mut self, yes: bool) -> Filter {
        self.no_local = yes;
        self
    }

    /// Has the retained flag as the publisher set it (5.0).
    pub fn retain_as_published(mut self, yes: bool) -> Filter {
        self.retain_as_published = yes;
        self
    }

    /// What to do with retained messages (5.0).
    pub fn retain_handling(mut self, handling: RetainHandling) -> Filter {
        self.retain_handling = handling;
        self
    }

    /// The application acknowledges each message with [`Incoming::ack`](crate::Incoming::ack);
    /// without, a message is acknowledged when it is taken from the stream.
    ///
    /// At most as many messages as the receive maximum come without acknowledgement.
    pub fn manual_ack(mut self) -> Filter {
        self.manual_ack = true;
        self
    }

    /// How many QoS 0 messages may wait to be taken, 1,024 at first, and what happens then.
    /// Messages of QoS 1 and 2 are bounded by the receive maximum and never dropped.
    pub fn queue(mut self, messages: usize, when_full: WhenFull) -> Filter {
        self.queue_messages = messages.max(1);
        self.when_full = when_full;
        self
    }
}

impl From<&str> for Filter {
    fn from(filter: &str) -> Filter {
        Filter::new(filter)
    }
}

impl From<String> for Filter {
    fn from(filter: String) -> Filter {
        Filter::new(filter)
    }
}
