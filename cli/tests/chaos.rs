//! The client and the broker over a network that fails, for a few seconds; `whimbrel-chaos` does it
//! for as long as wanted.

use whimbrel_trials::chaos::{self, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_out_of_order_on_a_failing_network() {
    let settings = Settings {
        broker: env!("CARGO_BIN_EXE_whimbrel").into(),
        rounds: 200,
        seed: 1,
        rounds_per_broker: 100,
        worker: None,
    };
    let report = chaos::run(&settings).await.expect("all of it holds");
    assert!(report.received > 1000, "{report:?}");
}
