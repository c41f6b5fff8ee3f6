//! The whole broker with its disk, its clients and the network between them, in one thread, under
//! one seed and a virtual clock; and a checker of what the broker promises.
//!
//! Everything that happens follows from the seed: how much of a packet arrives at once, when a
//! shard has its turn, when the disk syncs or fails, when the power goes. So a run that finds a
//! fault is found again with its seed alone:
//!
//! ```text
//! whimbrel-simulator --seed 42 --verbose
//! ```
//!
//! - the clients of every second seed are those of `client-core` (`real.rs`), which crash and go on
//!   from what they have written down;
//! - `world/` makes things happen: ticks of shards (`tick.rs`), clients (`acts.rs`,
//!   `receive.rs`), faults (`faults.rs`), and the end (`quiet.rs`);
//! - [`check`] knows what was promised;
//! - [`Mutation`] lists deliberate bugs, each of which the checker must find.

pub mod check;
pub mod plan;

mod broker;
mod client;
mod disk;
mod mutation;
mod net;
mod real;
mod rng;
mod tap;
mod trace;
mod world;

pub use mutation::Mutation;
pub use plan::Options;
pub use world::{Outcome, run};
