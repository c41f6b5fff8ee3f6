//! The memory of a client that the application lends.

use crate::arena::Arena;
use crate::arrivals::{ArrivalSlot, Arrivals};
use crate::auth::Authentication;
use crate::buffer::Buffer;
use crate::connection::Connection;
use crate::machine::Machine;
use crate::output::Output;
use crate::session::{OutgoingSlot, Session};
use crate::storage::{Queue, Storage};
use crate::topics::{AliasSlot, OutgoingAliases, Topics};
use crate::{Client, Limits};

/// All memory of a client that allocates nothing. Each piece bounds one thing; those that are not
/// needed stay empty.
///
/// | piece | what it is for | items |
/// |---|---|---|
/// | `input` | what comes | the longest packet; with 5.0 announced as maximum packet size |
/// | `output` | what goes | the longest packet and 16 bytes more; CONNECT counts |
/// | `in_flight` | QoS 1 and 2 that go | packet and 4 bytes for each message in flight |
/// | `outgoing` | their identifiers | messages, SUBSCRIBE and UNSUBSCRIBE in flight |
/// | `incoming` | QoS 2 that comes | messages between PUBLISH and PUBREL |
/// | `arrivals` | acknowledging by hand | QoS 1 and 2 messages that are not acknowledged |
/// | `incoming_aliases` | aliases of the server | aliases |
/// | `incoming_topics` | what they stand for | topics and 4 bytes each |
/// | `outgoing_aliases` | automatic aliases | aliases |
/// | `outgoing_topics` | what they stand for | topics and 4 bytes each |
/// | `authentication_method` | enhanced authentication | bytes of the method's name |
///
/// What CONNECT announces (maximum packet size, receive maximum, topic alias maximum) is never more
/// than there is memory for.
#[derive(Default)]
pub struct Memory<'m> {
    /// Bytes of the server until their events are drained.
    pub input: &'m mut [u8],
    /// Bytes for the server until they are written.
    pub output: &'m mut [u8],
    /// QoS 1 and 2 messages of the application until they are acknowledged.
    pub in_flight: &'m mut [u8],
    /// Identifiers of the application: as many as the oldest and the newest in flight are apart.
    pub outgoing: &'m mut [OutgoingSlot],
    /// Identifiers of QoS 2 messages of the server until they are released.
    pub incoming: &'m mut [u16],
    /// Messages of the server until the application acknowledges them.
    pub arrivals: &'m mut [ArrivalSlot],
    /// Topic aliases of the server.
    pub incoming_aliases: &'m mut [AliasSlot],
    /// What they stand for.
    pub incoming_topics: &'m mut [u8],
    /// Automatic topic aliases; at most 64 are used.
    pub outgoing_aliases: &'m mut [AliasSlot],
    /// What they stand for.
    pub outgoing_topics: &'m mut [u8],
    /// The authentication method of CONNECT.
    pub authentication_method: &'m mut [u8],
}

impl<'m> Memory<'m> {
    pub(crate) fn client(self, limits: Limits) -> Client<'m> {
        Pieces {
            input: Storage::Lent(self.input),
            output: Storage::Lent(self.output),
            in_flight: Storage::Lent(self.in_flight),
            outgoing: Storage::Lent(self.outgoing),
            incoming: Storage::Lent(self.incoming),
            arrivals: Storage::Lent(self.arrivals),
            incoming_topics: Topics::new(
                Storage::Lent(self.incoming_aliases),
                Storage::Lent(self.incoming_topics),
            ),
            outgoing_topics: Topics::new(
                Storage::Lent(self.outgoing_aliases),
                Storage::Lent(self.outgoing_topics),
            ),
            authentication_method: Storage::Lent(self.authentication_method),
        }
        .client(limits)
    }
}

/// Memory of either kind.
pub(crate) struct Pieces<'m> {
    input: Storage<'m, u8>,
    output: Storage<'m, u8>,
    in_flight: Storage<'m, u8>,
    outgoing: Storage<'m, OutgoingSlot>,
    incoming: Storage<'m, u16>,
    arrivals: Storage<'m, ArrivalSlot>,
    incoming_topics: Topics<'m>,
    outgoing_topics: Topics<'m>,
    authentication_method: Storage<'m, u8>,
}

impl<'m> Pieces<'m> {
    /// Memory that grows as it is needed, as far as the limits and the protocol go.
    #[cfg(feature = "alloc")]
    pub(crate) const fn growing(limits: Limits) -> Pieces<'static> {
        const IDS: usize = u16::MAX as usize;
        Pieces {
            input: Storage::growing(usize::MAX),
            output: Storage::growing(usize::MAX),
            in_flight: Storage::growing(limits.max_in_flight_bytes),
            outgoing: Storage::growing(whimbrel_protocol::MAX_SPAN),
            incoming: Storage::growing(IDS),
            arrivals: Storage::growing(IDS),
            incoming_topics: Topics::new(
                Storage::growing(IDS),
                Storage::growing(limits.max_alias_bytes),
            ),
            outgoing_topics: Topics::new(
                Storage::growing(crate::topics::MOST as usize),
                Storage::growing(limits.max_alias_bytes),
            ),
            authentication_method: Storage::growing(IDS),
        }
    }

    pub(crate) fn client(self, limits: Limits) -> Client<'m> {
        let session = Session::new(
            Queue::new(self.outgoing),
            Arena::new(self.in_flight),
            Queue::new(self.incoming),
        );
        let machine = Machine {
            limits,
            session,
            connection: Connection::closed(),
            output: Output::new(Buffer::new(self.output), limits.max_output_bytes),
            arrivals: Arrivals::new(Queue::new(self.arrivals)),
            incoming_topics: self.incoming_topics,
            outgoing_aliases: OutgoingAliases::new(self.outgoing_topics),
            automatic_aliases: 0,
            authentication: Authentication::new(self.authentication_method),
            manual: false,
            discarded: 0,
        };
        Client::of(machine, Buffer::new(self.input))
    }
}
