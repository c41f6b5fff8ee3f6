//! `whimbrel shell`: the topics of a broker, live, in a terminal.
//!
//! [`model`] is what is known and shown, without I/O; [`view`] draws it into a buffer; `driver`
//! brings it together with a terminal and a client.

mod dialog;
mod keys;
mod layout;
mod meter;
mod model;
mod payload;
mod rows;
mod topics;
mod value;
mod view;

#[cfg(test)]
mod tests;
