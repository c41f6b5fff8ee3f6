//! Tokens: who gives them, how long they hold, and how they come to the broker.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Attempt, Shown};
use crate::config::LONGEST;

/// The authentication method by which Whimbrel and others take tokens.
pub const OAUTH2_JWT: &str = "OAUTH2-JWT";

/// A token is renewed when a fifth of its life is left, but never earlier than this before its
/// end: time enough for an authorization server to come back.
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// No token is renewed sooner, whatever it says of its life.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

/// Any error of the application.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What [`TokenProvider::token`] gives: a token, later.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send + 'a>>;

/// Where tokens come from. Functions that give a future of a token are providers too:
///
/// ```
/// use std::time::Duration;
/// use whimbrel_client::{BoxError, Carrier, Login, Token};
///
/// let login = Login::token(
///     async || Ok::<_, BoxError>(Token::new("eyJ...").expires_in(Duration::from_secs(600))),
///     Carrier::default(),
/// );
/// ```
pub trait TokenProvider: Send + Sync {
    /// A token that holds from now on. Asked for when there is none, when the last one is about to
    /// end, and when the broker refused it. What it fails with is told, and it is asked again.
    fn token(&self) -> Fetching<'_>;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<Token, BoxError>> + Send + 'static,
{
    fn token(&self) -> Fetching<'_> {
        Box::pin(self())
    }
}

/// A token and how long it holds.
#[derive(Clone)]
pub struct Token {
    value: Arc<str>,
    life: Option<Life>,
}

impl Token {
    /// A token of which is not known how long it holds: it is shown once.
    pub fn new(value: impl Into<String>) -> Token {
        Token { value: value.into().into(), life: None }
    }

    /// How long it holds, from now on.
    pub fn expires_in(self, life: Duration) -> Token {
        self.since(Instant::now(), life)
    }

    /// How long it holds, from `begun` on.
    pub(super) fn since(mut self, begun: Instant, life: Duration) -> Token {
        self.life = Some(Life::from(begun, life));
        self
    }
}

/// Without what is secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("life", &self.life).finish_non_exhaustive()
    }
}

/// How long something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// When to show something new.
    pub(crate) renew_at: Instant,
    pub(crate) ends_at: Instant,
}

impl Life {
    fn from(now: Instant, life: Duration) -> Life {
        let life = life.min(LONGEST);
        let margin = (life / 5).min(MARGIN_MAX);
        Life { renew_at: now + (life - margin).max(RENEWAL_MIN), ends_at: now + life }
    }
}

/// How a token comes to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// As the password, with or without a user name.
    Password {
        /// Some brokers want one.
        user_name: Option<String>,
    },
    /// As the data of this authentication method (5.0).
    Method(String),
    /// In the request of a WebSocket: `Authorization: Bearer`.
    WebSocket,
}

/// The authentication method [`OAUTH2_JWT`].
impl Default for Carrier {
    fn default() -> Carrier {
        Carrier::Method(OAUTH2_JWT.into())
    }
}

pub(super) struct TokenLogin {
    provider: Box<dyn TokenProvider>,
    carrier: Carrier,
    /// The last token, for the next connection. Locked while the next one is fetched, so that
    /// clients that share it fetch it once.
    kept: Mutex<Option<Token>>,
}

impl TokenLogin {
    pub(super) fn new(provider: Box<dyn TokenProvider>, carrier: Carrier) -> TokenLogin {
        TokenLogin { provider, carrier, kept: Mutex::new(None) }
    }

    pub(super) const fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    pub(super) async fn begin(&self) -> Result<Attempt, String> {
        let token = self.token().await?;
        let mut shown = Shown::default();
        match &self.carrier {
            Carrier::Password { user_name } => {
                shown.user_name.clone_from(user_name);
                shown.password = Some(token.value.as_bytes().to_vec());
            }
            Carrier::Method(name) => {
                shown.method = Some((name.clone(), token.value.as_bytes().to_vec()));
            }
            Carrier::WebSocket => shown.bearer = Some(token.value.as_ref().into()),
        }
        Ok(Attempt { shown, conversation: None, life: token.life })
    }

    /// One that is not to be renewed yet.
    async fn token(&self) -> Result<Token, String> {
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        if let Some(token) = &*kept
            && token.life.is_some_and(|life| now < life.renew_at)
        {
            return Ok(token.clone());
        }
        *kept = None;
        let token = self.provider.token().await.map_err(|error| format!("no token: {error}"))?;
        *kept = Some(token.clone()).filter(|token| token.life.is_some());
        Ok(token)
    }

    /// The broker does not take it.
    pub(super) fn forget(&self) {
        // Who holds the lock fetches another one.
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_good_time() {
        let now = Instant::now();
        let renewed =
            |s: f64| (Life::from(now, Duration::from_secs_f64(s)).renew_at - now).as_secs_f64();
        for (life_s, renewed_s) in
            [(3600.0, 3300.0), (10.0, 8.0), (1500.0, 1200.0), (0.5, 1.0), (0.0, 1.0)]
        {
            assert_eq!(renewed(life_s), renewed_s, "{life_s}");
        }
        assert!(renewed(1e18) > 1e9, "no overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_until_it_is_due_or_refused() {
        let count = std::sync::atomic::AtomicU64::new(0);
        let login = TokenLogin::new(
            Box::new(move || {
                let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                async move { Ok(Token::new(n.to_string()).expires_in(Duration::from_secs(10))) }
            }),
            Carrier::Password { user_name: None },
        );
        let shown = async || login.begin().await.unwrap().shown.password.unwrap();
        assert_eq!(shown().await, b"0");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(shown().await, b"0");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shown().await, b"1");
        login.forget();
        assert_eq!(shown().await, b"2");
    }

    #[tokio::test]
    async fn a_token_of_unknown_life_is_shown_once() {
        let count = std::sync::atomic::AtomicU64::new(0);
        let login = TokenLogin::new(
            Box::new(move || {
                let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                async move { Ok(Token::new(n.to_string())) }
            }),
            Carrier::default(),
        );
        for n in ["0", "1"] {
            let (method, data) = login.begin().await.unwrap().shown.method.unwrap();
            assert_eq!((&*method, &*data), (OAUTH2_JWT, n.as_bytes()));
        }
    }

    #[test]
    fn no_token_is_shown_in_debug() {
        let token = Token::new("s3cret").expires_in(Duration::from_secs(1));
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
