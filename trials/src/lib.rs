//! The client of this workspace, tried where it is to work: against brokers that others wrote
//! ([`scenarios`]), and over networks that cut, delay, tear, stall and swallow ([`chaos`]).

pub mod chaos;
pub mod relay;
pub mod scenarios;

/// Why a trial failed, for a reader.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
