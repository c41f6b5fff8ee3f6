//! A session that was recovered, as the records that state it.

use crate::{Record, SessionRecovered, SubscriptionRecovered, WillRecord, WillRecovered};

/// Gives `each` all records of a session; they belong in one batch.
pub fn restate(session: &SessionRecovered, each: &mut dyn FnMut(&Record<'_>)) {
    let key = session.key;
    each(&Record::Session {
        key,
        client_id: &session.client_id,
        expiry_s: session.expiry_s,
        detached: session.detached,
        keeps_messages: session.keeps_messages,
        will: session.will.as_ref().map(will_record),
    });
    if let Some(principal) = &session.principal {
        each(&Record::Owner { key, principal });
    }
    for subscription in &session.subscriptions {
        let SubscriptionRecovered { filter, qos, no_local, retain_as_published, id, group } =
            subscription;
        each(&Record::Subscribed {
            key,
            filter,
            qos: *qos,
            no_local: *no_local,
            retain_as_published: *retain_as_published,
            id: *id,
            group: *group,
        });
    }
    for delivery in &session.in_flight {
        let packet_id = delivery.packet_id;
        each(&match &delivery.entry {
            Some(entry) => Record::Delivered { key, packet_id, entry: entry.clone() },
            None => Record::Released { key, packet_id },
        });
    }
    if !session.queue.is_empty() {
        each(&Record::QueuedMany { key, entries: session.queue.clone() });
    }
    for packet_id in &session.received {
        each(&Record::Received { key, packet_id: *packet_id });
    }
}

fn will_record(will: &WillRecovered) -> WillRecord<'_> {
    WillRecord {
        topic: &will.topic,
        properties: &will.properties,
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain,
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
    }
}
