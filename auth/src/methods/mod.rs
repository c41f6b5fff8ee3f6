//! The methods by which a client shows who it is, each as one step of a listener's chain.
//!
//! The first method that knows the client decides. What each of them knows:
//! - [`PasswordMethod`]: a user name that stands in its file, sent with no authentication method;
//! - [`ScramMethod`] and [`AceMethod`]: every attempt with their authentication method;
//! - [`TokenMethod`]: every attempt with its authentication method or with a token in WebSocket's
//!   `Authorization`; a password if a configured issuer knows it as a token.
//!
//! Where passwords may be opaque tokens, a password of the form of one is sent to the issuers that
//! can be asked: put the password file before them.
//!
//! **The end of the chain.** If no method knows the client, one that checks passwords must refuse
//! it: [`PasswordMethod::refuse`] takes the time of a check, so that a user who is not in the file
//! is answered like one with a wrong password. This holds for whoever stands last with a password;
//! a method that is asked between the file and the end (a hook) adds its own time for users who are
//! not in the file, and so tells them apart: put such a method first, or give each a listener.

mod ace;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

pub use ace::AceMethod;
pub use token::{CheckAgain, TokenMethod};

use crate::password::{PasswordFile, keyed};
use crate::scram::{self, Mechanism};
use crate::{Attempt, Exchange, Method, Outcome, Principal, Refusal, Refused};

/// Bytes of randomness that a step may need; new ones for each.
pub type Random = [u8; 32];

/// What a method says of an attempt.
#[derive(Debug)]
pub enum MethodOutcome {
    /// It does not know the client: the next method is asked.
    NotMine,
    /// It has decided.
    Decided(Outcome),
}

impl From<Outcome> for MethodOutcome {
    fn from(outcome: Outcome) -> MethodOutcome {
        MethodOutcome::Decided(outcome)
    }
}

impl From<Refused> for MethodOutcome {
    fn from(refused: Refused) -> MethodOutcome {
        MethodOutcome::Decided(refused.into())
    }
}

/// Accepts a client, unless it authenticates again and is somebody else now.
pub fn accept(attempt: &Attempt, mut principal: Principal, data: Option<Vec<u8>>) -> Outcome {
    if attempt.current.as_ref().is_some_and(|current| current.name != principal.name) {
        let detail = "re-authentication as somebody else; connect anew instead";
        return Refused::new(Refusal::NotAuthorized, detail).into();
    }
    let certificate = attempt.proof.as_ref().and_then(|proof| proof.certificate.as_ref());
    principal.certificate = certificate.and_then(|certificate| certificate.identity.clone());
    Outcome::Accepted { principal: Arc::new(principal), data }
}

/// User name and password against a password file.
#[derive(Clone, Debug)]
pub struct PasswordMethod {
    file: Arc<PasswordFile>,
}

impl PasswordMethod {
    /// With the users of this file.
    pub fn new(file: Arc<PasswordFile>) -> PasswordMethod {
        PasswordMethod { file }
    }

    /// Knows the users of its file. **Takes tens of milliseconds and megabytes**: not for the
    /// thread that carries messages.
    pub fn verify(&self, attempt: &Attempt) -> MethodOutcome {
        match &attempt.user_name {
            Some(name) if attempt.method.is_none() && self.file.user(name).is_some() => {
                self.decide(attempt).into()
            }
            _ => MethodOutcome::NotMine,
        }
    }

    /// For the end of the chain: refuses a client whom no method knows, in the time that a user of
    /// the file with a wrong password takes.
    pub fn refuse(&self, attempt: &Attempt) -> Outcome {
        self.decide(attempt)
    }

    fn decide(&self, attempt: &Attempt) -> Outcome {
        let (Some(name), Some(password)) = (&attempt.user_name, &attempt.password) else {
            let detail = "no user name and password";
            return Refused::new(Refusal::BadUserNameOrPassword, detail).into();
        };
        match self.file.verify(name, &password.0) {
            Some(groups) => {
                let principal = Principal { groups, ..Principal::new(name, Method::Password) };
                accept(attempt, principal, None)
            }
            None => {
                let detail = "wrong password, or no such user in the password file";
                Refused::new(Refusal::BadUserNameOrPassword, detail).into()
            }
        }
    }
}

/// The authentication methods `SCRAM-SHA-256` and `SCRAM-SHA-512`, with keys of a password file.
#[derive(Clone)]
pub struct ScramMethod {
    file: Arc<PasswordFile>,
    secret: [u8; 32],
}

impl ScramMethod {
    /// `secret` makes the salts of users who are not there. It should be the same after a restart
    /// and a reload of the file: their salts would change, those of others do not.
    pub fn new(file: Arc<PasswordFile>, secret: [u8; 32]) -> ScramMethod {
        ScramMethod { file, secret }
    }

    /// Knows whoever uses its authentication methods. Quick: the client does the work.
    pub fn verify(&self, attempt: &Attempt, random: &Random) -> MethodOutcome {
        let Some(mechanism) = attempt.method.as_deref().and_then(Mechanism::from_name) else {
            return MethodOutcome::NotMine;
        };
        let data = attempt.data.as_ref().map_or(&[][..], |data| &data.0);
        let exchange = attempt.exchange.as_ref().map(|exchange| exchange.0.downcast_ref::<Step>());
        let result = match exchange {
            None if data.is_empty() => Ok(go_on(None, Vec::new())),
            None | Some(Some(Step(None))) => self.begin(attempt, mechanism, data, random),
            Some(Some(Step(Some(server)))) if server.mechanism() == mechanism => {
                self.finish(attempt, server, data)
            }
            Some(_) => Err(scram::Fault::Malformed),
        };
        result.unwrap_or_else(refused).into()
    }

    fn begin(
        &self,
        attempt: &Attempt,
        mechanism: Mechanism,
        data: &[u8],
        random: &Random,
    ) -> Result<Outcome, scram::Fault> {
        let request = scram::Request::parse(data)?;
        let named = attempt.user_name.as_deref().map(scram::prepared);
        if named.is_some_and(|name| name.as_deref() != Some(request.user())) {
            return Err(scram::Fault::OtherUser);
        }
        let mut nonce = [0; scram::NONCE_BYTES];
        nonce.copy_from_slice(&random[..scram::NONCE_BYTES]);
        let (server, message) = match self.file.scram_keys(request.user(), mechanism) {
            Some(keys) => request.answer(keys, &nonce),
            None => {
                let iterations = self.file.usual_iterations(mechanism);
                let draw = keyed(&self.secret, mechanism.name(), request.user());
                request.answer_unknown(mechanism, iterations, &draw, &nonce)
            }
        };
        Ok(go_on(Some(server), message))
    }

    fn finish(
        &self,
        attempt: &Attempt,
        server: &scram::Server,
        data: &[u8],
    ) -> Result<Outcome, scram::Fault> {
        let message = server.finish(data)?;
        let name = server.user();
        // Gone from the file since the exchange began.
        let user = self.file.user(name).ok_or(scram::Fault::Proof)?;
        let groups = user.groups.clone();
        let principal = Principal { groups, ..Principal::new(name, Method::Scram) };
        Ok(accept(attempt, principal, Some(message)))
    }
}

/// Where an exchange of SCRAM stands: none if the client has named the method alone.
struct Step(Option<scram::Server>);

fn go_on(step: Option<scram::Server>, data: Vec<u8>) -> Outcome {
    Outcome::Continue { exchange: Exchange(Box::new(Step(step))), data }
}

fn refused(fault: scram::Fault) -> Outcome {
    let refusal = match fault {
        scram::Fault::Proof | scram::Fault::OtherUser => Refusal::BadUserNameOrPassword,
        scram::Fault::Malformed | scram::Fault::Nonce => Refusal::ProtocolError,
        scram::Fault::ChannelBinding | scram::Fault::Extension => Refusal::NotAuthorized,
    };
    let mut refused = Refused::new(refusal, fault.to_string());
    refused.data = Some(fault.message());
    refused.into()
}
