//! One start of the broker: its shards, the mail between them, and its end of the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use whimbrel_broker_core::{Mail, Millis, Shard, ShardId, Shared};
use whimbrel_store::{Event, Log, MemoryStore, OpenError, Options, Recovered};
use whimbrel_topics::SessionRef;

use crate::Mutation;
use crate::disk::Machine;
use crate::plan::{Keeping, Plan};
use crate::rng::Rng;
use crate::tap::{Tap, Tickets};

/// A broker that runs.
pub struct Broker {
    pub shards: Vec<Shard>,
    pub shared: Arc<Shared>,
    pub log: Option<Arc<Log>>,
    pub tickets: Arc<Tickets>,
    /// From one shard to another, in order.
    pub mail: BTreeMap<(u16, u16), VecDeque<Mail>>,
    /// Batches that were read, to be filled again as a runtime does.
    pub spare: Vec<Mail>,
    /// Virtual time of the start.
    started_ms: u64,
    /// The wall clock at the start; the core counts from 1970, so it can tell times of before.
    started_wall_ms: u64,
    /// Messages that could not be read, and other complaints of the store.
    pub complaints: Arc<std::sync::Mutex<Vec<String>>>,
    /// What the store did, in words.
    pub doings: Arc<std::sync::Mutex<Vec<String>>>,
}

/// When a broker is started.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub now_ms: u64,
    pub wall_ms: u64,
    pub shards: u16,
}

impl Broker {
    /// Starts the broker with what its disk holds.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn start(
        plan: &Plan,
        machine: &Machine,
        start: Start,
        mutation: Option<Mutation>,
        rng: &mut Rng,
    ) -> Result<(Broker, Recovered), OpenError> {
        let complaints = Arc::new(std::sync::Mutex::new(Vec::new()));
        let doings = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (mut log, mut recovered) = (None, Recovered::default());
        if plan.keeping != Keeping::Memory {
            let (told, done) = (complaints.clone(), doings.clone());
            let (segment_bytes, pass_after_bytes) = plan.segment_bytes();
            let options = Options {
                durability: plan.keeping.durability(),
                segment_bytes,
                pass_after_bytes,
                reserve_bytes: 16 << 10,
                writers: start.shards,
                on_event: Box::new(move |event| {
                    let text = event.to_string();
                    // What nobody wants any more may be swept while it is being read.
                    let swept = text.contains("there is nothing at this place");
                    let bad = matches!(event, Event::Unreadable { .. } | Event::Damaged { .. });
                    if bad
                        && !swept
                        && let Ok(mut told) = told.lock()
                    {
                        told.push(text.clone());
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push(text);
                    }
                }),
                ..Options::default()
            };
            let opened = Log::open(Arc::new(machine.clone()), options, rng.any())?;
            recovered = opened.1;
            log = Some(opened.0);
        }
        let shared = Shared::new(start.shards, rng.any());
        let config = Arc::new(plan.config());
        let tickets = Tickets::new(start.shards);
        let shard = |at: u16| {
            let store: Box<dyn whimbrel_store::Store> = match &log {
                Some(log) => Box::new(Tap::new(log.journal(at), at, tickets.clone(), mutation)),
                None => Box::new(Tap::new(MemoryStore, at, tickets.clone(), mutation)),
            };
            let (shared, config) = (shared.clone(), config.clone());
            Shard::new(ShardId(at), shared, config, store, at.into(), Millis(start.wall_ms))
        };
        let shards = (0..start.shards).map(shard).collect();
        let mut broker = Broker {
            shards,
            shared,
            log,
            tickets,
            mail: BTreeMap::new(),
            spare: Vec::new(),
            started_ms: start.now_ms,
            started_wall_ms: start.wall_ms,
            complaints,
            doings,
        };
        broker.restore(&recovered);
        Ok((broker, recovered))
    }

    /// What the core calls this time.
    pub fn now(&self, now_ms: u64) -> Millis {
        Millis(self.started_wall_ms + now_ms - self.started_ms)
    }

    fn restore(&mut self, recovered: &Recovered) {
        let Some(log) = self.log.clone() else { return };
        let now = self.now(self.started_ms);
        self.shared.restore_retained_number(recovered.last_retained);
        for stored in &recovered.retained {
            match log.read(*stored) {
                Ok(body) => self.shards[0].handle_restore_retained(now, *stored, &body),
                Err(error) => self.complain(format!("a retained message: {error}")),
            }
        }
        let mut places: BTreeMap<u64, SessionRef> = BTreeMap::new();
        for session in &recovered.sessions {
            let home = self.shared.home_of(&session.client_id);
            let mut failed = Vec::new();
            let key = session.key.0;
            let place = self.shards[usize::from(home.0)].handle_restore(
                now,
                session.clone(),
                recovered.stopped,
                &mut |stored| log.read(stored).map_err(|e| failed.push(e.to_string())).ok(),
            );
            failed.into_iter().for_each(|error| self.complain(format!("in flight: {error}")));
            places.insert(key, place);
        }
        for unrouted in &recovered.unrouted {
            let mut reached: Vec<SessionRef> =
                unrouted.reached.iter().filter_map(|key| places.get(&key.0).copied()).collect();
            match log.read(unrouted.stored) {
                Ok(body) => {
                    for shard in &mut self.shards {
                        shard.handle_unrouted(now, unrouted, &body, &mut reached);
                    }
                }
                Err(error) => self.complain(format!("a message on its way: {error}")),
            }
        }
        self.shards.iter_mut().for_each(|shard| shard.handle_restored(now));
        // Only when all have it in their batches may the log say so.
        self.shards.iter_mut().for_each(|shard| while shard.poll_mail().is_some() {});
        for unrouted in &recovered.unrouted {
            self.shards[0].handle_routed(unrouted);
        }
    }

    fn complain(&self, what: String) {
        if let Ok(mut complaints) = self.complaints.lock() {
            complaints.push(what);
        }
    }

    /// Whether mail is on its way.
    pub fn has_mail(&self) -> bool {
        self.mail.values().any(|queue| !queue.is_empty())
    }
}
