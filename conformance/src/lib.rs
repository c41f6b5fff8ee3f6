//! One test per normative statement of MQTT 5.0 and 3.1.1, against any broker.
//!
//! A test is a script of a peer that reads like the standard; it knows its broker only as a
//! [`port::Broker`], which is a TCP port or a broker in memory with a clock of its own. The
//! statements stand in [`ids`], the tests in [`tests`], and [`table`] shows which belongs to
//! which.

pub mod bench;
pub mod ids;
pub mod outcome;
pub mod packets;
pub mod peer;
pub mod port;
pub mod raw;
pub mod runner;
pub mod table;
pub mod test;
pub mod tests;
pub mod websocket;
