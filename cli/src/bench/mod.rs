//! `whimbrel bench`.
use crate::failure::Failure;
use clap::Args;
/// x
#[derive(Args, Debug)]
pub struct Bench {}
pub fn run(_: &Bench) -> Result<(), Failure> {
    Err(Failure::new(1, "x"))
}
