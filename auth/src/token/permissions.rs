//! What scopes and a claim permit.
//!
//! **Scopes** (`scope`: words with spaces between; or `scp`: a list, or words): `mqtt:pub:<filter>`
//! and `mqtt:sub:<filter>`, at any QoS, retained or not. A scope has no spaces, quotes, backslashes
//! or characters beyond ASCII, so those stand there as UTF-8 in `%` and two digits or *capital*
//! letters: `mqtt:sub:caf%C3%A9/#`. Small letters make a placeholder: `%c` is the client
//! identifier. `%25` is not accepted: a filter with a percent sign of its own cannot be a scope.
//!
//! Or the scope is the list of RFC 9431 (AIF, RFC 9237): `[["a/#", ["pub", "sub"]], ...]`, as JSON,
//! as a text with that JSON, or as base64url of that text.
//!
//! **A claim** holds a list of `{"action": "publish" | "subscribe" | "all", "filter": ..., "qos":
//! 0 to 2, "retain": true | false}`, the last two optional.
//!
//! Placeholders (`%u`, `%c`, `%{claim}`) are filled in as in rules when it is asked what the client
//! may do. What is none of this, or has no valid filter, permits nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use whimbrel_topics::filter::validate_topic_filter;

use super::json::{self, Object};
use super::{Profile, Silent};
use crate::{Action, Permission};

/// None if the token says nothing of MQTT and that is to leave everything to the rules.
pub fn permissions(claims: &Object, profile: &Profile) -> Option<Vec<Permission>> {
    let claim = profile.permissions.as_ref().and_then(|name| claims.get(&**name));
    let scopes = scopes(claims);
    let pairs = aif(claims);
    let speaks =
        claim.is_some() || pairs.is_some() || scopes.iter().any(|scope| scope.starts_with("mqtt:"));
    if !speaks && profile.silent == Silent::LeavesItToRules {
        return None;
    }
    let mut permissions: Vec<Permission> =
        scopes.iter().filter_map(|scope| of_scope(scope)).collect();
    permissions.extend(pairs.iter().flatten().flat_map(of_pair));
    for entry in claim.and_then(Value::as_array).into_iter().flatten() {
        permissions.extend(of_entry(entry));
    }
    Some(permissions)
}

/// The words of `scope` and `scp`.
fn scopes(claims: &Object) -> Vec<&str> {
    ["scope", "scp"]
        .into_iter()
        .flat_map(|name| json::texts(claims, name).unwrap_or_default())
        .flat_map(|words| words.split(' '))
        .filter(|word| !word.is_empty())
        .collect()
}

/// The pairs of a scope in the form of AIF.
fn aif(claims: &Object) -> Option<Vec<Value>> {
    let parsed = match claims.get("scope")? {
        Value::Array(pairs) => return pairs.iter().any(Value::is_array).then(|| pairs.clone()),
        Value::String(text) if text.starts_with('[') => serde_json::from_str(text),
        Value::String(text) => serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?),
        _ => return None,
    };
    match parsed {
        Ok(Value::Array(pairs)) => Some(pairs),
        _ => None,
    }
}

fn of_pair(pair: &Value) -> Vec<Permission> {
    let pair = pair.as_array().map(Vec::as_slice);
    let Some([Value::String(filter), Value::Array(actions)]) = pair else { return Vec::new() };
    let action = |action: &Value| match action.as_str() {
        Some("pub") => Some(Action::Publish),
        Some("sub") => Some(Action::Subscribe),
        _ => None,
    };
    let actions = actions.iter().filter_map(action);
    actions.filter_map(|action| permission(action, filter, 2, true)).collect()
}

fn of_scope(scope: &str) -> Option<Permission> {
    let (action, filter) = scope.strip_prefix("mqtt:")?.split_once(':')?;
    let action = match action {
        "pub" => Action::Publish,
        "sub" => Action::Subscribe,
        _ => return None,
    };
    permission(action, &decoded(filter)?, 2, true)
}

/// Without `%` and two digits or capital letters.
fn decoded(text: &str) -> Option<String> {
    let hex = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octet = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match octet {
            Some((2, 5)) => return None,
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => out.push(*first),
        }
    }
    String::from_utf8(out).ok()
}

fn of_entry(entry: &Value) -> Vec<Permission> {
    let Some(entry) = entry.as_object() else { return Vec::new() };
    // A field that is not known might narrow what is permitted.
    let known = |name: &String| matches!(&**name, "action" | "filter" | "qos" | "retain");
    let action = json::text(entry, "action").ok().flatten();
    let filter = json::text(entry, "filter").ok().flatten();
    let qos = entry.get("qos").map_or(Some(2), Value::as_u64).filter(|qos| *qos <= 2);
    let retain = entry.get("retain").map_or(Some(true), Value::as_bool);
    let (Some(action), Some(filter), Some(qos), Some(retain)) = (action, filter, qos, retain)
    else {
        return Vec::new();
    };
    let actions: &[Action] = match action {
        "publish" => &[Action::Publish],
        "subscribe" => &[Action::Subscribe],
        "all" => &[Action::Publish, Action::Subscribe],
        _ => &[],
    };
    if !entry.keys().all(known) {
        return Vec::new();
    }
    let qos = u8::try_from(qos).unwrap_or(0);
    actions.iter().filter_map(|action| permission(*action, filter, qos, retain)).collect()
}

/// With a valid filter.
fn permission(action: Action, filter: &str, qos: u8, retain: bool) -> Option<Permission> {
    validate_topic_filter(filter).ok()?;
    Some(Permission { action, filter: filter.into(), qos, retain })
}
