//! The authenticator of the broker: each listener's chain of methods.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whimbrel_auth::hook::HookMethod;
use whimbrel_auth::token::Tokens;
use whimbrel_auth::{
    AceMethod, Attempt, Authenticator, CheckAgain, Method, MethodOutcome, Outcome, PasswordMethod,
    Principal, Random, Refusal, Refused, ScramMethod, Ticket, TokenMethod, accept,
};

use super::http::Http;
use super::tokens::{Checks, Keeper};
use super::workers::{Job, Workers};
use super::{Files, chain};
use crate::config::{Config, Login};
use crate::mailbox::Mailbox;

/// Decides who may connect, at once or on a thread of its own.
pub(crate) struct Gate {
    known: Arc<RwLock<Arc<Known>>>,
    /// Makes salts for users who are not there.
    secret: [u8; 32],
    workers: Workers,
    checks: Arc<Checks>,
    keeper: Mutex<Option<Keeper>>,
}

/// What is known of clients: never changed, only replaced.
pub(super) struct Known {
    /// By listener.
    chains: Vec<Vec<Login>>,
    passwords: PasswordMethod,
    scram: ScramMethod,
    issuers: Issuers,
    hook: Option<HookMethod>,
    http: Http,
    /// How long an attempt may wait for a thread.
    patience: Duration,
}

/// Issuers of tokens, with what they have said so far.
#[derive(Clone)]
struct Issuers {
    tokens: Arc<Tokens>,
    mark: [u8; 32],
}

impl Gate {
    /// # Errors
    /// If issuers cannot be put together; says what to do.
    pub(crate) fn new(config: &Config, files: &Files, secret: [u8; 32]) -> Result<Gate, String> {
        let known = Known::new(config, files, secret, None)?;
        Ok(Gate {
            known: Arc::new(RwLock::new(Arc::new(known))),
            secret,
            workers: Workers::default(),
            checks: Arc::default(),
            keeper: Mutex::default(),
        })
    }

    /// Starts the threads; outcomes go to these mailboxes.
    pub(crate) fn start(&self, mailboxes: &Arc<[Mailbox]>) -> std::io::Result<()> {
        self.workers.start(mailboxes, &self.checks)?;
        let known = self.known.clone();
        let known = move || known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keeper = Keeper::start(known, self.checks.clone(), mailboxes.clone())?;
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(())
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.workers.stop();
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.stop();
        }
    }

    /// # Errors
    /// As [`Gate::new`]; then nothing has changed.
    pub(super) fn reconfigure(&self, config: &Config, files: &Files) -> Result<(), String> {
        let known = Known::new(config, files, self.secret, Some(&self.known()))?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
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
        let (asks, patience) = (known.may_ask(&attempt), known.patience);
        self.workers.push(Job { ticket, attempt, known, patience }, asks).err()
    }

    fn ended(&self, ticket: Ticket) {
        self.checks.end(ticket);
    }
}

impl Known {
    fn new(
        config: &Config,
        files: &Files,
        secret: [u8; 32],
        before: Option<&Known>,
    ) -> Result<Known, String> {
        // Issuers that are as they were keep the keys and answers that they gave.
        let same = before.map(|known| &known.issuers).filter(|one| one.mark == files.tokens_mark);
        let issuers = match same {
            Some(issuers) => issuers.clone(),
            None => Issuers {
                tokens: Arc::new(Tokens::new(files.tokens.clone())?),
                mark: files.tokens_mark,
            },
        };
        Ok(Known {
            chains: config.listeners.iter().map(|listener| chain::of(config, listener)).collect(),
            passwords: PasswordMethod::new(files.passwords.clone()),
            scram: ScramMethod::new(files.passwords.clone(), secret),
            issuers,
            hook: files.hook.clone().map(HookMethod::new),
            http: Http::new(files.http_ca.as_deref()),
            patience: Duration::from_secs(config.core.connect_timeout_s.into()),
        })
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
                login if concerns(*login, attempt) => return None,
                _ => MethodOutcome::NotMine,
            };
            if let MethodOutcome::Decided(outcome) = outcome {
                return Some(outcome);
            }
        }
        Some(unknown(attempt))
    }

    /// Whether somebody may have to be asked over the network.
    fn may_ask(&self, attempt: &Attempt) -> bool {
        let asks = |login: &&Login| matches!(login, Login::Token | Login::Ace | Login::Http);
        self.chain(attempt).iter().filter(asks).any(|login| concerns(*login, attempt))
    }

    /// Asks each method in turn; takes its time.
    pub(super) fn decide(
        &self,
        attempt: &Attempt,
        random: &Random,
    ) -> (Outcome, Option<CheckAgain>) {
        let chain = self.chain(attempt);
        for login in chain {
            let (outcome, again) = self.ask(*login, chain, attempt, random);
            if let MethodOutcome::Decided(outcome) = outcome {
                return (outcome, again);
            }
        }
        // Who stands in no file is answered as late as who has a wrong password.
        if chain.contains(&Login::Password) && concerns(Login::Password, attempt) {
            return (self.passwords.refuse(attempt), None);
        }
        (unknown(attempt), None)
    }

    fn ask(
        &self,
        login: Login,
        chain: &[Login],
        attempt: &Attempt,
        random: &Random,
    ) -> (MethodOutcome, Option<CheckAgain>) {
        let outcome = match (login, &self.hook) {
            (Login::Anonymous, _) => anonymous(attempt, chain),
            (Login::Certificate, _) => certificate(attempt),
            (Login::Scram, _) => self.scram.verify(attempt, random),
            (Login::Password, _) => self.passwords.verify(attempt),
            (Login::Token, _) => {
                let method = TokenMethod::new(self.issuers.tokens.clone());
                return method.verify(attempt, now_s(), &self.http);
            }
            (Login::Ace, _) => {
                let method = AceMethod::new(self.issuers.tokens.clone());
                return method.verify(attempt, now_s(), random, &self.http);
            }
            (Login::Http, Some(hook)) => hook.verify(attempt, now_s(), &self.http),
            (Login::Http, None) => MethodOutcome::NotMine,
        };
        (outcome, None)
    }

    /// Fetches keys that are due.
    pub(super) fn refresh(&self, now_s: u64) {
        self.issuers.tokens.refresh(now_s, &self.http);
    }

    /// What there is to warn of since the last time.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.issuers.tokens.take_warnings()
    }

    /// Asks an issuer again whether a token holds.
    pub(super) fn check_again(
        &self,
        again: &CheckAgain,
        principal: &Principal,
        now_s: u64,
    ) -> Option<CheckAgain> {
        again.run(&self.issuers.tokens, principal, now_s, &self.http)
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a method has something to look at.
fn concerns(login: Login, attempt: &Attempt) -> bool {
    let method = attempt.method.as_deref();
    let bearer = attempt.proof.as_ref().is_some_and(|proof| proof.bearer.is_some());
    match login {
        Login::Anonymous | Login::Certificate | Login::Http => true,
        Login::Scram => method.is_some_and(|method| method.starts_with("SCRAM-")),
        Login::Ace => method == Some("ace"),
        Login::Password => method.is_none() && attempt.user_name.is_some(),
        Login::Token => match method {
            Some(method) => method == "OAUTH2-JWT",
            None => attempt.password.is_some() || bearer,
        },
    }
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
    let bearer = attempt.proof.as_ref().is_some_and(|proof| proof.bearer.is_some());
    let shows_nothing = attempt.user_name.is_none() && attempt.password.is_none() && !bearer;
    if attempt.method.is_some() || !(shows_nothing || chain == [Login::Anonymous]) {
        return MethodOutcome::NotMine;
    }
    accept(attempt, Principal::new("", Method::Anonymous), None).into()
}

/// The name in a client certificate, which TLS has verified.
fn certificate(attempt: &Attempt) -> MethodOutcome {
    let certificate = attempt.proof.as_ref().and_then(|proof| proof.certificate.as_ref());
    match certificate {
        Some(certificate) if attempt.method.is_none() => match &certificate.identity {
            // The empty name is that of those whom nobody knows.
            Some(name) if !name.is_empty() && !name.contains('\0') => {
                accept(attempt, Principal::new(name, Method::Certificate), None).into()
            }
            _ => {
                let detail = "its certificate has no name of the kind that the listener takes";
                Refused::new(Refusal::NotAuthorized, detail).into()
            }
        },
        _ => MethodOutcome::NotMine,
    }
}
