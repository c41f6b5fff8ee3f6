//! `$SYS`: what the broker tells of itself.

use std::sync::atomic::Ordering;

use whimbrel_codec::QoS;

use super::Shard;
use crate::conn::NO_SESSION;
use crate::message::Publication;
use crate::stats::Count;
use crate::{Config, Millis};

/// When `$SYS` is next due.
pub(super) struct Sys {
    started: Millis,
    next: Option<Millis>,
}

impl Sys {
    pub(super) fn new(now: Millis, config: &Config) -> Sys {
        Sys { started: now, next: (config.sys_interval_s > 0).then_some(now) }
    }

    pub(super) fn reconfigure(&mut self, now: Millis, config: &Config) {
        self.next = (config.sys_interval_s > 0).then_some(now);
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.next
    }
}

/// Topics that only the broker publishes to.
#[inline]
pub(super) fn is_sys(topic: &str) -> bool {
    topic.starts_with("$SYS") && matches!(topic.as_bytes().get(4), None | Some(b'/'))
}

impl Shard {
    /// The first shard speaks for all.
    pub(super) fn publish_sys(&mut self) {
        let Some(due) = self.sys.next.filter(|_| self.id.0 == 0) else {
            self.sys.next = None;
            return;
        };
        if due > self.now {
            return;
        }
        self.sys.next = Some(self.now.plus_s(self.config.sys_interval_s.into()));
        let get = |count| self.shared.stats.get(count);
        let uptime_s = (self.now.0 - self.sys.started.0) / 1000;
        let retained = match self.shared.retained.read() {
            Ok(retained) => retained.len(),
            Err(poisoned) => poisoned.into_inner().len(),
        };
        let values = [
            ("version", format!("whimbrel {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{uptime_s} seconds")),
            ("clients/connected", get(Count::Connections).to_string()),
            ("clients/total", get(Count::Sessions).to_string()),
            ("clients/accepted", get(Count::ConnectsAccepted).to_string()),
            ("clients/refused", get(Count::ConnectsRefused).to_string()),
            ("clients/refused/banned", get(Count::RefusedBanned).to_string()),
            ("clients/refused/limit", get(Count::RefusedLimit).to_string()),
            ("clients/closed/pending", get(Count::ClosedPending).to_string()),
            ("clients/closed/blocked", get(Count::ClosedBlocked).to_string()),
            ("clients/closed/memory", get(Count::ClosedMemory).to_string()),
            ("clients/throttled", get(Count::Throttled).to_string()),
            ("logins/failed", get(Count::FailedLogins).to_string()),
            ("bans", get(Count::Bans).to_string()),
            ("messages/received", get(Count::PublishesReceived).to_string()),
            ("messages/sent", get(Count::PublishesSent).to_string()),
            ("messages/dropped", get(Count::Dropped).to_string()),
            ("messages/queued", get(Count::Queued).to_string()),
            ("bytes/received", get(Count::BytesReceived).to_string()),
            ("bytes/sent", get(Count::BytesSent).to_string()),
            ("subscriptions/count", self.shared.routes.subscription_count().to_string()),
            ("retained/count", retained.to_string()),
            ("memory/used", self.shared.memory_used_bytes().to_string()),
            ("memory/resident", self.shared.memory_bytes.load(Ordering::Relaxed).to_string()),
        ];
        for (name, value) in values {
            self.publish_own(&format!("$SYS/broker/{name}"), value.as_bytes(), true);
        }
    }

    /// Tells who is connected, if that was asked for: retained while it is.
    pub(super) fn client_state(&mut self, client_id: &str, connected: bool) {
        // A client identifier with a wildcard cannot stand in a topic name.
        if !self.config.client_state_messages || client_id.contains(['+', '#']) {
            return;
        }
        let topic = format!("$SYS/clients/{client_id}/state");
        if topic.len() > usize::from(u16::MAX) {
            return;
        }
        if connected {
            return self.publish_own(&topic, b"connected", true);
        }
        self.retain(&mut Publication::new(&topic, &[], b"", QoS::AtMostOnce, Millis::NEVER));
        self.publish_own(&topic, b"disconnected", false);
    }

    fn publish_own(&mut self, topic: &str, payload: &[u8], retain: bool) {
        let mut p = Publication::new(topic, &[], payload, QoS::AtMostOnce, Millis::NEVER);
        self.publish(NO_SESSION, retain, &mut p);
    }
}
