//! How a command ends when it does not end well.

use whimbrel_client::Error;
use whimbrel_codec::{ReasonCode, Version};

/// The exit code of `-W`, as scripts for mosquitto_sub expect it.
pub const TIMED_OUT: u8 = 27;

/// An exit code and one line for stderr.
#[derive(Debug)]
pub struct Failure {
    /// 1: usage or network; 27: `-W` ran out; otherwise the broker's reason code.
    pub code: u8,
    /// What happened and what to do.
    pub message: String,
    /// Not to be printed.
    pub quiet: bool,
}

impl Failure {
    /// To be printed.
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), quiet: false }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(1, message)
    }

    /// A client's error on a connection of `version`.
    pub fn client(error: &Error, version: Version) -> Failure {
        let hint = match error {
            Error::Connect(_, io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                "; is a broker running there?"
            }
            Error::Connect(..) => "; check host and port",
            Error::Refused(ReasonCode::BadUserNameOrPassword, _) => "; check -u and -P",
            Error::Refused(ReasonCode::NotAuthorized, _) => "; the broker may want -u and -P",
            Error::Refused(ReasonCode::UnsupportedProtocolVersion, _) => "; try another -V",
            Error::Refused(ReasonCode::ClientIdNotValid, _) => "; try another -i",
            _ => "",
        };
        let code = match error {
            Error::Refused(reason, _) if !version.is_v5() => return_code(*reason),
            Error::Refused(reason, _) => *reason as u8,
            Error::Disconnected(reason, _) if reason.is_error() => *reason as u8,
            _ => 1,
        };
        let tls_hint = error.tls_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Failure::new(code, format!("{error}{hint}{tls_hint}"))
    }
}

/// The return codes of CONNACK before 5.0.
fn return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdNotValid => 2,
        ReasonCode::ServerUnavailable => 3,
        ReasonCode::BadUserNameOrPassword => 4,
        ReasonCode::NotAuthorized => 5,
        other => other as u8,
    }
}
