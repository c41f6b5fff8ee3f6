//! Scripted behaviour, one test each, and random operations against a model of a server.

mod behaviour;
mod model;
