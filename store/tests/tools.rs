//! `check` and `repair`: what is whole is left alone, what is damaged can be opened again.

mod support;

use std::sync::Arc;

use support::{Events, Rng, World, open};
use whimbrel_store::Disk;
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::tool::{check, repair};

/// A world that was stopped in good order.
fn stopped(seed: u64) -> World {
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
    world.tick(0);
    world.tick(1);
    world.log.stop().expect("it stops");
    world.disk.close();
    world
}

fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    for name in disk.list().expect("names") {
        copy.set_content(&name, disk.content(&name).expect("a file"));
    }
    copy
}

#[test]
fn a_store_that_is_whole_has_no_findings_and_is_left_alone() {
    for seed in 0..10 {
        let world = stopped(seed);
        let report = check(&world.disk).expect("it can be read");
        assert_eq!(report.findings, []);
        assert!(report.segments > 0 && report.frames > 10 && report.records > report.frames);
        let before: Vec<_> = world.disk.list().expect("names");
        let repaired = repair(&world.disk).expect("nothing to do");
        assert!(repaired.moved.is_empty() && repaired.findings.is_empty());
        assert_eq!(world.disk.list().expect("names"), before);
        let (_, recovered) = open(&world.disk, &Events::default()).expect("it opens");
        assert_eq!(report.sessions, recovered.sessions.len() as u64);
        assert_eq!(report.retained, recovered.retained.len() as u64);
    }
}

#[test]
fn a_store_in_use_is_not_touched() {
    let world = World::new(3);
    assert!(check(&world.disk).is_err());
    assert!(repair(&world.disk).is_err());
}

#[test]
fn a_damaged_store_opens_after_its_repair() {
    let (mut repaired, mut saved) = (0, 0);
    for seed in 0..25 {
        let world = stopped(seed);
        let names = world.disk.list().expect("names");
        let mut rng = Rng::new(seed + 5);
        for _ in 0..25 {
            let name = &names[rng.below(names.len())];
            let mut content = world.disk.content(name).expect("a file");
            let damaged = copy(&world.disk);
            match rng.below(4) {
                0 => damaged.take_away(name),
                1 => {
                    content.truncate(rng.below(content.len()));
                    damaged.set_content(name, content);
                }
                _ => {
                    for _ in 0..=rng.below(3) {
                        let at = rng.below(content.len());
                        content[at] ^= 1 << rng.below(8);
                    }
                    damaged.set_content(name, content);
                }
            }
            let refused = match open(&damaged, &Events::default()) {
                Ok(_) => continue,
                Err(error) => error,
            };
            let report = check(&damaged).expect("it can be read");
            assert!(!report.findings.is_empty(), "{name}: {refused}");
            let before = damaged.list().expect("names");
            let done = match repair(&damaged) {
                Ok(done) => done,
                Err(error) if names.iter().filter(|n| n.starts_with("log-")).count() == 1 => {
                    assert!(error.to_string().contains("STORE"), "{error}");
                    continue;
                }
                Err(error) => panic!("seed {seed}, {name}: {error}"),
            };
            assert!(!done.findings.is_empty() || !done.lost.is_empty());
            let after = damaged.list().expect("names");
            for name in before {
                let aside = format!("{name}.damaged");
                assert!(after.contains(&name) || after.contains(&aside), "{name} was deleted");
            }
            let events = Events::default();
            let (log, recovered) = match open(&damaged, &events) {
                Ok(opened) => opened,
                Err(error) => panic!("seed {seed}, {name}: {error}\n{done:#?}"),
            };
            for session in &recovered.sessions {
                for entry in session.queue.iter() {
                    let body = log.read(entry.stored).expect("what is there can be read");
                    assert_eq!(body.record().payload, world.bodies[&entry.stored.position]);
                }
            }
            drop(Arc::clone(&log));
            repaired += 1;
            saved += recovered.sessions.len();
            drop(log);
            let report = check(&damaged).expect("it can be read");
            assert_eq!(report.findings, [], "after the repair");
        }
    }
    assert!(repaired > 100 && saved > 100, "{repaired} repaired, {saved} sessions saved");
}
