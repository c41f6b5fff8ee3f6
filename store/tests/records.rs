//! Every record comes back from its bytes as it was, and arbitrary bytes are no reason to panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::{
    Entry, EntryQueue, MessageBody, MessageRecord, Position, Record, Records, SessionKey, Stored,
    WallMs, WillRecord,
};

const BASE: Position = Position(1 << 33);

#[derive(Clone, Debug)]
struct Parts {
    key: SessionKey,
    packet_id: PacketId,
    text: String,
    other_text: String,
    bytes: Vec<u8>,
    number: u64,
    small: u32,
    at: u64,
    qos: QoS,
    flags: [bool; 4],
    entries: Vec<Entry>,
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|n| QoS::from_u8(n).expect("a QoS"))
}

fn entry() -> impl Strategy<Value = Entry> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let expires = option::of(1..1_u64 << 40);
    let ids = vec(1..1_u32 << 28, 0..4);
    let place = (1..1_u64 << 50, 32..u32::MAX);
    (place, flags, expires, option::of(any::<u32>()), ids).prop_map(
        |((position, len), (retain, dup, twice), expires, group, ids)| Entry {
            stored: Stored { position: Position(position), len },
            qos: if twice { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
            retain,
            dup,
            expires: expires.map(|seconds| WallMs(seconds * 1000)),
            group,
            ids,
        },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    let texts = (".{0,200}", ".{0,20}", vec(any::<u8>(), 0..300));
    let numbers = (1..u64::MAX, any::<u64>(), any::<u32>(), 1..u64::MAX, 1..u16::MAX);
    (texts, numbers, qos(), any::<[bool; 4]>(), vec(entry(), 1..6)).prop_map(
        |((text, other_text, bytes), (key, number, small, at, id), qos, flags, entries)| Parts {
            key: SessionKey(key),
            packet_id: PacketId::new(id).expect("not zero"),
            text,
            other_text,
            bytes,
            number,
            small,
            at,
            qos,
            flags,
            entries,
        },
    )
}

fn will(parts: &Parts) -> Option<WillRecord<'_>> {
    parts.flags[0].then_some(WillRecord {
        topic: &parts.other_text,
        properties: &parts.bytes,
        payload: parts.text.as_bytes(),
        qos: parts.qos,
        retain: parts.flags[1],
        delay_s: parts.small,
        expiry_s: parts.flags[2].then_some(parts.small / 2),
    })
}

fn message(parts: &Parts) -> MessageRecord<'_> {
    MessageRecord {
        topic: &parts.text,
        properties: parts.other_text.as_bytes(),
        payload: &parts.bytes,
        qos: parts.qos,
        expires: parts.flags[0].then_some(WallMs(parts.at)),
        retained: parts.flags[1].then_some(parts.number),
    }
}

fn all(parts: &Parts) -> Vec<Record<'_>> {
    let Parts { key, packet_id, .. } = *parts;
    let entry = parts.entries[0].clone();
    let mut entries = EntryQueue::default();
    parts.entries.iter().for_each(|entry| entries.push(entry));
    let detached = parts.flags[3].then_some(WallMs(parts.at));
    let (stored, number) = (entry.stored, parts.number);
    vec![
        Record::Message(message(parts)),
        Record::Session {
            key,
            client_id: &parts.text,
            expiry_s: parts.small,
            detached,
            keeps_messages: parts.flags[2],
            will: will(parts),
        },
        Record::Owner { key, principal: parts.text.as_bytes() },
        Record::Ended { key },
        Record::Connected { key, expiry_s: parts.small, will: will(parts) },
        Record::Detached { key, at: WallMs(parts.at), expiry_s: parts.small },
        Record::WillGone { key },
        Record::Subscribed {
            key,
            filter: &parts.text,
            qos: parts.qos,
            no_local: parts.flags[0],
            retain_as_published: parts.flags[1],
            id: parts.small,
            group: parts.flags[2].then_some(parts.small),
        },
        Record::Unsubscribed { key, filter: &parts.text },
        Record::Queued { key, entry: entry.clone() },
        Record::QueuedMany { key, entries },
        Record::Delivered { key, packet_id, entry },
        Record::Sent { key, packet_id },
        Record::Dropped { key },
        Record::Acknowledged { key, packet_id },
        Record::Released { key, packet_id },
        Record::Received { key, packet_id },
        Record::ReceivedReleased { key, packet_id },
        Record::Retained { stored, number },
        Record::Unretained { topic: &parts.text, number },
        Record::Routing { stored, from: key, group: None },
        Record::Routing { stored, from: key, group: Some(u32::MAX) },
        Record::Routed { position: stored.position, group: None },
        Record::Routed { position: stored.position, group: Some(0) },
        Record::PassBegan { pass: number },
        Record::PassEnded { pass: number, began: stored.position },
        Record::Stopped,
    ]
}

proptest! {
    #[test]
    fn records_come_back_as_they_were(parts in parts()) {
        let records = all(&parts);
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let read: Result<Vec<_>, _> = Records::new(BASE, &bytes).collect();
        let read: Vec<Record<'_>> =
            read.expect("they can be read").into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn positions_in_the_batch_become_places_in_the_log(parts in parts(), offset: u32) {
        let mut entry = parts.entries[0].clone();
        entry.stored.position = Position::here(7, offset);
        let settled = Position(BASE.0 + u64::from(offset));
        let mut bytes = Vec::new();
        Record::Queued { key: parts.key, entry: entry.clone() }.encode(&mut bytes);
        Record::Retained { stored: entry.stored, number: 1 }.encode(&mut bytes);
        for read in Records::new(BASE, &bytes) {
            match read.expect("it can be read").1 {
                Record::Queued { entry, .. } => prop_assert_eq!(entry.stored.position, settled),
                Record::Retained { stored, .. } => prop_assert_eq!(stored.position, settled),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn a_message_with_a_changed_byte_is_refused(parts in parts(), at: usize, bit in 0..8_u32) {
        let mut bytes = Vec::new();
        message(&parts).encode(&mut bytes);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(MessageBody::new(bytes.into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        Records::new(BASE, &bytes).for_each(drop);
    }

    #[test]
    fn a_queue_gives_what_was_pushed(entries in vec(entry(), 0..40), popped in 0..40_usize) {
        let mut queue = EntryQueue::default();
        entries.iter().for_each(|entry| queue.push(entry));
        for entry in entries.iter().take(popped) {
            let first = queue.pop();
            prop_assert_eq!(first.as_ref(), Some(entry));
        }
        let rest: Vec<Entry> = queue.iter().collect();
        prop_assert_eq!(rest.as_slice(), entries.get(popped..).unwrap_or_default());
        prop_assert_eq!(queue.len(), rest.len());
    }
}
