//! Deliberate bugs. The checker must find each; none of them is in the broker: they are made by
//! what stands between it and its store, its disk, its mail and its clients, and by what stands
//! around a client of `client-core`.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The store says that all is durable before it is.
    AckBeforeSync,
    /// A batch with deliveries of QoS 2 counts as durable before it is.
    Qos2BeforeDurable,
    /// A sync of a file does nothing.
    SkipFsync,
    /// A message that is queued is not recorded.
    LoseQueued,
    /// A message that is in flight is not recorded.
    LoseDelivered,
    /// That a delivery has ended is not recorded.
    LoseAcknowledged,
    /// That PUBREC has come is not recorded.
    LoseReleased,
    /// The identifier of a QoS 2 message of a client is not recorded.
    ForgetReceived,
    /// A subscription is not recorded.
    LoseSubscription,
    /// The end of a subscription is not recorded.
    LoseUnsubscription,
    /// The end of a session is not recorded.
    ResurrectSession,
    /// A will is not recorded.
    LoseWill,
    /// That a will is gone is not recorded.
    RepeatWill,
    /// That a message is retained is not recorded.
    OldRetained,
    /// That a message is on its way to other shards is not recorded.
    LoseRouting,
    /// A pass does not state one session.
    PassForgetsSession,
    /// A sweep removes a segment too much.
    SweepTooEarly,
    /// Mail between shards is lost.
    LoseMail,
    /// DUP is cleared.
    ForgetDup,
    /// A PUBLISH has the packet identifier of the one before.
    ReusePacketId,
    /// Two PUBLISH change places.
    LoseOrder,
    /// A PUBLISH comes twice.
    RepeatPublish,
    /// A client that crashed forgets which QoS 2 messages it has got.
    RestartForgetsReceived,
    /// A client that crashed sends messages again that the broker has got.
    RestartPublishesReleased,
    /// A client that crashed forgets what it was publishing.
    RestartForgetsPublished,
    /// A client clears DUP.
    SendWithoutDup,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Mutation] = &[
        Mutation::AckBeforeSync,
        Mutation::Qos2BeforeDurable,
        Mutation::SkipFsync,
        Mutation::LoseQueued,
        Mutation::LoseDelivered,
        Mutation::LoseAcknowledged,
        Mutation::LoseReleased,
        Mutation::ForgetReceived,
        Mutation::LoseSubscription,
        Mutation::LoseUnsubscription,
        Mutation::ResurrectSession,
        Mutation::LoseWill,
        Mutation::RepeatWill,
        Mutation::OldRetained,
        Mutation::LoseRouting,
        Mutation::PassForgetsSession,
        Mutation::SweepTooEarly,
        Mutation::LoseMail,
        Mutation::ForgetDup,
        Mutation::ReusePacketId,
        Mutation::LoseOrder,
        Mutation::RepeatPublish,
        Mutation::RestartForgetsReceived,
        Mutation::RestartPublishesReleased,
        Mutation::RestartForgetsPublished,
        Mutation::SendWithoutDup,
    ];

    /// As on the command line: `ack-before-sync`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Mutation> {
        Mutation::ALL.iter().copied().find(|mutation| mutation.name() == name)
    }
}
