//! How the client shows who it is.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::Error;

/// How the client shows who it is, anew for every connection.
#[derive(Clone, Default)]
pub struct Login {
    method: Method,
}

#[derive(Clone, Default)]
enum Method {
    #[default]
    Nothing,
    Password {
        user_name: Option<String>,
        password: Option<Arc<[u8]>>,
    },
}

impl Login {
    /// Nothing is shown.
    pub const fn none() -> Login {
        Login { method: Method::Nothing }
    }

    /// A user name, a password, or both.
    pub fn password(user_name: Option<String>, password: Option<Vec<u8>>) -> Login {
        Login { method: Method::Password { user_name, password: password.map(Into::into) } }
    }

    /// What to show for the next connection.
    pub(crate) async fn begin(&self) -> Result<Attempt, Error> {
        Ok(match &self.method {
            Method::Nothing => Attempt::default(),
            Method::Password { user_name, password } => Attempt {
                shown: Shown {
                    user_name: user_name.clone(),
                    password: password.as_deref().map(Vec::from),
                    ..Shown::default()
                },
                ..Attempt::default()
            },
        })
    }

    /// What to show on the same connection before what was shown expires.
    pub(crate) async fn renew(&self) -> Result<Attempt, Error> {
        self.begin().await
    }
}

/// Without what is secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// One authentication.
#[derive(Default)]
pub(crate) struct Attempt {
    pub(crate) shown: Shown,
    /// For methods of more than one step.
    pub(crate) conversation: Option<Box<dyn Conversation>>,
    /// When to show something new on the same connection.
    pub(crate) renew_at: Option<Instant>,
}

/// What stands in CONNECT, or in the first AUTH.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// Authentication method and its data (5.0).
    pub(crate) method: Option<(String, Vec<u8>)>,
    /// For the request of a WebSocket.
    pub(crate) bearer: Option<String>,
}

/// The client's part in enhanced authentication (section 4.12).
pub(crate) trait Conversation: Send {
    /// The answer to the server's data.
    fn answer(&mut self, data: &[u8]) -> Result<Vec<u8>, String>;

    /// Checks what came with the server's consent.
    fn finish(&mut self, data: &[u8]) -> Result<(), String>;
}
