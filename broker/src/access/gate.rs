//! The authenticator of the broker: each listener's chain of methods.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use whimbrel_auth::{
    Attempt, Authenticator, Method, MethodOutcome, Outcome, PasswordMethod, Principal, Random,
    Refusal, Refused, ScramMethod, Ticket,
};

use super::workers::{Job, Workers};
use super::{Files, chain};
use crate::config::{Config, Login};
use crate::mailbox::Mailbox;

/// Decides who may connect, at once or on a thread of its own.
pub(crate) struct Gate {
    known: RwLock<Arc<Known>>,
    /// Makes salts for users who are not there.
    secret: [u8; 32],
    workers: Workers,
}

/// What is known of clients: never changed, only replaced.
pub(super) struct Known {
    /// By listener.
    chains: Vec<Vec<Login>>,
    passwords: PasswordMethod,
    scram: ScramMethod,
    /// How long an attempt may wait for a thread.
    patience: Duration,
}

impl Gate {
    pub(crate) fn new(config: &Config, files: &Files, secret: [u8; 32]) -> Gate {
        let known = RwLock::new(Arc::new(Known::new(config, files, secret)));
        Gate { known, secret, workers: Workers::default() }
    }

    /// Starts the threads; outcomes go to these mailboxes.
    pub(crate) fn start(&self, mailboxes: &Arc<[Mailbox]>) -> std::io::Result<()> {
        self.workers.start(mailboxes)
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.workers.stop();
    }

    pub(super) fn reconfigure(&self, config: &Config, files: &Files) {
        let known = Arc::new(Known::new(config, files, self.secret));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Authenticator for Gate {
    fn begin(&self, ticket: Ticket, attempt: Attempt) -> Option<Outcome> {
        let known = self.known();
        if let Some(outcome) = known.decide_at_once(&attempt) {
            return Some(outcome);
        }
        let patience = known.patience;
        self.workers.push(Job { ticket, attempt, known, patience }).err()
    }
}

impl Known {
    fn new(config: &Config, files: &Files, secret: [u8; 32]) -> Known {
        Known {
            chains: config.listeners.iter().map(|listener| chain::of(config, listener)).collect(),
            passwords: PasswordMethod::new(files.passwords.clone()),
            scram: ScramMethod::new(files.passwords.clone(), secret),
            patience: Duration::from_secs(config.core.connect_timeout_s.into()),
        }
    }

    fn chain(&self, attempt: &Attempt) -> &[Login] {
        self.chains.get(usize::from(attempt.listener)).map_or(&[], Vec::as_slice)
    }

    /// What needs no thread of its own: none if the next method of the chain takes its time.
    fn decide_at_once(&self, attempt: &Attempt) -> Option<Outcome> {
        let chain = self.chain(attempt);
        for login in chain {
            let outcome = match login {
                Login::Anonymous => anonymous(attempt, chain),
                Login::Certificate => certificate(attempt),
                Login::Scram if attempt.method.is_none() => MethodOutcome::NotMine,
                Login::Password if !shows_password(attempt) => MethodOutcome::NotMine,
                Login::Scram | Login::Password => return None,
            };
            if let MethodOutcome::Decided(outcome) = outcome {
                return Some(outcome);
            }
        }
        Some(unknown(attempt))
    }

    /// Asks each method in turn; takes its time.
    pub(super) fn decide(&self, attempt: &Attempt, random: &Random) -> Outcome {
        let chain = self.chain(attempt);
        for login in chain {
            let outcome = match login {
                Login::Anonymous => anonymous(attempt, chain),
                Login::Certificate => certificate(attempt),
                Login::Scram => self.scram.verify(attempt, random),
                Login::Password => self.passwords.verify(attempt),
            };
            if let MethodOutcome::Decided(outcome) = outcome {
                return outcome;
            }
        }
        // Who stands in no file is answered as late as who has a wrong password.
        if chain.contains(&Login::Password) && shows_password(attempt) {
            return self.passwords.refuse(attempt);
        }
        unknown(attempt)
    }
}

fn shows_password(attempt: &Attempt) -> bool {
    attempt.method.is_none() && attempt.user_name.is_some()
}

/// No method of the chain knows the client.
fn unknown(attempt: &Attempt) -> Outcome {
    match &attempt.method {
        Some(_) => Refused::new(Refusal::UnknownMethod, "an authentication method not known here"),
        None => Refused::new(Refusal::NotAuthorized, "it shows nothing by which it is known here"),
    }
    .into()
}

/// Who shows nothing is nobody. Where nothing else is asked for, neither is a name.
fn anonymous(attempt: &Attempt, chain: &[Login]) -> MethodOutcome {
    let shows_nothing = attempt.user_name.is_none() && attempt.password.is_none();
    if attempt.method.is_some() || !(shows_nothing || chain == [Login::Anonymous]) {
        return MethodOutcome::NotMine;
    }
    accepted(attempt, Principal::new("", Method::Anonymous)).into()
}

/// The name in a client certificate, which TLS has verified.
fn certificate(attempt: &Attempt) -> MethodOutcome {
    let certificate = attempt.proof.as_ref().and_then(|proof| proof.certificate.as_ref());
    match certificate {
        Some(certificate) if attempt.method.is_none() => match &certificate.identity {
            Some(name) => accepted(attempt, Principal::new(name, Method::Certificate)).into(),
            None => {
                let detail = "its certificate has no name of the kind that the listener takes";
                Refused::new(Refusal::NotAuthorized, detail).into()
            }
        },
        _ => MethodOutcome::NotMine,
    }
}

fn accepted(attempt: &Attempt, mut principal: Principal) -> Outcome {
    let certificate = attempt.proof.as_ref().and_then(|proof| proof.certificate.as_ref());
    principal.certificate = certificate.and_then(|certificate| certificate.identity.clone());
    Outcome::Accepted { principal: Arc::new(principal), data: None }
}
