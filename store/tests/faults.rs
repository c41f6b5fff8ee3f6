//! Disks that fill up, fail once, or fail for a while: nothing that was acknowledged is lost, and
//! the log goes on when it can.

mod support;

use std::sync::Arc;

use support::{Events, IDENTITY, World, open, small_options};
use whimbrel_codec::QoS;
use whimbrel_store::sim_disk::{Operation, SimDisk};
use whimbrel_store::{Disk, Log, MessageRecord, Store};

/// A while of ordinary life.
fn live(world: &mut World, steps: usize) {
    for _ in 0..steps {
        world.step();
        world.now_ms += 20;
        world.log.work(world.now_ms);
        world.log.work_reads();
        if world.rng.one_in(8) {
            world.tick(0);
            world.tick(1);
        }
    }
}

/// Everything is committed and given time.
fn calm(world: &mut World) {
    for _ in 0..10 {
        world.tick(0);
        world.tick(1);
        world.now_ms += 600;
        while world.log.work(world.now_ms).did {}
        while world.log.work_reads().did {}
    }
}

fn crash_and_compare(world: &mut World) {
    let synced = world.log.synced().0;
    let rng = &mut world.rng;
    world.disk.crash(&mut |n| rng.below(n));
    world.disk.set_capacity(None);
    let (log, recovered) = match open(&world.disk, &world.events) {
        Ok(opened) => opened,
        Err(error) => panic!("{error}\n{:#?}", world.events.all()),
    };
    world.reopened(log, &recovered, synced);
}

#[test]
fn any_operation_may_fail_once() {
    for nth in 0..900 {
        let mut world = World::new(nth);
        live(&mut world, 10);
        world.disk.fail(Operation::Any, nth);
        live(&mut world, 60);
        world.disk.heal();
        world.read_all();
        calm(&mut world);
        assert!(!world.log.is_full(), "{:#?}", world.events.all());
        let all = world.journals[0].synced();
        assert_eq!(world.log.backlog_bytes(), 0, "all is written: {all:?}");
        world.read_all();
        live(&mut world, 20);
        crash_and_compare(&mut world);
    }
}

#[test]
fn any_operation_of_opening_may_fail_once() {
    let mut world = World::new(1);
    live(&mut world, 100);
    world.tick(0);
    let synced = world.log.synced().0;
    let mut nth = 0;
    loop {
        // A torn end is to be cut as well.
        world.step();
        world.tick(1);
        world.disk.fail_syncs(true);
        world.log.work(world.now_ms + 1000);
        let rng = &mut world.rng;
        world.disk.crash(&mut |n| rng.below(n));
        let before = world.disk.operations();
        world.disk.fail(Operation::Any, nth);
        let opened = open(&world.disk, &world.events);
        let tried = world.disk.operations() - before;
        world.disk.close();
        world.disk.heal();
        drop(opened);
        let (log, recovered) = open(&world.disk, &world.events).expect("it opens");
        world.reopened(log, &recovered, synced.min(world.log.synced().0));
        if tried < nth {
            break;
        }
        nth += 1;
    }
    assert!(nth > 20, "{nth} operations");
}

#[test]
fn making_a_store_may_be_interrupted_anywhere() {
    for nth in 0..40 {
        for way in 0..3 {
            let (disk, events) = (SimDisk::new(), Events::default());
            disk.fail(Operation::Any, nth);
            let made = Log::open(Arc::new(disk.clone()), small_options(&events), IDENTITY);
            drop(made);
            disk.crash(&mut |n| if way == 2 { n / 2 } else { way.min(n - 1) });
            if let Err(error) = open(&disk, &events) {
                panic!("operation {nth}, way {way}: {error}");
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_messages_until_there_is_room() {
    let mut world = World::new(7);
    live(&mut world, 50);
    world.disk.set_capacity(Some(world.disk.used() + 6000));
    let mut tries = 0;
    while !world.log.is_full() {
        live(&mut world, 5);
        tries += 1;
        assert!(tries < 1000, "the disk never filled up");
    }
    assert_eq!(world.events.count("cannot be written"), 1);
    // What frees room can still be written, in the room that the reserve had.
    let before = world.log.synced();
    world.tick(0);
    world.tick(1);
    world.now_ms += 600;
    world.log.work(world.now_ms);
    assert!(world.log.synced() >= before);
    live(&mut world, 20);
    world.read_all();

    world.disk.set_capacity(None);
    calm(&mut world);
    assert!(!world.log.is_full());
    assert!(world.events.count("can be written again") >= 1);
    assert_eq!(world.log.backlog_bytes(), 0);
    live(&mut world, 50);
    world.read_all();
    crash_and_compare(&mut world);
}

#[test]
fn a_full_disk_and_a_crash_lose_nothing_that_was_synced() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        live(&mut world, 40);
        world.disk.set_capacity(Some(world.disk.used() + 1000 * (seed % 5)));
        live(&mut world, 60);
        crash_and_compare(&mut world);
        live(&mut world, 20);
        crash_and_compare(&mut world);
    }
}

#[test]
fn a_failing_sync_goes_on_in_a_new_file() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        live(&mut world, 40);
        world.disk.fail_syncs(true);
        let synced = world.log.synced();
        live(&mut world, 30);
        assert_eq!(world.log.synced(), synced, "nothing is promised");
        world.read_all();
        if seed % 3 == 0 {
            crash_and_compare(&mut world);
            continue;
        }
        assert!(world.log.is_full());
        assert!(world.events.count("cannot be synced") > 1);
        world.disk.fail_syncs(false);
        calm(&mut world);
        assert!(!world.log.is_full());
        assert_eq!(world.log.backlog_bytes(), 0);
        world.read_all();
        // The system has forgotten what it could not sync; all of it must be somewhere else.
        crash_and_compare(&mut world);
    }
}

/// A pass frees room by writing; a broker that was killed on a full disk had no room to write one,
/// and stayed full for ever.
#[test]
fn a_log_that_is_opened_on_a_full_disk_makes_room_of_what_nobody_wants() {
    let (disk, events) = (SimDisk::new(), Events::default());
    let (log, _) = open(&disk, &events).expect("it opens");
    let mut journals = [log.journal(0), log.journal(1)];
    let garbage = MessageRecord {
        topic: "t",
        properties: &[],
        payload: &[7; 1000],
        qos: QoS::AtLeastOnce,
        expires: None,
        retained: None,
    };
    let mut ended = 0;
    for now_ms in 0..10_000 {
        journals[0].message(&garbage);
        for journal in &mut journals {
            if let Some(pass) = journal.restating() {
                journal.restated(pass);
                ended += 1;
            }
            journal.commit();
        }
        log.work(now_ms);
        if ended == 2 {
            break;
        }
    }
    assert_eq!(ended, 2, "there was a pass");
    // Its end is durable, but nobody takes part in the rounds that follow it.
    for n in 0..5 {
        log.work(20_000 + n);
    }
    drop((journals, log));
    disk.crash(&mut |n| n.saturating_sub(1));
    disk.remove("reserve").expect("a reserve");
    disk.set_capacity(Some(disk.used()));
    let (log, _) = open(&disk, &events).expect("it opens");
    let mut journal = log.journal(0);
    journal.message(&garbage);
    let ticket = journal.commit().expect("a batch").ticket;
    log.work(30_000);
    assert!(log.synced() >= ticket && !log.is_full(), "{:#?}", events.all());
    assert_eq!(events.count("no room for the reserve"), 0);
}
