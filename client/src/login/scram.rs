//! SCRAM as an authentication method: the client's part, in steps.

use whimbrel_scram::client::{Client, Expectation};
use whimbrel_scram::{Fault, Mechanism, NONCE_BYTES};

use super::secret::blocking;
use super::{Answering, Attempt, Conversation, Secret, Shown};

pub(super) struct ScramLogin {
    mechanism: Mechanism,
    user_name: String,
    password: Secret,
}

impl ScramLogin {
    pub(super) const fn new(mechanism: Mechanism, user_name: String, password: Secret) -> Self {
        ScramLogin { mechanism, user_name, password }
    }

    pub(super) async fn begin(&self) -> Result<Attempt, String> {
        let password = String::from_utf8(self.password.get().await?)
            .map_err(|_| "SCRAM needs a password of UTF-8".to_owned())?;
        let (client, first) = Client::new(self.mechanism, &self.user_name, &password, &nonce()?)
            .map_err(|_| "user name or password have characters that SCRAM does not allow")?;
        let method = Some((self.mechanism.name().into(), first));
        Ok(Attempt {
            shown: Shown { method, ..Shown::default() },
            conversation: Some(Box::new(Exchange::Begun(client))),
            life: None,
        })
    }
}

/// Nobody can guess it, so an answer is good for this exchange alone.
fn nonce() -> Result<String, String> {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

enum Exchange {
    Begun(Client),
    /// Only the broker's own proof is missing.
    Answered(Expectation),
}

impl Conversation for Exchange {
    fn answer(self: Box<Self>, data: Vec<u8>) -> Answering {
        Box::pin(blocking(move || {
            let Exchange::Begun(client) = *self else {
                return Err("SCRAM has no further step, but the broker asks for one".into());
            };
            // Takes up to a second for as many iterations as are accepted.
            let (expectation, last) = client.answer(&data).map_err(told)?;
            let next: Box<dyn Conversation> = Box::new(Exchange::Answered(expectation));
            Ok((last, next))
        }))
    }

    fn finish(self: Box<Self>, data: &[u8]) -> Result<(), String> {
        match *self {
            Exchange::Answered(expectation) => expectation.check(data).map_err(told),
            Exchange::Begun(_) => Err("the broker did not ask for the proof".into()),
        }
    }
}

fn told(fault: Fault) -> String {
    match fault {
        Fault::Proof => {
            "the broker does not know this user's password: it is not the one it seems to be".into()
        }
        fault => format!("the broker's part of SCRAM is not valid: {fault}"),
    }
}
