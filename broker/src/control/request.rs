//! Requests of the control socket, and their answers as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::{Value, json};
use whimbrel_auth::{Method, Verdict};
use whimbrel_broker_core::{
    Answer, DisconnectOutcome, Fate, Group, Judgement, Question, Receiver, Wanted,
};
use whimbrel_topics::{parse_shared, validate_topic_filter, validate_topic_name};

use super::ask::{Addressed, Ask, Reply};
use crate::event_loop::Peers;

/// Clients of a page, and receivers of a message, unless the request says how many.
const FEW: usize = 20;
/// And at most.
const MANY: usize = 1000;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// May a client do this, why, and who gets it?
    Explain {
        client: String,
        user: Option<String>,
        publish: Option<String>,
        subscribe: Option<String>,
        #[serde(default)]
        qos: u8,
        #[serde(default)]
        retain: bool,
        #[serde(default)]
        payload_bytes: u64,
        most: Option<usize>,
    },
    /// Who is here? `from` is `next` of the page before.
    Clients { from: Option<String>, most: Option<usize> },
    /// End a client's connection.
    Disconnect { client: String, user: Option<String> },
}

/// The answer to a line.
///
/// # Errors
/// What is wrong with it, or why there is none.
pub(super) fn answer(line: &[u8], peers: &Peers) -> Result<Value, String> {
    let request = serde_json::from_slice(line).map_err(|error| format!("the request: {error}"))?;
    let most = |most: Option<usize>| most.unwrap_or(FEW).min(MANY);
    match request {
        Request::Explain {
            client,
            user,
            publish,
            subscribe,
            qos,
            retain,
            payload_bytes,
            most: few,
        } => {
            let (topic, wanted) = match (publish, subscribe) {
                (Some(topic), None) => (topic, Wanted::Publish { retain, payload_bytes }),
                (None, Some(filter)) => (filter, Wanted::Subscribe),
                _ => return Err("the request: name either `publish` or `subscribe`".into()),
            };
            check(&topic, wanted, qos)?;
            let (client_id, user) = (client.into(), user.map(Into::into));
            let most = most(few);
            explain(Question { client_id, user, wanted, topic: topic.into(), qos, most }, peers)
        }
        Request::Clients { from, most: few } => clients(from.as_deref(), most(few), peers),
        Request::Disconnect { client, user } => disconnect(client, user, peers),
    }
}

fn check(topic: &str, wanted: Wanted, qos: u8) -> Result<(), String> {
    if qos > 2 {
        return Err(format!("the request: `qos` must be 0, 1 or 2, not {qos}"));
    }
    let checked = match wanted {
        Wanted::Publish { .. } => validate_topic_name(topic),
        Wanted::Subscribe => parse_shared(topic).and_then(|shared| match shared {
            Some(_) => Ok(()),
            None => validate_topic_filter(topic),
        }),
    };
    checked.map_err(|error| format!("the request: {}: {error}", topic.escape_debug()))
}

// ---- explain

fn explain(question: Question, peers: &Peers) -> Result<Value, String> {
    let (client_id, topic) = (question.client_id.clone(), question.topic.clone());
    let (wanted, most) = (question.wanted, question.most);
    let mut all = Answer::default();
    let mut clients = Vec::new();
    for reply in Ask::Explain(question).of_all(peers)? {
        let Reply::Explain { answer, clients: mut found } = reply else { continue };
        clients.append(&mut found);
        all.judgement = all.judgement.or(answer.judgement);
        all.more += answer.more;
        all.receivers.extend(answer.receivers);
        all.groups.extend(answer.groups);
    }
    let Some(judgement) = all.judgement else {
        return Err(several(
            &client_id,
            clients.iter().map(|(client, _)| {
                client.principal.as_ref().map_or("", |principal| &*principal.name)
            }),
        ));
    };
    let mut value = judged(&judgement);
    value["client"] = match clients.first() {
        Some(client) => shown(client),
        None => Value::Null,
    };
    match wanted {
        Wanted::Subscribe if judgement.allowed => {
            let (count, all) = peers.shared.retained_count(&topic);
            value["retained"] = json!({ "count": count, "all_counted": all });
        }
        Wanted::Publish { .. } if judgement.allowed => {
            all.more += all.receivers.len().saturating_sub(most);
            all.receivers.truncate(most);
            value["receivers"] = all.receivers.iter().map(receiver).collect();
            value["more_receivers"] = all.more.into();
            // Between two shards' looks the turn may have gone on.
            let groups: BTreeMap<u32, &Group> = all.groups.iter().map(|g| (g.key, g)).collect();
            value["more_groups"] = groups.len().saturating_sub(most).into();
            value["groups"] = groups.into_values().take(most).map(group).collect();
        }
        _ => {}
    }
    Ok(value)
}

fn judged(judgement: &Judgement) -> Value {
    let Judgement { allowed, limit, rules, qos, note } = judgement;
    let mut value = json!({ "allowed": allowed, "qos": qos });
    if let Some(note) = note {
        value["note"] = (*note).into();
    }
    if let Some(limit) = limit {
        value["decided_by"] = "limit".into();
        value["text"] = format!("denied: {limit}").into();
    }
    if let Some(rules) = rules {
        value["text"] = rules.to_string().into();
        value["decided_by"] = match &rules.verdict {
            Verdict::Open => "no rules".into(),
            Verdict::Rule { place, text, .. } => {
                value["rule"] = json!({ "place": place, "text": text });
                "rule".into()
            }
            Verdict::Permission(_) => "token".into(),
            Verdict::Nothing { .. } => "nothing".into(),
        };
    }
    value
}

fn receiver(receiver: &Receiver) -> Value {
    let Receiver { client_id, user, qos, filters, fate } = receiver;
    let mut value = json!({ "client": client_id, "user": user, "qos": qos, "filters": filters });
    let (fate, why) = match fate {
        Fate::Sent => ("sent", None),
        Fate::Queued => ("queued", None),
        Fate::Dropped(why) => ("dropped", Some(*why)),
    };
    value["fate"] = fate.into();
    if let Some(why) = why {
        value["why"] = why.into();
    }
    value
}

fn group(group: &Group) -> Value {
    let Group { name, members, next, .. } = group;
    json!({ "name": name, "members": members, "next": receiver(next) })
}

// ---- clients

fn clients(from: Option<&str>, most: usize, peers: &Peers) -> Result<Value, String> {
    let (mut shard, mut slot) = match from {
        None => (0, 0),
        Some(from) => place(from).ok_or("the request: `from` must be `next` of another answer")?,
    };
    let mut all: Vec<Value> = Vec::new();
    while shard < peers.mailboxes.len() {
        let ask = Ask::Clients { from: slot, most: most - all.len() };
        let Some(Reply::Clients { clients, next }) = ask.of_one(shard, peers)? else { break };
        all.extend(clients.iter().map(shown));
        if let Some(next) = next {
            return Ok(json!({ "clients": all, "next": format!("{shard}:{next}") }));
        }
        (shard, slot) = (shard + 1, 0);
    }
    Ok(json!({ "clients": all, "next": null }))
}

fn place(text: &str) -> Option<(usize, usize)> {
    let (shard, slot) = text.split_once(':')?;
    Some((shard.parse().ok()?, slot.parse().ok()?))
}

fn shown((client, address): &Addressed) -> Value {
    let principal = client.principal.as_deref();
    json!({
        "client": client.client_id,
        "user": principal.map_or("", |principal| &*principal.name),
        "method": principal.map_or(Method::Anonymous, |principal| principal.method),
        "groups": principal.map_or(&[][..], |principal| &principal.groups),
        "connected": client.conn.is_some(),
        "address": address.as_ref().map(SocketAddr::to_string),
        "subscriptions": client.subscriptions,
        "queued": client.queued,
    })
}

// ---- disconnect

fn disconnect(client_id: String, user: Option<String>, peers: &Peers) -> Result<Value, String> {
    let name = client_id.clone();
    let mut all = DisconnectOutcome::default();
    for reply in (Ask::Disconnect { client_id, user }).of_all(peers)? {
        let Reply::Disconnect(outcome) = reply else { continue };
        all.users.extend(outcome.users);
        all.was_connected |= outcome.was_connected;
    }
    match &all.users[..] {
        [] => Err(format!("there is no client `{}`", name.escape_debug())),
        [user] => {
            let was_connected = all.was_connected;
            tracing::info!(client = name, %user, was_connected, "an operator disconnects a client");
            Ok(json!({ "client": name, "user": user, "was_connected": was_connected }))
        }
        users => Err(several(&name, users.iter().map(|user| &**user))),
    }
}

fn several<'a>(client_id: &str, users: impl Iterator<Item = &'a str>) -> String {
    let name = |user: &str| match user {
        "" => "nobody".into(),
        user => format!("`{}`", user.escape_debug()),
    };
    let users: Vec<String> = users.map(name).collect();
    let (client_id, users) = (client_id.escape_debug(), users.join(", "));
    format!("several users have a client `{client_id}`: {users}; name the user")
}
