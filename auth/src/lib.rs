//! Who a client is, and what it may do: the ports that the broker asks.
//!
//! The core asks [`Authenticator::connect`] once per CONNECT. Only [`Anonymous`] stands behind it
//! so far: it lets everybody in and knows no method of enhanced authentication.

/// What a CONNECT brings as proof of identity.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The client identifier; the assigned one if the client sent none.
    pub client_id: &'a str,
    /// From CONNECT.
    pub user_name: Option<&'a str>,
    /// From CONNECT.
    pub password: Option<&'a [u8]>,
    /// The authentication method of 5.0.
    pub method: Option<&'a str>,
    /// The authentication data of 5.0.
    pub data: Option<&'a [u8]>,
}

/// What became of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client may connect.
    Accepted,
    /// Reason code 0x8C: the method is unknown.
    UnknownMethod,
    /// Reason code 0x86.
    BadUserNameOrPassword,
    /// Reason code 0x87.
    NotAuthorized,
}

/// Decides who may connect.
pub trait Authenticator: Send + Sync {
    /// Never blocks.
    fn connect(&self, credentials: &Credentials<'_>) -> Verdict;
}

/// Everybody may connect, whatever name and password they show.
#[derive(Debug, Default)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn connect(&self, credentials: &Credentials<'_>) -> Verdict {
        if credentials.method.is_some() { Verdict::UnknownMethod } else { Verdict::Accepted }
    }
}
