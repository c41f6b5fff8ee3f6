//! Enhanced authentication of one connection, and the renewal of what was shown.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use whimbrel_client_core::Error as CommandError;
use whimbrel_codec::{Auth, Property, ReasonCode};

use crate::login::{Answering, Attempt, Conversation, Life};
use crate::state::Shared;
use crate::{Error, PropertyList, Status};

type Fetching = Pin<Box<dyn Future<Output = Result<Attempt, Error>> + Send>>;

pub(super) struct Authentication {
    shared: Arc<Shared>,
    /// The authentication method, if there is one.
    method: Option<String>,
    /// What the broker is to say something to.
    conversation: Option<Box<dyn Conversation>>,
    answering: Option<Answering>,
    /// An AUTH that is to be sent.
    waiting: Option<(ReasonCode, Vec<u8>)>,
    /// How long what was shown last holds.
    life: Option<Life>,
    renew_at: Option<Instant>,
    fetching: Option<Fetching>,
    /// Fetches that failed one after another.
    failures: u32,
    /// A renewal that the broker has not answered.
    is_renewing: bool,
}

/// What came of [`Authentication::poll`].
pub(super) enum Renewal {
    /// It goes on.
    OnThisConnection,
    /// There is something new to show, which only a new connection can.
    ByNewConnection(Life),
}

impl Authentication {
    /// None if there is nothing to do after CONNECT.
    pub(super) fn new(shared: Arc<Shared>, attempt: Attempt) -> Option<Box<Authentication>> {
        if attempt.shown.method.is_none() && attempt.life.is_none() {
            return None;
        }
        Some(Box::new(Authentication {
            shared,
            method: attempt.shown.method.map(|(method, _)| method),
            conversation: attempt.conversation,
            answering: None,
            waiting: None,
            life: attempt.life,
            renew_at: None,
            fetching: None,
            failures: 0,
            is_renewing: false,
        }))
    }

    /// When [`Authentication::poll`] has something to do by itself.
    pub(super) const fn next_renewal(&self) -> Option<Instant> {
        self.renew_at
    }

    /// The connection counts from now on.
    pub(super) fn handle_connected(&mut self) -> Result<(), Error> {
        if self.conversation.is_some() || self.answering.is_some() {
            return Err(Error::Login("the broker did not show who it is".into()));
        }
        self.renew_at = self.life.map(|life| life.renew_at);
        Ok(())
    }

    /// The broker consents: by CONNACK, or by AUTH to a renewal.
    pub(super) fn handle_success(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.answering.is_some() || self.waiting.is_some() {
            return Err(Error::Login("the broker did not wait for the proof".into()));
        }
        if let Some(conversation) = self.conversation.take() {
            conversation.finish(data).map_err(Error::Login)?;
        }
        self.renew_at = self.life.map(|life| life.renew_at);
        if std::mem::take(&mut self.is_renewing) {
            self.shared.tell(Status::Renewed);
        }
        Ok(())
    }

    /// The broker wants to know more.
    pub(super) fn handle_challenge(&mut self, data: Vec<u8>) -> Result<(), Error> {
        let Some(conversation) = self.conversation.take() else {
            let what = "the broker asks for a further step, which the method does not have";
            return Err(Error::Login(what.into()));
        };
        self.answering = Some(conversation.answer(data));
        Ok(())
    }

    /// Ready whenever something has gone on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll<Renewal>, Error> {
        if let Some(answering) = &mut self.answering
            && let Poll::Ready(answer) = answering.as_mut().poll(cx)
        {
            self.answering = None;
            let (data, conversation) = answer.map_err(Error::Login)?;
            self.conversation = Some(conversation);
            self.waiting = Some((ReasonCode::ContinueAuthentication, data));
        }
        if self.renew_at.is_some_and(|at| at <= Instant::now()) {
            self.renew_at = None;
            let shared = self.shared.clone();
            self.fetching = Some(Box::pin(async move { shared.config.login.begin().await }));
        }
        if let Some(fetching) = &mut self.fetching
            && let Poll::Ready(attempt) = fetching.as_mut().poll(cx)
        {
            self.fetching = None;
            return Ok(Poll::Ready(self.handle_fetched(attempt)));
        }
        Ok(self.send()?.map_or(Poll::Pending, Poll::Ready))
    }

    fn handle_fetched(&mut self, attempt: Result<Attempt, Error>) -> Renewal {
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => {
                self.failures += 1;
                let retry_in = self.shared.config.backoff.wait(self.failures);
                self.renew_at = Some(Instant::now() + retry_in);
                self.shared.tell(Status::RenewalFailed { why: Arc::new(error), retry_in });
                return Renewal::OnThisConnection;
            }
        };
        self.failures = 0;
        let ending = self.life;
        self.life = attempt.life;
        match (attempt.shown.method, ending) {
            (Some((_, data)), _) => {
                self.conversation = attempt.conversation;
                self.waiting = Some((ReasonCode::Reauthenticate, data));
                self.is_renewing = true;
                Renewal::OnThisConnection
            }
            (None, Some(ending)) => Renewal::ByNewConnection(ending),
            (None, None) => Renewal::OnThisConnection,
        }
    }

    /// Sends the AUTH that waits; none if it did not go, or there is none.
    fn send(&mut self) -> Result<Option<Renewal>, Error> {
        let (Some((reason, data)), Some(method)) = (&self.waiting, &self.method) else {
            return Ok(None);
        };
        let list: PropertyList =
            [Property::AuthenticationMethod(method), Property::AuthenticationData(data)]
                .into_iter()
                .collect();
        let auth = Auth { reason: *reason, properties: list.view() };
        let sent = self.shared.lock().core.authenticate(&auth);
        match sent {
            Ok(()) => self.waiting = None,
            // Once there is room again; or the connection is about to end.
            Err(CommandError::Full | CommandError::NotConnected) => return Ok(None),
            // The broker's maximum packet size does not count for CONNECT.
            Err(CommandError::PacketTooLarge) if self.is_renewing => {
                (self.waiting, self.conversation, self.is_renewing) = (None, None, false);
                return Ok(self.life.map(Renewal::ByNewConnection));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Some(Renewal::OnThisConnection))
    }
}
