//! The broker's core behind the port of the tests.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use whimbrel_broker_core::{Action, Config, ConnId, Millis, Peer, Shard, ShardId, Shared};
use whimbrel_conformance::port::{Broker, Connection, Received};
use whimbrel_store::MemoryStore;

const PEER: Peer = Peer::MEMORY;

/// A broker of its own, without sockets.
pub struct InMemory(Rc<RefCell<World>>);

/// Shards, what runs between them, and the clock.
struct World {
    now: Millis,
    shards: Vec<Shard>,
    links: Vec<Link>,
}

/// A connection as the client sees it.
struct Link {
    shard: usize,
    conn: ConnId,
    received: Vec<u8>,
    closed: bool,
}

/// The client's end of one.
struct End {
    world: Rc<RefCell<World>>,
    link: usize,
}

impl InMemory {
    /// With this many shards and nothing in them.
    pub fn new(shards: u16, config: Config) -> InMemory {
        let config = Arc::new(config);
        let shared = Shared::new(shards, 1);
        let now = Millis(1_000_000);
        let shard = |id| {
            let store = Box::new(MemoryStore);
            Shard::new(ShardId(id), shared.clone(), config.clone(), store, 7, now)
        };
        let shards = (0..shards).map(shard).collect();
        InMemory(Rc::new(RefCell::new(World { now, shards, links: Vec::new() })))
    }
}

impl Broker for InMemory {
    fn open(&self) -> Result<Box<dyn Connection>, String> {
        let mut world = self.0.borrow_mut();
        let link = world.links.len();
        let (now, shard) = (world.now, link % world.shards.len());
        let conn = world.shards[shard].handle_open(now, PEER);
        world.links.push(Link { shard, conn, received: Vec::new(), closed: false });
        Ok(Box::new(End { world: self.0.clone(), link }))
    }

    fn advance(&self, time: Duration) {
        let mut world = self.0.borrow_mut();
        let end = Millis(world.now.0 + time.as_millis() as u64);
        world.advance(end);
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn silence(&self) -> Duration {
        Duration::ZERO
    }
}

impl Connection for End {
    fn send(&mut self, bytes: &[u8]) {
        let mut world = self.world.borrow_mut();
        let Link { shard, conn, closed, .. } = world.links[self.link];
        if closed {
            return;
        }
        let now = world.now;
        world.shards[shard].handle_bytes(now, conn, bytes);
        world.settle();
    }

    fn receive(&mut self, _: Duration, bytes: &mut Vec<u8>) -> Received {
        let link = &mut self.world.borrow_mut().links[self.link];
        if !link.received.is_empty() {
            bytes.append(&mut link.received);
            return Received::Bytes;
        }
        if link.closed { Received::Closed } else { Received::Nothing }
    }

    fn close(&mut self) {
        let mut world = self.world.borrow_mut();
        let link = &mut world.links[self.link];
        if std::mem::replace(&mut link.closed, true) {
            return;
        }
        let (shard, conn) = (link.shard, link.conn);
        let now = world.now;
        world.shards[shard].handle_closed(now, conn);
        world.settle();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}

impl World {
    /// Moves the clock from deadline to deadline until `end`.
    fn advance(&mut self, end: Millis) {
        while self.now < end {
            let next = self.shards.iter().filter_map(Shard::poll_timeout).min();
            self.now = next.unwrap_or(end).max(Millis(self.now.0 + 1)).min(end);
            for shard in &mut self.shards {
                shard.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// Does what the shards ask for until they ask for nothing.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.shards.len() {
                while let Some(action) = self.shards[at].poll_action(self.now) {
                    quiet = false;
                    self.act(at, action);
                }
                let mut sent = Vec::new();
                while let Some((to, mail)) = self.shards[at].poll_mail() {
                    sent.push((to, std::mem::take(mail)));
                }
                for (to, mut mail) in sent {
                    quiet = false;
                    self.shards[usize::from(to.0)].handle_mail(self.now, &mut mail);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn act(&mut self, shard: usize, action: Action) {
        match action {
            Action::Send(conn) => self.deliver(shard, conn),
            Action::Close { conn, .. } => {
                self.deliver(shard, conn);
                if let Some(link) = self.link(shard, conn) {
                    link.closed = true;
                }
                self.shards[shard].handle_closed(self.now, conn);
            }
            Action::Move { conn, to, bytes } => {
                let home = usize::from(to.0);
                self.shards[shard].handle_closed(self.now, conn);
                let moved = self.shards[home].handle_open(self.now, PEER);
                if let Some(link) = self.link(shard, conn) {
                    (link.shard, link.conn) = (home, moved);
                }
                self.shards[home].handle_bytes(self.now, moved, &bytes);
            }
            Action::Pause(_) | Action::Resume(_) | Action::Event(_) => {}
        }
    }

    /// The client takes all that waits for it.
    fn deliver(&mut self, shard: usize, conn: ConnId) {
        let bytes: Vec<u8> = self.shards[shard].output(conn).flatten().copied().collect();
        let len = bytes.len();
        if let Some(link) = self.link(shard, conn) {
            link.received.extend(bytes);
        }
        self.shards[shard].handle_written(self.now, conn, len);
    }

    fn link(&mut self, shard: usize, conn: ConnId) -> Option<&mut Link> {
        let same = |link: &&mut Link| link.shard == shard && link.conn == conn && !link.closed;
        self.links.iter_mut().find(same)
    }
}
