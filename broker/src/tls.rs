//! TLS of a listener while the broker runs: its files, read again when they change.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use whimbrel_transport::tls::{Config, Tickets};

use crate::config::{ConfigError, Listener, LoadedTls, Tls};
use crate::watched::Watched;

/// What the connections of a listener share.
pub(crate) struct TlsListener {
    current: RwLock<Arc<Config>>,
    /// Counts the configurations, so that a connection knows which it was checked against.
    generation: AtomicU32,
    tickets: Tickets,
    alpn: &'static str,
    /// For messages.
    place: String,
    files: Mutex<Files>,
}

struct Files {
    tls: Tls,
    watched: Watched,
}

impl TlsListener {
    /// None for a plain listener.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub(crate) fn of(listener: &Listener) -> Result<Option<Arc<TlsListener>>, ConfigError> {
        let Some(tls) = listener.tls.clone() else { return Ok(None) };
        let place = listener.origin.clone();
        let tickets = Tickets::new()
            .map_err(|error| ConfigError { place: place.clone(), what: error.to_string() })?;
        let watched = Watched::new(tls.files());
        // What is odd about the files was told when the configuration was read.
        let config = tls.load(listener.alpn(), &place, &tickets)?.config;
        Ok(Some(Arc::new(TlsListener {
            current: RwLock::new(Arc::new(config)),
            generation: AtomicU32::new(0),
            tickets,
            alpn: listener.alpn(),
            place,
            files: Mutex::new(Files { tls, watched }),
        })))
    }

    /// What is in force, and its number.
    pub(crate) fn current(&self) -> (Arc<Config>, u32) {
        // Read before: one that is too old only has a connection checked once more.
        let generation = self.generation();
        (self.current.read().unwrap_or_else(PoisonError::into_inner).clone(), generation)
    }

    /// The number of what is in force.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the files of `tls` and puts them in force; false if they have a fault, which is
    /// logged: then what was in force stays.
    pub(crate) fn reload(&self, tls: Tls) -> bool {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = Watched::new(tls.files());
        // The listener's methods of authentication do not change while it runs.
        let tls = Tls { exporter: files.tls.exporter, ..tls };
        *files = Files { tls, watched };
        match files.tls.load(self.alpn, &self.place, &self.tickets) {
            Ok(LoadedTls { config, .. }) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                self.generation.fetch_add(1, Ordering::AcqRel);
                true
            }
            Err(error) => {
                tracing::error!("TLS goes on with what it had: {error}");
                false
            }
        }
    }

    /// Reads the files if they have changed, and have not done so since the last call: whoever
    /// replaces a certificate and its key does not do it at once. True if there is something new.
    pub(crate) fn reload_if_changed(&self) -> bool {
        let tls = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let Files { tls, watched } = &mut *files;
            if !watched.have_changed(tls.files()) {
                return false;
            }
            files.tls.clone()
        };
        let reloaded = self.reload(tls);
        if reloaded {
            tracing::info!(listener = &*self.place, "certificates were read again");
        }
        reloaded
    }
}
