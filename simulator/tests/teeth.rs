//! Deliberate bugs: the checker must find each of them, and soon.

use whimbrel_simulator::{Mutation, Options, run};

/// Seeds until a bug must be found.
const SEEDS: u64 = 400;

/// The invariants that a bug breaks, by the first violation of a seed that finds it.
fn bites(mutation: Mutation, invariants: &[u8]) {
    for seed in 1..=SEEDS {
        let outcome = run(Options { mutation: Some(mutation), ..Options::new(seed) });
        if let Some(violation) = outcome.violation
            && invariants.contains(&violation.invariant)
        {
            return;
        }
    }
    panic!("{SEEDS} seeds have not found {mutation:?}");
}

macro_rules! teeth {
    ($($name:ident: $mutation:ident, $invariants:expr;)*) => {
        $(#[test]
        fn $name() {
            bites(Mutation::$mutation, &$invariants);
        })*

        #[test]
        fn every_mutation_has_a_test() {
            let tested = [$(Mutation::$mutation),*];
            assert!(Mutation::ALL.iter().all(|mutation| tested.contains(mutation)));
        }
    };
}

teeth! {
    acknowledge_before_sync: AckBeforeSync, [1, 2, 4, 6];
    deliver_qos2_before_it_is_durable: Qos2BeforeDurable, [2, 7];
    skip_a_sync: SkipFsync, [1, 4];
    lose_a_queued_message: LoseQueued, [1];
    lose_a_delivery: LoseDelivered, [1];
    lose_the_end_of_a_delivery: LoseAcknowledged, [2, 7];
    lose_a_pubrec: LoseReleased, [2];
    forget_a_received_identifier: ForgetReceived, [2];
    lose_a_subscription: LoseSubscription, [1];
    lose_the_end_of_a_subscription: LoseUnsubscription, [4];
    resurrect_a_session: ResurrectSession, [4];
    lose_a_will: LoseWill, [5];
    repeat_a_will: RepeatWill, [2, 5];
    deliver_an_old_retained_message: OldRetained, [6];
    lose_that_a_message_is_on_its_way: LoseRouting, [1];
    forget_a_session_in_a_pass: PassForgetsSession, [1, 4];
    sweep_too_early: SweepTooEarly, [1, 4];
    lose_mail: LoseMail, [1];
    forget_dup: ForgetDup, [2];
    reuse_a_packet_identifier: ReusePacketId, [7];
    lose_the_order: LoseOrder, [3];
    repeat_a_publish: RepeatPublish, [2];
    forget_after_a_crash_what_was_received: RestartForgetsReceived, [2];
    publish_after_a_crash_what_was_released: RestartPublishesReleased, [2];
    forget_after_a_crash_what_was_published: RestartForgetsPublished, [1];
    send_again_without_dup: SendWithoutDup, [2];
}

#[test]
fn names_are_names() {
    for mutation in Mutation::ALL {
        assert_eq!(Mutation::from_name(&mutation.name()), Some(*mutation));
    }
    assert_eq!(Mutation::AckBeforeSync.name(), "ack-before-sync");
    assert_eq!(Mutation::from_name("none"), None);
}
