//! A tick of a shard: what has come is handled, what is to leave leaves, as an event loop would do
//! it, in any order that an event loop could have.

use std::collections::VecDeque;

use whimbrel_broker_core::{Action, ConnId, Event, Peer, Why};
use whimbrel_codec::ReasonCode;

use super::World;
use crate::check::Closing;
use crate::net::SOCKET_BYTES;
use crate::{Mutation, note};

impl World {
    /// One tick of one shard.
    pub(super) fn tick(&mut self, shard: u16) {
        if self.broker.is_none() {
            return;
        }
        self.operations += 1;
        let mut parts = [0, 1, 2, 3, 4];
        for at in (1..parts.len()).rev() {
            parts.swap(at, self.rng.index(at + 1));
        }
        self.arrive(shard);
        for part in parts {
            match part {
                0 => self.deliver_mail(shard),
                1 => self.handle_timeout(shard),
                2 => self.handle_store(shard),
                3 => self.read_links(shard),
                _ => self.write_links(shard),
            }
        }
        self.drain(shard);
        self.send_mail(shard);
        self.keep_facts(shard);
        self.check_limits();
    }

    /// Connections that come from outside or from another shard.
    fn arrive(&mut self, shard: u16) {
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        let new: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, link)| link.shard == shard && link.moved.is_some() && link.broker_open)
            .map(|(id, _)| *id)
            .collect();
        for id in new {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let Some(core) = broker.shards.get_mut(usize::from(shard)) else { continue };
            let bytes = link.moved.take().unwrap_or_default();
            let conn = core.handle_open(now, Peer::MEMORY);
            link.conn = Some(conn);
            self.by_conn.insert((shard, conn.0), id);
            if !bytes.is_empty() {
                core.handle_bytes(now, conn, &bytes);
            }
        }
    }

    fn deliver_mail(&mut self, shard: u16) {
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        for from in 0..broker.shards.len() as u16 {
            let waiting = broker.mail.get(&(from, shard)).map_or(0, VecDeque::len);
            let some = if self.calm { waiting } else { self.rng.index(waiting + 1) };
            for _ in 0..some {
                let mail = broker.mail.get_mut(&(from, shard)).and_then(VecDeque::pop_front);
                let Some(mut mail) = mail else { break };
                let loses = self.options.mutation == Some(Mutation::LoseMail);
                if loses && self.rng.one_in(20) {
                    continue;
                }
                broker.shards[usize::from(shard)].handle_mail(now, &mut mail);
                if !mail.is_empty() {
                    self.check.fail(7, "mail was not taken whole".into());
                }
                broker.spare.push(mail);
            }
        }
    }

    fn handle_timeout(&mut self, shard: u16) {
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        let core = &mut broker.shards[usize::from(shard)];
        if core.poll_timeout().is_some_and(|due| due <= now) {
            core.handle_timeout(now);
        }
    }

    fn handle_store(&mut self, shard: u16) {
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        broker.shards[usize::from(shard)].handle_store(now);
    }

    fn links_of(&self, shard: u16) -> Vec<(usize, ConnId)> {
        let links = self.links.iter().filter(|(_, link)| link.shard == shard);
        links.filter_map(|(id, link)| Some((*id, link.conn?))).collect()
    }

    /// Bytes of clients, some of them; and ends of connections.
    fn read_links(&mut self, shard: u16) {
        for (id, conn) in self.links_of(shard) {
            let Some(broker) = &mut self.broker else { return };
            let now = broker.now(self.now_ms);
            let Some(link) = self.links.get_mut(&id) else { continue };
            let stalled = link.up_stalled_until_ms > self.now_ms;
            if link.paused || stalled || (!self.calm && self.rng.one_in(4)) {
                continue;
            }
            let n = match self.rng.below(4) {
                _ if self.calm => link.up.len(),
                0 => self.rng.index(link.up.len() + 1),
                1 => link.up.len().min(1 + self.rng.index(20)),
                _ => link.up.len(),
            };
            if n > 0 {
                let bytes: Vec<u8> = link.up.drain(..n).collect();
                broker.shards[usize::from(shard)].handle_bytes(now, conn, &bytes);
            } else if link.up.is_empty() && link.up_ends && link.up_ends_after_ms <= self.now_ms {
                self.lose(id);
            }
        }
    }

    /// The broker's end of a connection is gone.
    fn lose(&mut self, id: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.broker_open = false;
        let Some(conn) = link.conn.take() else { return };
        let shard = link.shard;
        self.by_conn.remove(&(shard, conn.0));
        if let Some(broker) = &mut self.broker {
            let now = broker.now(self.now_ms);
            broker.shards[usize::from(shard)].handle_closed(now, conn);
        }
    }

    /// Sockets that were full take more.
    fn write_links(&mut self, shard: u16) {
        for (id, _) in self.links_of(shard) {
            if self.links.get(&id).is_some_and(|link| link.blocked) {
                self.send(id);
            }
        }
    }

    /// The socket takes some of what waits.
    fn send(&mut self, id: usize) {
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(conn) = link.conn else { return };
        let shard = &mut broker.shards[usize::from(link.shard)];
        let waiting: usize = shard.output(conn).map(<[u8]>::len).sum();
        let room = SOCKET_BYTES.saturating_sub(link.down.len());
        let n = match self.rng.below(4) {
            0 if !self.calm => self.rng.index(waiting + 1),
            _ => waiting,
        };
        let n = n.min(room);
        let mut left = n;
        for chunk in shard.output(conn) {
            let taken = chunk.len().min(left);
            link.down.extend(&chunk[..taken]);
            left -= taken;
        }
        link.blocked = n < waiting;
        shard.handle_written(now, conn, n);
    }

    /// Does what the shard wants done, until there is nothing more.
    fn drain(&mut self, shard: u16) {
        loop {
            let Some(broker) = &mut self.broker else { return };
            let now = broker.now(self.now_ms);
            let Some(action) = broker.shards[usize::from(shard)].poll_action(now) else { return };
            self.operations += 1;
            self.act_for(shard, action);
        }
    }

    fn act_for(&mut self, shard: u16, action: Action) {
        let id_of = |world: &World, conn: ConnId| world.by_conn.get(&(shard, conn.0)).copied();
        match action {
            Action::Send(conn) => {
                if let Some(id) = id_of(self, conn)
                    && self.links.get(&id).is_some_and(|link| !link.blocked)
                {
                    self.send(id);
                }
            }
            Action::Close { conn, .. } => {
                if let Some(id) = id_of(self, conn) {
                    self.send(id);
                    self.lose(id);
                }
            }
            Action::Move { conn, to, bytes } => {
                let Some(id) = id_of(self, conn) else { return };
                self.lose(id);
                if let Some(link) = self.links.get_mut(&id) {
                    link.broker_open = true;
                    link.shard = to.0;
                    link.moved = Some(bytes);
                    (link.paused, link.blocked) = (false, false);
                }
            }
            Action::Pause(conn) | Action::Resume(conn) => {
                let paused = matches!(action, Action::Pause(_));
                if let Some(link) = id_of(self, conn).and_then(|id| self.links.get_mut(&id)) {
                    link.paused = paused;
                }
            }
            Action::Event(event) => self.event(shard, &event),
        }
    }

    /// What the broker says of connections.
    fn event(&mut self, shard: u16, event: &Event) {
        note!(self.trace, self.now_ms, "shard {shard}: {event:?}");
        match event {
            Event::Connected { conn, client_id, session_present, .. } => {
                let Some(id) = self.by_conn.get(&(shard, conn.0)).copied() else {
                    // It was closed in the same tick: its end follows, and nobody was told.
                    return self.pass_by(client_id, *session_present);
                };
                let Some(link) = self.links.get_mut(&id) else { return };
                (link.connected, link.was_opened) = (true, true);
                let c = link.client;
                self.opened(c, id, *session_present);
            }
            Event::Disconnected { client_id, why, .. } => self.disconnected(client_id, *why),
            Event::Refused { .. }
            | Event::Unauthenticated { .. }
            | Event::Banned { .. }
            | Event::Denied { .. } => {}
        }
    }

    fn client_named(&self, name: &str) -> Option<usize> {
        self.clients.iter().position(|client| client.name == name)
    }

    /// A connection was accepted and closed before its events were read.
    fn pass_by(&mut self, name: &str, present: bool) {
        let Some(c) = self.client_named(name) else { return };
        let newest = self
            .links
            .iter_mut()
            .rev()
            .find(|(_, link)| link.client == c && !link.broker_open && !link.connected);
        if let Some((&id, link)) = newest {
            (link.connected, link.was_opened) = (true, true);
            self.opened(c, id, present);
        }
    }

    /// The broker has a new session for a client that may never be told. Should it not be, the
    /// client would take up an old state with a new session, which no client can know: so it
    /// begins anew.
    fn opened(&mut self, c: usize, id: usize, present: bool) {
        self.check.broker_opened(c, id, present);
        self.check.will_opened(c, id);
        let client = &mut self.clients[c];
        let has_state = !client.outgoing.is_empty() || !client.received.is_empty();
        if !present && has_state {
            client.must_clean = true;
        }
    }

    /// A session has one connection at a time, so the one that has ended is the oldest that was
    /// said to be connected.
    fn disconnected(&mut self, name: &str, why: Why) {
        let Some(c) = self.client_named(name) else { return };
        let first = self.links.iter_mut().find(|(_, link)| link.client == c && link.connected);
        let Some((&id, link)) = first else { return };
        link.connected = false;
        let expiry_s = link.disconnect_expiry_s;
        let closing = match why {
            Why::Client(ReasonCode::Success) => Closing::Normal(expiry_s),
            Why::Client(_) => Closing::WithWill(expiry_s),
            _ => Closing::Lost,
        };
        let fact = self.check.broker_closed(c, id, closing);
        let short = self.check.ends_before(c, self.check.will_delay_s(id));
        let gone = self.check.will_closed(c, id, closing, short);
        self.facts.extend(fact.into_iter().chain(gone));
    }

    /// Mail leaves; with the first of it the batch of records is closed.
    fn send_mail(&mut self, shard: u16) {
        let Some(broker) = &mut self.broker else { return };
        let mut leaving = Vec::new();
        while let Some((to, mail)) = broker.shards[usize::from(shard)].poll_mail() {
            let mut batch = broker.spare.pop().unwrap_or_default();
            std::mem::swap(&mut batch, mail);
            leaving.push((to.0, batch));
        }
        for (to, batch) in leaving {
            broker.mail.entry((shard, to)).or_default().push_back(batch);
            self.operations += 1;
        }
    }

    fn keep_facts(&mut self, shard: u16) {
        let facts = std::mem::take(&mut self.facts);
        let Some(broker) = &self.broker else { return };
        let ticket = broker.tickets.last(shard);
        facts.into_iter().for_each(|fact| self.check.certain_with(ticket.0, fact));
    }
}
