//! Bytes that change, files that are cut or go away: opening says so, or nothing was in them.

mod support;

use std::sync::Arc;

use support::{Events, Rng, World, open};
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{Disk, Log, OpenError, Recovered};

/// A world that was stopped in good order, or is idle and was killed.
fn quiet(seed: u64, stop: bool) -> (World, u64) {
    let mut world = World::new(seed);
    for _ in 0..250 {
        world.step();
        world.now_ms += 1;
        world.log.work(world.now_ms);
        world.log.work_reads();
        if world.rng.one_in(8) {
            world.tick(0);
            world.tick(1);
        }
    }
    for _ in 0..4 {
        world.tick(0);
        world.tick(1);
        world.now_ms += 100;
        while world.log.work(world.now_ms).did {}
        while world.log.work_reads().did {}
    }
    if stop {
        world.log.stop().expect("it stops");
    }
    let synced = world.log.synced().0;
    world.disk.close();
    (world, synced)
}

fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    for name in disk.list().expect("names") {
        copy.set_content(&name, disk.content(&name).expect("a file"));
    }
    copy
}

fn open_copy(disk: &SimDisk) -> Result<(Arc<Log>, Recovered), OpenError> {
    open(disk, &Events::default())
}

/// What was opened is right in all it holds.
fn is_right(world: &World, synced: u64, (log, recovered): (Arc<Log>, Recovered)) {
    if let Err(why) = world.matches(synced, &recovered) {
        panic!("wrong data: {why}");
    }
    for session in &recovered.sessions {
        for entry in session.queue.iter() {
            let body = log.read(entry.stored).expect("it can be read");
            assert_eq!(body.record().payload, world.bodies[&entry.stored.position]);
        }
    }
}

#[test]
fn a_byte_that_changed_is_found_or_was_of_no_use() {
    let (mut refused, mut fine) = (0, 0);
    for seed in 0..12 {
        let (world, synced) = quiet(seed, seed % 2 == 0);
        let names = world.disk.list().expect("names");
        let mut rng = Rng::new(seed + 77);
        for _ in 0..120 {
            let name = &names[rng.below(names.len())];
            let mut content = world.disk.content(name).expect("a file");
            if content.is_empty() {
                continue;
            }
            let at = rng.below(content.len());
            content[at] ^= 1 << rng.below(8);
            let damaged = copy(&world.disk);
            damaged.set_content(name, content);
            match open_copy(&damaged) {
                Err(error) => {
                    refused += 1;
                    let text = error.to_string();
                    assert!(text.contains(name.as_str()) || text.contains("log-"), "{text}");
                }
                Ok(opened) => {
                    fine += 1;
                    is_right(&world, synced, opened);
                }
            }
        }
    }
    assert!(refused > 300 && fine > 10, "{refused} refused, {fine} fine");
}

#[test]
fn a_file_that_is_cut_or_gone_is_found_or_was_of_no_use() {
    let (mut refused, mut fine) = (0, 0);
    for seed in 20..40 {
        let (world, synced) = quiet(seed, true);
        let mut rng = Rng::new(seed);
        for name in world.disk.list().expect("names") {
            let damaged = copy(&world.disk);
            let mut content = world.disk.content(&name).expect("a file");
            if rng.one_in(2) {
                damaged.take_away(&name);
            } else {
                content.truncate(rng.below(content.len().max(1)));
                damaged.set_content(&name, content);
            }
            match open_copy(&damaged) {
                Err(_) => refused += 1,
                // Nobody can know that there was more behind the end.
                Ok(_) if is_last(&world, &name) => {}
                Ok(opened) => {
                    fine += 1;
                    is_right(&world, synced, opened);
                }
            }
        }
    }
    assert!(refused > 10 && fine > 10, "{refused} refused, {fine} fine");
}

fn is_last(world: &World, name: &str) -> bool {
    let names = world.disk.list().expect("names");
    names.iter().rfind(|other| other.starts_with("log-")).is_some_and(|last| last == name)
}

#[test]
fn a_torn_tail_is_cut() {
    for seed in 50..60 {
        let (world, synced) = quiet(seed, false);
        let names = world.disk.list().expect("names");
        let last = names.iter().rfind(|name| name.starts_with("log-")).expect("a segment");
        let content = world.disk.content(last).expect("a file");
        let start = u64::from_str_radix(&last[4..], 16).expect("a name");
        let used = (synced - start + 64) as usize;
        // The idle frame is the last thing in it; whatever stands there or behind may be torn.
        for cut in used - 15..used {
            let torn = copy(&world.disk);
            torn.set_content(last, content[..cut].to_vec());
            let (_, recovered) = open_copy(&torn).expect("it opens");
            assert!(recovered.cut_bytes > 0);
            let (_, again) = open_copy(&copy(&torn)).expect("it opens again");
            assert_eq!(again.cut_bytes, 0);
            assert_eq!(again.sessions, recovered.sessions);
        }
        let torn = copy(&world.disk);
        let mut more = content[..used].to_vec();
        more.extend_from_slice(&[0x5a; 100]);
        torn.set_content(last, more);
        let (_, recovered) = open_copy(&torn).expect("it opens");
        assert!(recovered.cut_bytes >= 100);
    }
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let (world, _) = quiet(1, true);
    let later = copy(&world.disk);
    later.set_content("STORE", b"whimbrel store\nformat 3\nid whatever it may be\n".to_vec());
    let error = open_copy(&later).map(|_| ()).expect_err("it is refused");
    assert!(matches!(error, OpenError::LaterFormat { format: 3, .. }));
    assert!(error.to_string().contains("later version"), "{error}");
}

#[test]
fn a_store_of_the_first_version_is_read() {
    let (world, _) = quiet(1, true);
    let first = copy(&world.disk);
    let text = String::from_utf8(first.content("STORE").expect("it is there")).expect("text");
    first.set_content("STORE", text.replace("format 2", "format 1").into_bytes());
    let (_, now) = open_copy(&world.disk).expect("it opens");
    let (_, then) = open_copy(&first).expect("it opens");
    assert_eq!(now.sessions, then.sessions);
}

#[test]
fn what_was_taken_away_is_missed() {
    let (world, _) = quiet(2, true);
    let without = copy(&world.disk);
    without.take_away("STORE");
    assert!(matches!(open_copy(&without).map(|_| ()), Err(OpenError::NoStore)));
    let without = copy(&world.disk);
    for name in world.disk.list().expect("names") {
        if name.starts_with("log-") {
            without.take_away(&name);
        }
    }
    assert!(matches!(open_copy(&without).map(|_| ()), Err(OpenError::NoSegments)));
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut rng = Rng::new(99);
    for round in 0..300 {
        let disk = SimDisk::new();
        disk.set_content("STORE", b"whimbrel store\nformat 1\nid 0123456789abcdef\n".to_vec());
        for start in [4096_u64, 5000].iter().take(1 + round % 2) {
            let len = rng.below(2000);
            let bytes = (0..len).map(|_| rng.below(256) as u8).collect();
            disk.set_content(&format!("log-{start:016x}"), bytes);
        }
        let _ = open_copy(&disk);
    }
}
