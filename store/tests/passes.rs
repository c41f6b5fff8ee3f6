//! Passes: the store's size follows what is alive, and what is alive stays readable.

mod support;

use std::sync::Arc;

use support::{Events, World, small_options};
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{Durability, Log, Options, Store};

fn live(world: &mut World, steps: usize) {
    for step in 0..steps {
        world.step();
        if step % 4 == 0 {
            world.tick(0);
            world.tick(1);
        }
        world.now_ms += 1;
        world.log.work(world.now_ms);
        world.log.work_reads();
    }
}

/// All that is queued is dropped and acknowledged by ending every session.
fn end_all(world: &mut World) {
    for writer in 0..2_usize {
        let keys: Vec<u64> = world.shards[writer].sessions.keys().copied().collect();
        for key in keys {
            let key = whimbrel_store::SessionKey(key);
            world.journals[writer].record(&whimbrel_store::Record::Ended { key });
            world.shards[writer].sessions.remove(&key.0);
        }
        world.tick(writer);
    }
}

#[test]
fn the_size_of_a_store_follows_what_is_alive() {
    let mut world = World::new(11);
    let mut largest = 0;
    for _ in 0..30 {
        live(&mut world, 300);
        end_all(&mut world);
        live(&mut world, 40);
        largest = largest.max(world.disk.used());
        world.read_all();
    }
    assert!(largest < 120_000, "{largest} bytes at most");
    assert!(world.log.synced().0 > 400_000, "{:?} bytes were written", world.log.synced());
    assert!(world.events.count("packed log") > 5);
}

#[test]
fn an_idle_store_writes_nothing() {
    let mut world = World::new(3);
    live(&mut world, 200);
    let mut operations = 0;
    for round in 0..100 {
        world.tick(0);
        world.tick(1);
        world.now_ms += 100;
        while world.log.work(world.now_ms).did {}
        while world.log.work_reads().did {}
        if round == 20 {
            operations = world.disk.operations();
        }
    }
    assert_eq!(world.disk.operations(), operations);
    assert_eq!(world.log.work(world.now_ms + 1000).next_ms, None, "nothing is to be done");
}

#[test]
fn less_durability_syncs_less_but_tells_the_truth() {
    for durability in [Durability::Os, Durability::Memory] {
        for seed in 0..20_u64 {
            let disk = SimDisk::new();
            let events = Events::default();
            let options = || Options { durability, ..small_options(&events) };
            let (log, _) = Log::open(Arc::new(disk.clone()), options(), 9).expect("it opens");
            let mut world = World::new(seed);
            world.journals = (0..2).map(|writer| log.journal(writer)).collect();
            (world.log, world.disk) = (log, disk.clone());
            live(&mut world, 150);
            let written = world.log.synced();
            if durability == Durability::Memory {
                assert_eq!(written.0, u64::MAX);
            }
            // The process ends: all that was written is there.
            for writer in 0..2 {
                world.tick(writer);
            }
            world.log.work(world.now_ms);
            disk.close();
            let opened = Log::open(Arc::new(disk.clone()), options(), 9).expect("it opens");
            let last = opened.0.synced().0.min(u64::MAX - 1);
            if durability == Durability::Os {
                world.matches(last, &opened.1).expect("all of it");
            }
            drop(opened);
            // The power goes: perhaps less is there, but it is a store.
            let (log, _) = Log::open(Arc::new(disk.clone()), options(), 9).expect("it opens");
            world.journals = (0..2).map(|writer| log.journal(writer)).collect();
            world.log = log;
            live(&mut world, 100);
            let rng = &mut world.rng;
            disk.crash(&mut |n| rng.below(n));
            Log::open(Arc::new(disk.clone()), options(), 9).expect("it opens");
        }
    }
}
