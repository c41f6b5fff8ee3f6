//! The data directory: opened before the shards run, and closed after them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use whimbrel_broker_core::Shard;
use whimbrel_store::{
    Directory, Durability, Event, Journal, Log, OpenError, Options, Recovered, Threads,
};

use crate::StartError;
use crate::config::Config;
use crate::event_loop::Peers;
use crate::process;

/// Messages that are read at once.
const MANY: usize = 4096;

/// The store of a running broker.
pub(crate) struct DataDir {
    log: Arc<Log>,
    /// None before the shards run.
    threads: Option<Threads>,
    path: String,
    began: Instant,
}

impl DataDir {
    /// Opens the configured directory, made if it is not there, and reads what it has kept.
    pub(crate) fn open(config: &Config, shards: u16) -> Result<(DataDir, Recovered), StartError> {
        let began = Instant::now();
        let path = config.data_dir.clone();
        let failed = |error: OpenError| StartError::Store {
            data_dir: config.data_dir.clone(),
            error: Box::new(error),
        };
        let disk = Directory::open(Path::new(&path)).map_err(|error| {
            let (file, doing) = (String::new(), "open");
            failed(OpenError::Io { file, doing, error })
        })?;
        let options = Options {
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            pass_after_bytes: 2 * config.segment_bytes,
            reserve_bytes: (config.segment_bytes / 4).min(4 * 1024 * 1024),
            writers: shards,
            on_event: Box::new(log_event),
            ..Options::default()
        };
        let (log, recovered) =
            Log::open(Arc::new(disk), options, process::unpredictable()).map_err(failed)?;
        if config.durability != Durability::Fsync {
            tracing::warn!("durability is not fsync: a power cut can lose what was acknowledged");
        }
        Ok((DataDir { log, threads: None, path, began }, recovered))
    }

    /// A shard's end of it.
    pub(crate) fn journal(&self, shard: u16) -> Journal {
        self.log.journal(shard)
    }

    /// Gives the shards what was kept.
    pub(crate) fn restore(&self, recovered: Recovered, peers: &Peers, shards: &mut [Shard]) {
        let (shared, now) = (&peers.shared, peers.now());
        let Recovered { sessions, retained, last_retained, unrouted, stopped, .. } = recovered;
        let (session_count, retained_count) = (sessions.len(), retained.len());
        let read = |stored| match self.log.read(stored) {
            Ok(body) => Some(body),
            Err(error) => {
                tracing::error!("a message is lost: {error}");
                None
            }
        };
        shared.restore_retained_number(last_retained);
        for some in retained.chunks(MANY) {
            let bodies = some.iter().zip(self.log.read_many(some));
            for (stored, body) in bodies {
                if let (Some(body), Some(shard)) = (body, shards.first_mut()) {
                    shard.handle_restore_retained(now, *stored, &body);
                }
            }
        }
        let mut places = HashMap::new();
        for session in sessions {
            let key = session.key;
            let home = usize::from(shared.home_of(&session.client_id).0);
            if let Some(shard) = shards.get_mut(home) {
                places.insert(key, shard.handle_restore(now, session, stopped, &mut |s| read(s)));
            }
        }
        let completed = unrouted.len();
        for unrouted in &unrouted {
            let Some(body) = read(unrouted.stored) else { continue };
            let reached = unrouted.reached.iter().filter_map(|key| places.get(key).copied());
            let mut reached: Vec<_> = reached.collect();
            for shard in shards.iter_mut() {
                shard.handle_unrouted(now, unrouted, &body, &mut reached);
            }
        }
        shards.iter_mut().for_each(|shard| shard.handle_restored(now));
        // Only when all have it in their batches may the log say so.
        shards.iter_mut().for_each(|shard| while shard.poll_mail().is_some() {});
        if let Some(shard) = shards.first_mut() {
            unrouted.iter().for_each(|unrouted| shard.handle_routed(unrouted));
        }
        tracing::info!(
            "data_dir {}: {session_count} sessions and {retained_count} retained messages, \
             {completed} messages were on their way; read in {} ms",
            self.path,
            self.began.elapsed().as_millis()
        );
    }

    /// From now on what shards record is written, and shards are woken.
    pub(crate) fn start(mut self, peers: &Arc<Peers>) -> std::io::Result<DataDir> {
        let peers = peers.clone();
        self.log.set_wake(Box::new(move |shard| {
            if let Some(mailbox) = peers.mailboxes.get(usize::from(shard)) {
                mailbox.poke();
            }
        }));
        self.threads = Some(Threads::start(self.log.clone())?);
        Ok(self)
    }

    /// The shards have ended: all is written, and the next start knows that nothing is missing.
    pub(crate) fn stop(self) {
        let stopped = match self.threads {
            Some(threads) => threads.stop(),
            None => self.log.stop(),
        };
        if let Err(error) = stopped {
            let path = self.path;
            tracing::error!("data_dir {path}: the last records could not be written: {error}");
        }
    }
}

fn log_event(event: Event) {
    match event {
        Event::Swept { .. } | Event::Packed { .. } => tracing::debug!("{event}"),
        Event::Created { .. } | Event::Cut { .. } | Event::Resumed => tracing::info!("{event}"),
        _ => tracing::error!("{event}"),
    }
}
