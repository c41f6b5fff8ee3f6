//! Makes a store with very much in it, to measure how long a broker takes to start on it:
//!
//! `cargo run --release -p whimbrel-store --example fill_store DIR [RETAINED SESSIONS QUEUED]`
//!
//! By default a million retained messages, and 100,000 sessions with a subscription and ten queued
//! messages each; ten sessions share each message.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use whimbrel_codec::QoS;
use whimbrel_store::{
    Directory, Durability, Entry, Log, MessageRecord, Options, Position, Record, Store, Stored,
    WallMs,
};

/// Sessions that a message waits for.
const SHARING: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let mut number = |default: usize| args.next().map_or(Ok(default), |text| text.parse());
    let (retained, sessions, queued) = (number(1_000_000)?, number(100_000)?, number(10)?);
    let options = Options { durability: Durability::Os, ..Options::default() };
    let (log, _) = Log::open(Arc::new(Directory::open(Path::new(&dir))?), options, 1)?;
    let mut journal = log.journal(0);
    for n in 0..retained {
        let topic = format!("retained/{}/{n}", n % 1000);
        journal.message(&message(&topic, QoS::AtMostOnce, Some(n as u64 + 1)));
        if n % 500 == 499 {
            journal.commit();
            log.work(0);
        }
    }
    for first in (0..sessions).step_by(SHARING) {
        let keys: Vec<_> = (0..SHARING).map(|_| journal.new_key()).collect();
        for (n, &key) in keys.iter().enumerate() {
            let client_id = format!("device-{}", first + n);
            let (expiry_s, detached) = (u32::MAX, Some(WallMs(1)));
            let (keeps_messages, will) = (true, None);
            let client_id = &client_id;
            let session =
                Record::Session { key, client_id, expiry_s, detached, keeps_messages, will };
            journal.record(&session);
            journal.record(&Record::Subscribed {
                key,
                filter: &format!("commands/{}/#", first / SHARING),
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                id: 0,
                group: None,
            });
        }
        for n in 0..queued {
            let topic = format!("commands/{}/{n}", first / SHARING);
            let message = message(&topic, QoS::AtLeastOnce, None);
            let position = Position::here(0, journal.message(&message));
            for &key in &keys {
                let entry = Entry {
                    stored: Stored { position, len: message.len() },
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    dup: false,
                    expires: None,
                    group: None,
                    ids: Vec::new(),
                };
                journal.record(&Record::Queued { key, entry });
            }
        }
        journal.commit();
        log.work(0);
    }
    log.stop()?;
    Ok(())
}

fn message(topic: &str, qos: QoS, retained: Option<u64>) -> MessageRecord<'_> {
    let (properties, payload) = (&[][..], &[b'x'; 64][..]);
    MessageRecord { topic, properties, payload, qos, expires: None, retained }
}
