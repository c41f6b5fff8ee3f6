//! Scripted behaviour, one test each; random operations against a model of a server; and the
//! pieces of memory against simple ones.

mod arena;
mod behaviour;
mod hand;
mod lent;
mod model;
mod restore;
mod script;
mod server;
