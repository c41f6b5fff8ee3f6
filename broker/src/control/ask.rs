//! What the control socket asks of shards, and what they answer.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use whimbrel_broker_core::{Answer, Client, DisconnectOutcome, Millis, Question, Shard};

use crate::connection::Connections;
use crate::event_loop::Peers;
use crate::mailbox::Control;

/// How long all shards together may take to answer.
const TIME: Duration = Duration::from_secs(5);

/// A question to a shard.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What a client may do, and whom it reaches.
    Explain(Question),
    /// This many of those who have a session, from a slot on.
    Clients { from: usize, most: usize },
    /// Ends a client's connection.
    Disconnect { client_id: String, user: Option<String> },
}

/// A client and the address that it is connected from.
pub(crate) type Addressed = (Client, Option<SocketAddr>);

/// A shard's answer.
pub(crate) enum Reply {
    Explain { answer: Answer, clients: Vec<Addressed> },
    Clients { clients: Vec<Addressed>, next: Option<usize> },
    Disconnect(DisconnectOutcome),
}

impl Ask {
    /// A shard's answer.
    pub(crate) fn reply(&self, now: Millis, core: &mut Shard, connections: &Connections) -> Reply {
        let with_address = |client: Client| {
            let address = client.conn.and_then(|id| connections.peer_address(id));
            (client, address)
        };
        match self {
            Ask::Explain(question) => {
                let mut answer = core.explain(question);
                let clients = std::mem::take(&mut answer.clients);
                Reply::Explain { answer, clients: clients.into_iter().map(with_address).collect() }
            }
            Ask::Clients { from, most } => {
                let (clients, next) = core.clients(*from, *most);
                Reply::Clients { clients: clients.into_iter().map(with_address).collect(), next }
            }
            Ask::Disconnect { client_id, user } => {
                Reply::Disconnect(core.disconnect_client(now, client_id, user.as_deref()))
            }
        }
    }

    /// Asks all shards.
    ///
    /// # Errors
    /// If one does not answer in time.
    pub(crate) fn of_all(self, peers: &Peers) -> Result<Vec<Reply>, String> {
        let (reply, replies) = channel();
        let ask = std::sync::Arc::new(self);
        for mailbox in peers.mailboxes.iter() {
            mailbox.control(Control::Ask(ask.clone(), reply.clone()));
        }
        collect(&replies, peers.mailboxes.len())
    }

    /// Asks one shard.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub(crate) fn of_one(self, shard: usize, peers: &Peers) -> Result<Option<Reply>, String> {
        let Some(mailbox) = peers.mailboxes.get(shard) else { return Ok(None) };
        let (reply, replies) = channel();
        mailbox.control(Control::Ask(std::sync::Arc::new(self), reply));
        Ok(collect(&replies, 1)?.pop())
    }
}

fn collect(replies: &Receiver<Reply>, from: usize) -> Result<Vec<Reply>, String> {
    let deadline = Instant::now() + TIME;
    let next = |_| {
        let left = deadline.saturating_duration_since(Instant::now());
        replies.recv_timeout(left).map_err(|_| {
            format!("the broker did not answer within {} s; is it shutting down?", TIME.as_secs())
        })
    };
    (0..from).map(next).collect()
}
