//! Damaged data directories. The first byte chooses: bytes as records and as a message; a small
//! store whose files are changed by operations of four bytes each; a store of any records, some of
//! them with right checksums around wrong content. Nothing panics; what opens holds no message that
//! was not written, goes on, and opens again; and what `repair` has repaired opens.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{
    Disk, Entry, EntryQueue, InFlightRecovered, Journal, Log, MessageBody, MessageRecord,
    OpenError, Options, Position, Record, Records, Recovered, SessionKey, SessionRecovered, Store,
    Stored, SubscriptionRecovered, Ticket, WallMs, WillRecovered, restate, tool,
};

const IDENTITY: u64 = 0x0123_4567_89ab_cdef;
const SEGMENT_HEADER: usize = 64;
const FRAME_HEADER: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, rest)) = bytes.split_first() else { return };
    match mode % 4 {
        0 => records(rest),
        1 | 2 => changed_store(rest),
        _ => any_records(rest),
    }
});

/// What decodes encodes to an equal record.
fn records(bytes: &[u8]) {
    if let Ok((message, len)) = MessageRecord::decode(bytes) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again.len(), len);
        assert_eq!(MessageRecord::decode(&again), Ok((message, len)));
    }
    let _ = MessageBody::new(bytes.into());
    let base = Position(4096);
    for (position, record) in Records::new(base, bytes).map_while(Result::ok) {
        if refers_to_a_batch(&record) {
            continue;
        }
        let mut again = Vec::new();
        record.encode(&mut again);
        let decoded: Vec<_> = Records::new(base, &again).collect();
        assert_eq!(decoded, [Ok((base, record))], "at {position:?}");
    }
}

/// A position that no log reaches stands for a place in a batch that was not committed, and is
/// written as such.
fn refers_to_a_batch(record: &Record<'_>) -> bool {
    let is = |stored: Stored| stored.position.writer().is_some();
    match record {
        Record::Queued { entry, .. } | Record::Delivered { entry, .. } => is(entry.stored),
        Record::QueuedMany { entries, .. } => entries.iter().any(|entry| is(entry.stored)),
        Record::Retained { stored, .. } | Record::Routing { stored, .. } => is(*stored),
        _ => false,
    }
}

/// The operation that no damage can do.
const RESEAL: u8 = 8;

/// Operations on the files of a store that was whole.
fn changed_store(bytes: &[u8]) {
    let disk = SimDisk::new();
    for (name, content) in store_files() {
        disk.set_content(name, content.clone());
    }
    let (operations, data) = bytes.split_at(bytes.len() / 2 & !3);
    let mut damage = true;
    for operation in operations.chunks_exact(4).take(16) {
        change(&disk, operation, data);
        damage &= operation[0] % 9 != RESEAL;
    }
    examine(&disk, damage);
}

fn change(disk: &SimDisk, operation: &[u8], data: &[u8]) {
    let &[what, file, high, low] = operation else { return };
    let names = disk.list().expect("a list");
    if names.is_empty() {
        return;
    }
    let name = &names[usize::from(file) % names.len()];
    let mut content = disk.content(name).expect("a file");
    let place = usize::from(high) << 8 | usize::from(low);
    let at = place % (content.len() + 1);
    match what % 9 {
        0 => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (what >> 4 & 7)),
        1 => content.truncate(at),
        2 => content.extend_from_slice(&data[..data.len().min(place)]),
        3 => content.iter_mut().skip(at).zip(data).for_each(|(byte, new)| *byte = *new),
        4 => content.iter_mut().skip(at).take(usize::from(what)).for_each(|byte| *byte = 0),
        5 => drop(content.splice(at..at, data.iter().copied())),
        6 => return disk.take_away(name),
        7 => {
            let other = &names[place % names.len()];
            content = disk.content(other).expect("a file");
        }
        // The content of a frame, with the right checksum around it.
        _ => reseal(&mut content, place, data),
    }
    disk.set_content(name, content);
}

/// Changes a few bytes in the records of one frame, and makes its checksum right.
fn reseal(content: &mut [u8], choice: usize, data: &[u8]) {
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER;
    while let Some(len) = content.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        let end = at + FRAME_HEADER + len;
        if content.get(at..end).is_none() {
            break;
        }
        frames.push((at, end));
        at = end;
    }
    if frames.is_empty() {
        return;
    }
    let (start, end) = frames[choice % frames.len()];
    let from = start + 8 + choice / frames.len() % (end - start - 8);
    content[from..end].iter_mut().zip(data.iter().take(24)).for_each(|(old, new)| *old = *new);
    seal(&mut content[start..end]);
}

fn seal(frame: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new_with_initial(IDENTITY as u32);
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    frame[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// A store whose only frames hold these bytes as records.
fn any_records(bytes: &[u8]) {
    let disk = SimDisk::new();
    drop(open(&disk).expect("a new store"));
    let name = "log-0000000000001000";
    let mut content = disk.content(name).expect("the first segment");
    content.truncate(SEGMENT_HEADER);
    for records in bytes.chunks(200) {
        let position = 4096 + (content.len() - SEGMENT_HEADER) as u64;
        let mut frame = Vec::new();
        frame.extend_from_slice(&(records.len() as u32).to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&position.to_le_bytes());
        frame.extend_from_slice(&position.to_le_bytes());
        frame.extend_from_slice(records);
        seal(&mut frame);
        content.extend_from_slice(&frame);
    }
    disk.set_content(name, content);
    examine(&disk, false);
}

/// Checks, opens, reads, goes on, and opens again; and all that after a repair. `ours`: all
/// messages that are whole are those that we wrote.
fn examine(disk: &SimDisk, ours: bool) {
    let before = copy(disk);
    let report = tool::check(disk);
    let copied = copy(disk);
    match go_on(disk, ours) {
        Ok(()) => {}
        Err(OpenError::InUse) => panic!("nobody uses it"),
        Err(error) => {
            // `check` finds all damage that keeps a broker from starting.
            if let (Ok(report), true) = (report, ours) {
                assert!(!report.findings.is_empty(), "check found nothing, but: {error}");
            }
        }
    }
    assert_eq!(files(&before), files(&copied), "check changes nothing");
    repair(&copied, ours);
}

/// What one repair leaves can need another: a file that is put aside shows what was wrong with the
/// one before it.
fn repair(disk: &SimDisk, ours: bool) {
    for _ in 0..4 {
        match tool::repair(disk) {
            Ok(repaired) if repaired.findings.is_empty() => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    if disk.content("STORE").is_some() {
        let opened = go_on(disk, ours);
        assert!(!ours || opened.is_ok(), "what was repaired can be opened, but: {opened:?}");
    }
}

fn go_on(disk: &SimDisk, ours: bool) -> Result<(), OpenError> {
    let (log, recovered) = open(disk)?;
    read_all(&log, &recovered, ours);
    let mut journal = log.journal(0);
    let key = journal.new_key();
    let ticket = write(&mut journal, key, 999_999);
    log.work(0);
    assert!(log.synced() >= ticket, "a healthy disk");
    log.stop().expect("a healthy disk");
    drop((journal, log));
    let (log, again) = open(disk).expect("what was opened once opens again");
    assert!(again.stopped);
    assert_eq!(again.sessions.len(), recovered.sessions.len() + 1);
    let made = again.sessions.iter().find(|session| session.key == key).expect("the new one");
    let entry = made.queue.iter().next().expect("its message");
    assert!(is_ours(&log.read(entry.stored).expect("its message")));
    Ok(())
}

/// Reads all that is referred to; a message can be damaged, but not another one.
fn read_all(log: &Log, recovered: &Recovered, ours: bool) {
    let mut wanted: Vec<Stored> = recovered.retained.clone();
    wanted.extend(recovered.unrouted.iter().map(|unrouted| unrouted.stored));
    for session in &recovered.sessions {
        wanted.extend(session.queue.iter().map(|entry| entry.stored));
        let in_flight = session.in_flight.iter().filter_map(|one| one.entry.as_ref());
        wanted.extend(in_flight.map(|entry| entry.stored));
    }
    for stored in wanted {
        if let Ok(body) = log.read(stored) {
            assert!(!ours || is_ours(&body), "{:?}", body.record());
        }
    }
}

fn is_ours(body: &MessageBody) -> bool {
    let record = body.record();
    let number = record.topic.strip_prefix("topic/").and_then(|number| number.parse().ok());
    number.is_some_and(|number| record.payload == payload(number))
}

fn payload(number: u32) -> Vec<u8> {
    (0..20 + number % 60).map(|n| (number.wrapping_mul(31) + n) as u8).collect()
}

fn open(disk: &SimDisk) -> Result<(Arc<Log>, Recovered), OpenError> {
    let options = Options {
        segment_bytes: 1000,
        pass_after_bytes: 2500,
        reserve_bytes: 100,
        ..Options::default()
    };
    Log::open(Arc::new(disk.clone()), options, IDENTITY)
}

fn copy(disk: &SimDisk) -> SimDisk {
    let made = SimDisk::new();
    files(disk).into_iter().for_each(|(name, content)| made.set_content(&name, content));
    made
}

fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list().expect("a list");
    names.retain(|name| name != "lock");
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.content(&name).expect("a file"))).collect()
}

/// A session with one message.
fn write(journal: &mut Journal, key: SessionKey, number: u32) -> Ticket {
    let session = session(key);
    let entry = queue(journal, number, None);
    restate(&session, &mut |record| journal.record(record));
    journal.record(&Record::Queued { key, entry });
    journal.commit().expect("something was recorded").ticket
}

/// Puts a message into the batch; the entry is that of the batch.
fn queue(journal: &mut Journal, number: u32, retained: Option<u64>) -> Entry {
    let (topic, payload) = (format!("topic/{number}"), payload(number));
    let message = MessageRecord {
        topic: &topic,
        properties: &[],
        payload: &payload,
        qos: QoS::ExactlyOnce,
        expires: None,
        retained,
    };
    let offset = journal.message(&message);
    let stored = Stored { position: Position::here(journal.writer(), offset), len: message.len() };
    Entry {
        stored,
        qos: QoS::ExactlyOnce,
        retain: false,
        dup: false,
        expires: Some(WallMs(2_000_000_000_000)).filter(|_| number % 3 == 0),
        group: Some(5).filter(|_| number % 5 == 0),
        ids: vec![7; number as usize % 2],
    }
}

fn session(key: SessionKey) -> SessionRecovered {
    SessionRecovered {
        key,
        client_id: format!("client {}", key.0).into(),
        principal: (key.0 % 2 == 0).then(|| (*b"{}").into()),
        expiry_s: 3600,
        detached: Some(WallMs(1_700_000_000_000)),
        keeps_messages: true,
        will: Some(WillRecovered {
            topic: "will".into(),
            properties: Box::default(),
            payload: (*b"gone").into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_s: 60,
            expiry_s: Some(9),
        }),
        subscriptions: vec![SubscriptionRecovered {
            filter: "$share/g/topic/+".into(),
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            id: 7,
            group: Some(5),
        }],
        in_flight: Default::default(),
        queue: EntryQueue::default(),
        received: PacketId::new(9).into_iter().collect(),
    }
}

/// A store with several segments, passes, a packed segment, and a stop in good order.
fn store_files() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new();
        let (log, _) = open(&disk).expect("a new store");
        let mut journal = log.journal(0);
        let mut sessions: Vec<_> = (0..3).map(|_| session(journal.new_key())).collect();
        for session in &sessions {
            restate(session, &mut |record| journal.record(record));
        }
        let mut retained = None;
        for number in 0..90 {
            round(&mut journal, &mut sessions, &mut retained, number);
            log.work(u64::from(number));
            while log.work_reads().did {}
        }
        log.stop().expect("a healthy disk");
        drop((journal, log));
        let files = files(&disk);
        assert!(files.len() > 4, "several segments");
        let packed = |content: &[u8]| content.starts_with(b"WHIMBREL") && content[12] == 1;
        let names: Vec<_> = files.iter().map(|(name, content)| (name, content.len())).collect();
        assert!(files.iter().any(|(_, content)| packed(content)), "a packed one: {names:?}");
        files
    })
}

/// A message for one session, which acknowledges all but a few; and the part in a pass.
fn round(
    journal: &mut Journal,
    sessions: &mut [SessionRecovered],
    retained: &mut Option<(Stored, u64)>,
    number: u32,
) {
    let of = number as usize % sessions.len();
    let session = &mut sessions[of];
    let key = session.key;
    let becomes = Some(u64::from(number) + 1).filter(|_| number % 20 == 10);
    let mut entry = queue(journal, number, becomes);
    // A few stay in flight, so that old segments hold little that is alive.
    let in_flight = PacketId::new(number as u16).filter(|_| number % 13 == 1);
    match in_flight {
        Some(packet_id) => {
            journal.record(&Record::Delivered { key, packet_id, entry: entry.clone() });
        }
        None => journal.record(&Record::Queued { key, entry: entry.clone() }),
    }
    if number % 30 == 7 {
        journal.record(&Record::Routing { stored: entry.stored, from: key, group: None });
    }
    let base = journal.commit().expect("a batch").base;
    entry.stored.position = entry.stored.position.settled(base);
    match in_flight {
        Some(packet_id) => {
            let entry = Some(entry.clone());
            session.in_flight.push_back(InFlightRecovered { packet_id, entry });
        }
        None => session.queue.push(&entry),
    }
    if let Some(becomes) = becomes {
        *retained = Some((entry.stored, becomes));
    }
    while session.queue.len() > 2 {
        session.queue.pop();
        journal.record(&Record::Dropped { key });
    }
    if let Some(pass) = journal.restating() {
        for session in sessions.iter() {
            restate(session, &mut |record| journal.record(record));
        }
        if let Some((stored, number)) = *retained {
            journal.record(&Record::Retained { stored, number });
        }
        journal.restated(pass);
    }
    journal.commit();
}
