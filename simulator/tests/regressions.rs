//! Seeds that once found a fault, each with what it was. A seed is a run only for the code of its
//! day; here they are cheap seeds that have proved to be eventful.

use whimbrel_simulator::{Options, run};

const SEEDS: &[(u64, &str)] = &[
    (3, "a CONNACK with a reason code that it does not have; QoS 1 overtook a repetition"),
    (6, "a receipt was asked of a member that keeps nothing"),
    (7, "the header of the last segment was not made durable when the store was opened"),
    (67, "an idle shard kept passes from ending"),
    (87, "the expiry of a session that was connected at a crash began anew at each start"),
    (112, "a session whose time was over was taken up before its timer fired"),
    (196, "a spilled message was read before it had a place in the log"),
    (407, "a repeated QoS 2 message was refused while the store was full, and came twice"),
    (490, "a will that was due after a stop was replaced by a CONNECT"),
    (605, "a message kept first for a session that is not durable never had a place in the log"),
    (674, "as 196"),
    (800, "as 605"),
    (936, "a crash brought back a session that an earlier CONNECT had ended"),
    (1065, "as 196"),
    (1094, "a segment that was made again was on disk without its header"),
    (1221, "as 605"),
    (1346, "as 605"),
    (1495, "a store was on disk without any segment"),
    (1671, "a shared message for a member that had just left was lost"),
    (2215, "as 936"),
    (2677, "as 1495"),
    (3847, "an acknowledged removal of a retained message rested on one that was not durable"),
    (7190, "as 1495"),
];

/// The same with clients of `client-core`.
const REAL: &[(u64, &str)] = &[
    (2, "a session of 3.1.1 whose first message was released could not be restored"),
    (20, "messages of a session that had ended were sent into the next one"),
    (32, "as 2, with the client that it was"),
    (156, "as 20"),
];

#[test]
fn seeds_that_found_something_in_clients() {
    for (seed, what) in REAL {
        let outcome = run(Options { real_clients: true, ..Options::new(*seed) });
        assert_eq!(outcome.violation, None, "seed {seed}: {what}");
    }
}

#[test]
fn seeds_that_found_something() {
    for (seed, what) in SEEDS {
        let outcome = run(Options { real_clients: false, ..Options::new(*seed) });
        assert_eq!(outcome.violation, None, "seed {seed}: {what}");
    }
}
