//! By which methods clients of a listener can show who they are, in which order.

use crate::config::{Config, ConfigError, Listener, Login};

/// The methods of a listener, the first to be asked first.
pub(super) fn of(config: &Config, listener: &Listener) -> Vec<Login> {
    if let Some(chain) = &listener.authentication {
        return chain.clone();
    }
    let has = |login: &Login| match login {
        Login::Scram | Login::Password => !config.password_file.is_empty(),
        Login::Certificate => listener.asks_for_certificates(),
        Login::Anonymous => false,
    };
    let known = [Login::Certificate, Login::Scram, Login::Password];
    let mut chain: Vec<Login> = known.into_iter().filter(has).collect();
    let nobody_else = chain.is_empty() && listener.endpoint.is_local();
    if config.allow_anonymous.unwrap_or(nobody_else) {
        chain.push(Login::Anonymous);
    }
    chain
}

/// What is wrong with the methods of the listeners.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    for listener in &config.listeners {
        let error = |what: String| {
            Err(ConfigError {
                place: listener.origin.clone(),
                what: format!("listener {listener} {what}"),
            })
        };
        let chain = of(config, listener);
        if chain.is_empty() {
            let what = if listener.endpoint.is_local() {
                "would let nobody in: name a `password_file` or another way of authentication, or \
                 remove `allow_anonymous = false`"
            } else {
                "is open to the network without authentication; name a `password_file` or another \
                 way of authentication, bind it to a loopback address, or write \
                 `allow_anonymous = true`"
            };
            return error(what.into());
        }
        for login in chain {
            let missing = match login {
                Login::Scram | Login::Password if config.password_file.is_empty() => {
                    "there is no `password_file`"
                }
                Login::Certificate if !listener.asks_for_certificates() => {
                    "its [listener.tls] does not ask for client certificates: write \
                     `client_certificates = \"required\"` or \"optional\" there"
                }
                _ => continue,
            };
            return error(format!("is to authenticate by \"{}\", but {missing}", login.name()));
        }
    }
    Ok(())
}

/// What is allowed and should be thought over.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let readable = |listener: &&Listener| {
        !listener.endpoint.is_local()
            && listener.tls.is_none()
            && of(config, listener).contains(&Login::Password)
    };
    let warn = |listener: &Listener| {
        format!(
            "{}: passwords are readable on their way to listener {listener}; give it a [listener.tls]",
            listener.origin
        )
    };
    config.listeners.iter().filter(readable).map(warn).collect()
}
