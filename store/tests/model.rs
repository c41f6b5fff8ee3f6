//! Random operations of two shards with crashes in between, against a model of what must be there.

mod support;

use support::{World, open};
use whimbrel_store::Store;

/// Runs a world; gives how often it was opened.
fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
        match world.rng.below(60) {
            0 => crash(&mut world),
            1 => stop(&mut world),
            2 => {
                world.now_ms += 60;
                world.log.work(world.now_ms);
            }
            3..=30 => {
                world.now_ms += 1;
                world.log.work(world.now_ms);
            }
            31..=40 => {
                world.log.work_reads();
            }
            41..=50 => {
                world.tick(0);
                world.tick(1);
            }
            51 => world.read_all(),
            _ => {}
        }
    }
    crash(&mut world);
    world
}

fn crash(world: &mut World) {
    let synced = world.log.synced().0;
    assert_eq!(world.journals[0].synced().0, synced);
    let (disk, rng) = (world.disk.clone(), &mut world.rng);
    disk.crash(&mut |n| rng.below(n));
    reopen(world, synced);
}

fn stop(world: &mut World) {
    world.log.stop().expect("it stops");
    let synced = world.log.synced().0;
    world.disk.close();
    let recovered = reopen(world, synced);
    assert!(recovered, "it was stopped in good order");
}

fn reopen(world: &mut World, synced: u64) -> bool {
    let (log, recovered) = match open(&world.disk, &world.events) {
        Ok(opened) => opened,
        Err(error) => panic!("{error}\n{:#?}", world.events.all()),
    };
    world.reopened(log, &recovered, synced);
    recovered.stopped
}

#[test]
fn what_is_recovered_is_what_was_committed() {
    let (mut swept, mut packed) = (0, 0);
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| run(seed, 700));
        let world = result.unwrap_or_else(|panic| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic)
        });
        swept += world.events.count("segments removed");
        packed += world.events.count("packed log");
    }
    eprintln!("{swept} passes, {packed} segments packed");
    assert!(swept > 500 && packed > 10, "{swept} passes, {packed} segments packed");
}
