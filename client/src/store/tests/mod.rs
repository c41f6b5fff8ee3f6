//! The store against a model, on a disk that crashes and forgets what was not synced.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use whimbrel_codec::{PacketId, Property, QoS};

use super::file::open_backend;
use super::{
    Batch, File, Keeper, Load, Owner, Recovered, Report, Stage, Store, StoreError, decode, encode,
};
use crate::Message;
use disk::{Chance, Disk};

fn owner() -> Owner {
    Owner { client_id: "c".into(), broker: "b:1883".into(), version: "5.0".into() }
}

fn open(disk: &Disk) -> Result<(File, Recovered), StoreError> {
    let disk = disk.clone();
    let opener = move || open_backend(disk.backend());
    File::open_with(Path::new("test"), Box::new(opener), &owner())
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// What is to be found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    messages: BTreeMap<u64, Vec<u8>>,
    stages: BTreeMap<u64, (u16, bool)>,
    arrivals: BTreeSet<u16>,
}

impl Model {
    fn apply(&mut self, batch: &Batch) {
        for (number, message) in &batch.messages {
            match message {
                Some(message) => drop(self.messages.insert(*number, message.clone())),
                None => drop(self.messages.remove(number)),
            }
        }
        for (number, stage) in &batch.stages {
            match stage {
                Some(stage) => {
                    self.stages.insert(*number, (stage.packet_id.get(), stage.is_received));
                }
                None => drop(self.stages.remove(number)),
            }
        }
        if batch.forgets_arrivals {
            self.arrivals.clear();
        }
        for (id, is_there) in &batch.arrivals {
            match is_there {
                true => self.arrivals.insert(id.get()),
                false => self.arrivals.remove(&id.get()),
            };
        }
    }

    fn found(file: &mut File, recovered: Recovered) -> Model {
        let mut model = Model::default();
        for (number, stage, body) in recovered.in_flight {
            model.stages.insert(number, (stage.packet_id.get(), stage.is_received));
            model.messages.extend(body.map(|body| (number, body)));
        }
        model.messages.extend(recovered.passed);
        let waiting = file.read(recovered.after, usize::MAX, usize::MAX).unwrap();
        assert_eq!(waiting.len() as u64, recovered.waiting);
        model.messages.extend(waiting);
        model.arrivals = recovered.arrivals.into_iter().map(PacketId::get).collect();
        let last = model.messages.keys().chain(model.stages.keys()).max();
        assert_eq!(recovered.last, last.copied().unwrap_or_default());
        model
    }
}

/// Some changes, such as a client makes.
fn batch(chance: &mut Chance, model: &Model, next: &mut u64) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..chance.below(4) {
        *next += 1;
        batch.put(*next, vec![*next as u8; 10 + chance.below(3000) as usize]);
    }
    for number in model.messages.keys() {
        let packet_id = id((*number % 65_535) as u16 + 1);
        match chance.below(8) {
            0 => {
                let stage = Stage { packet_id, is_received: false };
                batch.stages.insert(*number, Some(stage));
            }
            1 => {
                let stage = Stage { packet_id, is_received: true };
                batch.stages.insert(*number, Some(stage));
                batch.remove(*number);
            }
            2 => {
                batch.stages.insert(*number, None);
                batch.remove(*number);
            }
            _ => {}
        }
    }
    if chance.below(20) == 0 {
        batch.forget_arrivals();
    }
    if chance.below(3) == 0 {
        let packet_id = id(chance.below(20) as u16 + 1);
        batch.arrivals.insert(packet_id, chance.below(2) == 0);
    }
    batch.has_session = true;
    batch
}

#[test]
fn a_crash_at_any_moment_leaves_the_last_batch_whole_or_the_one_before() {
    let (mut crashes, mut kept) = (0, 0);
    for seed in 0..150 {
        let mut chance = Chance::new(seed);
        let disk = Disk::default();
        let (mut model, mut next) = (Model::default(), 0);
        let (mut file, _) = open(&disk).unwrap();
        for _ in 0..12 {
            if chance.below(3) == 0 {
                disk.crash_after(chance.below(12));
            }
            let changes = batch(&mut chance, &model, &mut next);
            let mut after = model.clone();
            after.apply(&changes);
            if file.write(&changes).is_ok() && !disk.has_crashed() {
                model = after;
                continue;
            }
            drop(file);
            disk.reboot(&mut chance);
            let recovered;
            (file, recovered) = open(&disk).unwrap();
            let found = Model::found(&mut file, recovered);
            assert!(found == model || found == after, "seed {seed}");
            crashes += 1;
            kept += usize::from(found == after && after != model);
            model = found;
        }
        // At the end of the process, or in the midst of its last words.
        drop(file);
        disk.reboot(&mut chance);
        let (mut file, recovered) = open(&disk).unwrap();
        assert_eq!(Model::found(&mut file, recovered), model, "seed {seed}");
    }
    assert!(crashes > 100 && kept > 0, "{crashes} {kept}");
}

#[test]
fn the_disk_of_these_tests_forgets() {
    // Without syncs, the same crashes must be noticed.
    let mut lost = false;
    for seed in 0..20 {
        let mut chance = Chance::new(seed);
        let disk = Disk::default();
        let (mut file, _) = open(&disk).unwrap();
        disk.lie_about_syncs();
        let mut batch = Batch::default();
        batch.put(1, vec![1; 100]);
        file.write(&batch).unwrap();
        disk.crash_after(0);
        drop(file);
        disk.reboot(&mut chance);
        lost |= match open(&disk) {
            Ok((_, recovered)) => recovered.waiting == 0,
            Err(_) => true,
        };
    }
    assert!(lost);
}

/// Gives reports to the test.
fn start(disk: &Disk) -> (Keeper, mpsc::Receiver<Report>) {
    let (file, recovered) = open(disk).unwrap();
    let (sender, reports) = mpsc::channel();
    let report = move |report| drop(sender.send(report));
    (Keeper::start(file, &recovered, 10_000, report).unwrap(), reports)
}

fn next(reports: &mpsc::Receiver<Report>) -> Report {
    reports.recv_timeout(Duration::from_secs(60)).unwrap()
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_until_there_is_room() {
    let disk = Disk::default();
    let (mut keeper, reports) = start(&disk);
    disk.fill_up(true);
    let first = keeper.put(1, vec![1; 100]);
    let report = next(&reports);
    assert!(report.durable < first);
    let (error, _) = report.failure.unwrap();
    assert!(error.to_string().contains("no room"), "{error}");
    // A change of what could not be written.
    keeper.remove(1, 100);
    let second = keeper.put(2, vec![2; 100]);
    disk.fill_up(false);
    loop {
        let report = next(&reports);
        keeper.handle_durable(report.durable);
        if report.durable >= second {
            break;
        }
    }
    assert!(keeper.is_durable(first));
    keeper.load(Load { after: 0, max_messages: 10, max_bytes: 1000 });
    assert_eq!(next(&reports).loaded, Some(vec![(2, vec![2; 100])]));
}

#[test]
fn a_full_disk_bounds_what_is_taken_and_answers_later() {
    let disk = Disk::default();
    let (mut keeper, reports) = start(&disk);
    let first = keeper.put(1, vec![1; 100]);
    while next(&reports).durable < first {}
    disk.fill_up(true);
    keeper.put(2, vec![2; 3000]);
    while next(&reports).failure.is_none() {}
    assert_eq!(keeper.unwritten_bytes(), 3000);
    keeper.put(3, vec![3; 4000]);
    while next(&reports).failure.is_none() || keeper.unwritten_bytes() < 7000 {}
    keeper.load(Load { after: 0, max_messages: 10, max_bytes: 10_000 });
    // Whether it has been asked for on the full disk or not, nothing is no answer to it.
    assert_eq!(next(&reports).loaded, None);
    disk.fill_up(false);
    let loaded = loop {
        if let Some(loaded) = next(&reports).loaded {
            break loaded;
        }
    };
    assert_eq!(loaded.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(keeper.unwritten_bytes(), 0);
}

#[test]
fn the_end_of_the_keeper_writes_what_nobody_waits_for() {
    let disk = Disk::default();
    let (mut keeper, reports) = start(&disk);
    let ticket = keeper.put(1, vec![1; 100]);
    while next(&reports).durable < ticket {}
    keeper.begin(1, id(7), false);
    let ended = keeper.stop().unwrap();
    ended.blocking_recv().unwrap();
    let (_, recovered) = open(&disk).unwrap();
    let stage = Stage { packet_id: id(7), is_received: false };
    assert_eq!(recovered.in_flight, [(1, stage, Some(vec![1; 100]))]);
    assert_eq!((recovered.waiting, recovered.bytes), (0, 100));
}

#[test]
fn bytes_bound_the_store() {
    let disk = Disk::default();
    let (mut keeper, _reports) = start(&disk);
    assert!(keeper.has_room(20_000), "one that is too large is taken when it is alone");
    keeper.put(1, vec![0; 9_000]);
    assert!(keeper.has_room(1_000) && !keeper.has_room(1_001));
    keeper.remove(1, 9_000);
    assert!(keeper.has_room(10_000));
}

#[test]
fn what_came_and_went_is_not_written() {
    let mut batch = Batch::default();
    batch.put(1, vec![0; 100]);
    batch.remove(1);
    assert!(batch.is_empty() && batch.new_bytes == 0);
    batch.remove(2);
    assert!(!batch.is_empty());
}

#[test]
fn a_message_is_read_as_it_was_and_with_what_is_left_of_its_time() {
    let now = SystemTime::now();
    let message = Message::new("a/b", "payload")
        .qos(QoS::ExactlyOnce)
        .retain(true)
        .expiry_s(60)
        .property(Property::ContentType("text"));
    let bytes = encode(&message, now).unwrap();
    assert!(bytes.len() <= message.len_bytes() + super::OVERHEAD_BYTES);
    let later = now + Duration::from_secs(20);
    let read = decode(bytes.clone(), later).unwrap();
    assert_eq!(read, Message { expiry_s: Some(40), ..message });
    let expired = decode(bytes.clone(), now + Duration::from_secs(100)).unwrap();
    assert_eq!(expired.expiry_s, Some(0));
    for len in 0..bytes.len() {
        assert_eq!(decode(bytes[..len].to_vec(), now), None, "{len} bytes");
    }
    let forever = Message::new("t", "");
    assert_eq!(decode(encode(&forever, now).unwrap(), later), Some(forever));
}

/// A directory that is removed with its contents.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("whimbrel-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn store(&self) -> Store {
        Store::new(self.0.join("queue"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_file_does_not_grow_for_ever_and_shrinks_when_it_is_emptied() {
    let directory = Directory::new("growth");
    let store = directory.store().sync(super::StoreSync::Os);
    let (mut file, _) = File::open(&store, &owner()).unwrap();
    let len = || std::fs::metadata(&store.path).unwrap().len();
    let mut next = 0;
    let mut pass = |held: u64| {
        let mut batch = Batch { bytes: 1 << 30, ..Batch::default() };
        for _ in 0..50 {
            next += 1;
            batch.put(next, vec![7; 1000]);
            batch.messages.insert(next.saturating_sub(held), None);
        }
        file.write(&batch).unwrap();
    };
    (0..40).for_each(|_| pass(100));
    let early = len();
    (0..400).for_each(|_| pass(100));
    assert!(len() <= 2 * early, "{early} bytes became {}", len());
    // Much is queued, and delivered.
    (0..100).for_each(|_| pass(1_000_000));
    let full = len();
    assert!(full > 5_000_000);
    let all = file.read(0, usize::MAX, usize::MAX).unwrap();
    let mut left = all.len() as u64;
    for part in all.chunks(100) {
        left -= part.len() as u64;
        let mut batch = Batch { bytes: left * 1000, ..Batch::default() };
        part.iter().for_each(|(number, _)| batch.remove(*number));
        file.write(&batch).unwrap();
    }
    assert!(len() < full / 4, "{full} bytes became {}", len());
}

#[test]
fn a_file_that_is_no_store_or_anothers_is_refused() {
    let directory = Directory::new("refused");
    let store = directory.store();
    let (file, _) = File::open(&store, &owner()).unwrap();
    let in_use = File::open(&store, &owner()).map(drop).unwrap_err();
    assert!(matches!(in_use, StoreError::InUse(_)), "{in_use}");
    drop(file);
    let other = Owner { client_id: "other".into(), ..owner() };
    let foreign = File::open(&store, &other).map(drop).unwrap_err();
    let text = foreign.to_string();
    assert!(text.contains("\"c\"") && text.contains("\"other\""), "{text}");
    std::fs::write(&store.path, [7; 10_000]).unwrap();
    let damaged = File::open(&store, &owner()).map(drop).unwrap_err();
    assert!(matches!(damaged, StoreError::Damaged(..)), "{damaged}");
    let nowhere = Store::new(directory.0.join("no/such/directory"));
    let failed = File::open(&nowhere, &owner()).map(drop).unwrap_err();
    assert!(matches!(failed, StoreError::Failed(..)), "{failed}");
}

#[test]
fn a_file_that_was_changed_is_refused_or_read_as_it_was() {
    let directory = Directory::new("changed");
    let store = directory.store();
    let (mut file, _) = File::open(&store, &owner()).unwrap();
    let mut batch = Batch::default();
    (1..=20).for_each(|number| batch.put(number, vec![number as u8; 500]));
    file.write(&batch).unwrap();
    let before = file.read(0, 100, usize::MAX).unwrap();
    drop(file);
    let whole = std::fs::read(&store.path).unwrap();
    let mut chance = Chance::new(1);
    for _ in 0..40 {
        let mut bytes = whole.clone();
        // Where something stands.
        let at = loop {
            let at = chance.below(bytes.len() as u64) as usize;
            if bytes[at] != 0 {
                break at;
            }
        };
        bytes[at] ^= 1 << chance.below(8);
        std::fs::write(&store.path, &bytes).unwrap();
        match File::open(&store, &owner()) {
            Err(_) => {}
            Ok((mut file, _)) => {
                assert_eq!(file.read(0, 100, usize::MAX).unwrap(), before, "byte {at}");
            }
        }
    }
}

#[test]
fn a_file_that_was_not_finished_is_made_anew() {
    let directory = Directory::new("unfinished");
    let store = directory.store();
    std::fs::write(&store.path, []).unwrap();
    std::fs::write(directory.0.join("queue.new"), [0; 10_000]).unwrap();
    drop(File::open(&store, &owner()).unwrap());
    let names: Vec<_> = std::fs::read_dir(&directory.0).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    drop(File::open(&store, &owner()).unwrap());
}
