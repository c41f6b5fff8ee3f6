//! Who a client is, and what it may do: the ports that the broker asks, and the rules behind them.
//!
//! - [`Authenticator::begin`] takes an [`Attempt`] (from CONNECT or AUTH) and answers, at once or
//!   later, with an [`Outcome`]: a [`Principal`], one more step, or a refusal.
//! - [`Rights::authorize`] is the one place that says what a principal may do.
//!
//! There is no clock, socket or thread here: time and what was fetched are parameters.

extern crate alloc;

mod attempt;
pub mod hook;
mod methods;
pub mod password;
mod principal;
mod rules;
pub mod token;

pub use attempt::{
    Anonymous, Attempt, Authenticator, Certificate, Exchange, Outcome, Proof, Refusal, Refused,
    Secret, Ticket,
};
pub use methods::{
    AceMethod, CheckAgain, MethodOutcome, PasswordMethod, Random, ScramMethod, TokenMethod, accept,
};
pub use principal::{Method, Permission, Principal};
pub use rules::{
    Access, Action, Decision, Explanation, Rights, RuleError, Rules, Verdict, is_like,
};
pub use whimbrel_scram as scram;
