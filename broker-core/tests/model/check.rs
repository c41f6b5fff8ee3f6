//! The model: what each operation means, and whether the broker did it.

use std::collections::BTreeMap;
use std::rc::Rc;

use whimbrel_codec::{
    Ack, Connect, Disconnect, Packet, Properties, Property, Publish, QoS, ReasonCode,
    RetainHandling, Subscription, Version, Will as WillOf,
};
use whimbrel_topics::matches;

use crate::client::{Answer, Client, Connection, Due, InFlight, Message, Session, Will};
use crate::harness::{Broker, Delivered, Got, id};
use crate::ops::{
    CLIENTS, ConnectOp, FILTERS, How, NAMES, Op, Options, PublishOp, SMALL, TOPICS, WILL_TOPICS,
};

/// A message for one member of a group.
struct Shared {
    group: &'static str,
    qos: QoS,
    /// First deliveries to any member.
    received: usize,
    /// How often a member was lost that may have had it.
    reissued: usize,
    /// The group or the member that had it is gone.
    optional: bool,
}

pub struct Model {
    pub broker: Broker,
    clients: [Client; CLIENTS],
    retained: BTreeMap<&'static str, Rc<Message>>,
    shared: BTreeMap<Vec<u8>, Shared>,
    now_s: u64,
    serial: u32,
}

impl Model {
    pub fn new(broker: Broker) -> Model {
        let now_s = broker.now.0 / 1000;
        let (retained, shared) = (BTreeMap::new(), BTreeMap::new());
        Model { broker, clients: Default::default(), retained, shared, now_s, serial: 0 }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Connect(connect) => self.connect(connect),
            Op::Subscribe { c, filter, options } => self.subscribe(*c, FILTERS[*filter], *options),
            Op::Unsubscribe { c, filter } => self.unsubscribe(*c, FILTERS[*filter]),
            Op::Publish(publish) => self.publish(publish),
            Op::PublishAgain { c } => self.publish_again(*c),
            Op::Release { c } => self.release(*c),
            Op::Answer { c, most } => self.answer(*c, *most),
            Op::Stall { c, stalled } => self.stall(*c, *stalled),
            Op::End { c, how } => self.end(*c, *how),
            Op::Advance { s } => self.advance(*s),
        }
    }

    // ---- connections and sessions

    fn connect(&mut self, op: &ConnectOp) {
        let v5 = op.version.is_v5();
        let mut list = vec![Property::SessionExpiryIntervalS(op.expiry_s)];
        if op.receive_maximum > 0 {
            list.push(Property::ReceiveMaximum(op.receive_maximum));
        }
        if op.small {
            list.push(Property::MaximumPacketSizeBytes(SMALL));
        }
        list.push(Property::TopicAliasMaximum(op.topic_alias_maximum));
        let will = op.will.as_ref().map(|will| {
            let message = self.message(WILL_TOPICS[op.c], Some(0), will.qos, None);
            let delay_s = if v5 { will.delay_s.into() } else { 0 };
            Will { message, retain: will.retain, delay_s, due_s: None }
        });
        let delay = [Property::WillDelayIntervalS(op.will.as_ref().map_or(0, |w| w.delay_s))];
        let connect = Connect {
            clean_start: op.clean_start,
            properties: if v5 { Properties::new(&list) } else { Properties::NONE },
            will: will.as_ref().map(|will| WillOf {
                topic: will.message.topic,
                payload: &will.message.payload,
                qos: will.message.qos,
                retain: will.retain,
                properties: if v5 { Properties::new(&delay) } else { Properties::NONE },
            }),
            ..Connect::new(op.version, NAMES[op.c])
        };
        let link = self.broker.open(op.shard, op.version);
        self.broker.send(link, &Packet::Connect(connect));

        // [MQTT-3.1.4-3]
        if let Some(old) = &self.clients[op.c].connection {
            let (old, stalled) = (old.link, old.stalled);
            assert!(!self.broker.links[old].open, "two connections of one client");
            self.absorb(op.c);
            let last = self.broker.received(old);
            assert!(stalled || last.is_empty());
            self.lose_connection(op.c);
        }
        if op.clean_start {
            self.end_session(op.c);
        }
        let client = &mut self.clients[op.c];
        let present = client.session.is_some();
        let session = client.session.get_or_insert_default();
        session.expiry_s = match (v5, op.clean_start) {
            (true, _) => op.expiry_s,
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        session.ends_s = None;
        session.will = will;
        session.repeat = session.in_flight.iter().map(|f| f.id).collect();
        let small = v5 && op.small;
        for in_flight in &mut session.in_flight {
            in_flight.here = false;
            in_flight.due.optional |= small && in_flight.due.is_long() && !in_flight.released;
        }
        for due in session.due.iter_mut().filter(|due| small && due.is_long()) {
            due.optional = true;
        }
        let limit = if v5 && op.receive_maximum > 0 { op.receive_maximum } else { u16::MAX };
        client.connection = Some(Connection {
            link,
            version: op.version,
            receive_maximum: limit.into(),
            small,
            stalled: false,
            answers: Default::default(),
            acks: Vec::new(),
            // 3.1 has no such flag.
            connack: Some(present && op.version != Version::V3_1),
            aliases: Vec::new(),
        });
    }

    fn end(&mut self, c: usize, how: How) {
        let Some(connection) = &self.clients[c].connection else { return };
        let (link, v5) = (connection.link, connection.version.is_v5());
        let Some(session) = &mut self.clients[c].session else { return };
        let mut reason = ReasonCode::Success;
        let mut list = Vec::new();
        match how {
            How::DisconnectWithExpiry(expiry_s) if v5 && session.expiry_s > 0 => {
                session.expiry_s = expiry_s;
                list.push(Property::SessionExpiryIntervalS(expiry_s));
            }
            How::DisconnectWithWill if v5 => reason = ReasonCode::DisconnectWithWill,
            How::DisconnectWithWill | How::Cut => {
                self.broker.cut(link);
                self.lose_connection(c);
                return;
            }
            _ => {}
        }
        if reason == ReasonCode::Success {
            session.will = None;
        }
        let properties = Properties::new(&list);
        self.broker.send(link, &Packet::Disconnect(Disconnect { reason, properties }));
        assert!(!self.broker.links[link].open, "[MQTT-3.14.4-2]");
        self.lose_connection(c);
    }

    fn lose_connection(&mut self, c: usize) {
        let Some(connection) = self.clients[c].connection.take() else { return };
        let Some(session) = &mut self.clients[c].session else { return };
        session.lost |= connection.stalled;
        session.due.retain(|due| due.qos != QoS::AtMostOnce);
        for in_flight in &mut session.in_flight {
            // Another member of the group may get it.
            if let Some(shared) = self.shared.get_mut(&in_flight.due.message.payload)
                && in_flight.due.qos == QoS::AtLeastOnce
            {
                shared.reissued += 1;
                in_flight.due.optional = true;
            }
        }
        if session.lost {
            self.shared.values_mut().for_each(|shared| shared.reissued += 1);
        }
        let at = |delay_s: u64| Some(self.now_s + delay_s);
        session.ends_s =
            if session.expiry_s == u32::MAX { None } else { at(session.expiry_s.into()) };
        let will_now = session.will.as_ref().is_some_and(|will| will.delay_s == 0);
        if let Some(will) = &mut session.will {
            will.due_s = at(will.delay_s);
        }
        if session.expiry_s == 0 {
            self.end_session(c);
        } else if will_now {
            self.fire_will(c);
        }
    }

    fn end_session(&mut self, c: usize) {
        self.fire_will(c);
        let Some(session) = self.clients[c].session.take() else { return };
        for shared in self.shared.values_mut().filter(|shared| shared.received == 0) {
            shared.optional |= session.lost;
        }
        self.groups_may_be_gone();
    }

    /// What nobody is left to receive.
    fn groups_may_be_gone(&mut self) {
        for shared in self.shared.values_mut() {
            let member = |client: &Client| {
                let session = client.session.as_ref();
                session.is_some_and(|s| s.subscriptions.contains_key(shared.group))
            };
            shared.optional |= !self.clients.iter().any(member);
        }
    }

    fn fire_will(&mut self, c: usize) {
        let Some(session) = &mut self.clients[c].session else { return };
        let Some(will) = session.will.take() else { return };
        self.route(Some(c), &will.message, will.retain);
    }

    fn advance(&mut self, s: u64) {
        for _ in 0..s {
            self.broker.advance(1000);
            self.now_s += 1;
            let now_s = self.now_s;
            for c in 0..CLIENTS {
                let Some(session) = &self.clients[c].session else { continue };
                if self.clients[c].connection.is_some() {
                    continue;
                }
                let due = |at: Option<u64>| at.is_some_and(|at| at <= now_s);
                if due(session.ends_s) {
                    self.end_session(c);
                } else if due(session.will.as_ref().and_then(|will| will.due_s)) {
                    self.fire_will(c);
                }
            }
            self.retained.retain(|_, m| m.expires_s.is_none_or(|at| at > now_s));
            self.absorb_all();
        }
    }

    fn stall(&mut self, c: usize, stalled: bool) {
        let Some(connection) = &mut self.clients[c].connection else { return };
        self.broker.links[connection.link].stalled = stalled;
        if stalled {
            connection.stalled = true;
            return;
        }
        let link = connection.link;
        // In two parts, as sockets do.
        let half = self.broker.waiting(link) / 2;
        self.broker.flush(link, half);
        self.broker.flush(link, usize::MAX);
        self.broker.settle();
        self.absorb(c);
        if let Some(connection) = &mut self.clients[c].connection {
            connection.stalled = false;
        }
    }

    // ---- subscriptions

    fn subscribe(&mut self, c: usize, filter: &'static str, mut options: Options) {
        let Some(connection) = &mut self.clients[c].connection else { return };
        let v5 = connection.version.is_v5();
        if !v5 {
            options.no_local = false;
            options.retain_as_published = false;
            options.retain_handling = RetainHandling::Send;
            options.id = false;
        }
        let shared = filter.starts_with("$share/");
        if shared {
            options.no_local = false;
            options.qos = QoS::ExactlyOnce;
        }
        let number = FILTERS.iter().position(|f| *f == filter).unwrap_or(0) as u32 + 1;
        let number = if options.id { number } else { 0 };
        let wanted = Subscription {
            filter,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
        };
        connection.acks.push(('S', 1));
        let link = connection.link;
        self.broker.subscribe_with(link, &[wanted], options.id.then_some(number));
        let small = connection.small;
        let Some(session) = &mut self.clients[c].session else { return };
        let existed = session.subscriptions.insert(filter, (options, number)).is_some();
        let send = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        for (topic, message) in &self.retained {
            if send && !shared && matches(filter, topic) {
                let mut due = Due {
                    message: message.clone(),
                    qos: message.qos.min(options.qos),
                    retain: true,
                    ids: if number > 0 { vec![number] } else { Vec::new() },
                    optional: false,
                };
                due.optional = small && due.is_long();
                session.due.push_back(due);
            }
        }
    }

    fn unsubscribe(&mut self, c: usize, filter: &'static str) {
        let Some(connection) = &mut self.clients[c].connection else { return };
        connection.acks.push(('U', 1));
        let link = connection.link;
        self.broker.unsubscribe(link, filter);
        if let Some(session) = &mut self.clients[c].session {
            session.subscriptions.remove(filter);
        }
        self.groups_may_be_gone();
    }

    // ---- messages

    fn message(
        &mut self,
        topic: &'static str,
        padding: Option<usize>,
        qos: QoS,
        expires_s: Option<u64>,
    ) -> Rc<Message> {
        self.serial += 1;
        let payload = match padding {
            Some(len) => format!("m{}{}", self.serial, " ".repeat(len)).into_bytes(),
            None => Vec::new(),
        };
        Rc::new(Message { topic, payload, qos, expires_s })
    }

    fn publish(&mut self, op: &PublishOp) {
        let Some(connection) = &self.clients[op.c].connection else { return };
        let (link, v5) = (connection.link, connection.version.is_v5());
        let topic = TOPICS[op.topic];
        let shared = topic.starts_with("s/");
        let padding = if shared { Some(0) } else { op.padding };
        // Empty payloads cannot be told from each other.
        let expiry_s = op.expiry_s.filter(|_| v5 && !shared && padding.is_some());
        // Due live and retained, one that may be too large could not be told from itself.
        let retain = op.retain && !shared && padding.is_none_or(|len| len == 0);
        let expires_s = expiry_s.map(|s| self.now_s + u64::from(s));
        let message = self.message(topic, padding, op.qos, expires_s);

        let Client { connection, session, last_id } = &mut self.clients[op.c];
        let (Some(connection), Some(session)) = (connection, session) else { return };
        let mut list: Vec<Property<'_>> = Vec::new();
        list.extend(expiry_s.map(Property::MessageExpiryIntervalS));
        let mut name = topic;
        if op.alias && v5 {
            let known = connection.aliases.iter().position(|t| *t == topic);
            match known {
                Some(_) => name = "",
                None => connection.aliases.push(topic),
            }
            let alias = known.unwrap_or(connection.aliases.len() - 1) as u16 + 1;
            list.push(Property::TopicAlias(alias));
        }
        let packet_id = (op.qos != QoS::AtMostOnce).then(|| {
            *last_id += 1;
            id(*last_id)
        });
        let publish = Publish {
            dup: false,
            qos: op.qos,
            retain,
            topic: name,
            packet_id,
            properties: Properties::new(&list),
            payload: &message.payload,
        };
        match op.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => connection.acks.push(('A', *last_id)),
            QoS::ExactlyOnce => {
                connection.acks.push(('R', *last_id));
                session.unreleased.push_back((*last_id, topic, message.payload.clone()));
            }
        }
        self.broker.send(link, &Packet::Publish(publish));
        self.route(Some(op.c), &message, retain);
        if op.release {
            self.release(op.c);
        }
    }

    /// [MQTT-4.3.3-10] It is not passed on a second time.
    fn publish_again(&mut self, c: usize) {
        let Client { connection: Some(connection), session: Some(session), .. } =
            &mut self.clients[c]
        else {
            return;
        };
        let Some((n, topic, payload)) = session.unreleased.front() else { return };
        connection.acks.push(('R', *n));
        let publish = Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            packet_id: Some(id(*n)),
            ..Publish::new(topic, payload)
        };
        self.broker.send(connection.link, &Packet::Publish(publish));
    }

    fn release(&mut self, c: usize) {
        let Client { connection: Some(connection), session: Some(session), .. } =
            &mut self.clients[c]
        else {
            return;
        };
        for (n, ..) in session.unreleased.drain(..) {
            connection.acks.push(('C', n));
            self.broker.send(connection.link, &Packet::PubRel(Ack::new(id(n))));
        }
    }

    /// To all who must receive it.
    fn route(&mut self, from: Option<usize>, message: &Rc<Message>, retain: bool) {
        if retain {
            match message.payload.is_empty() {
                true => self.retained.remove(message.topic),
                false => self.retained.insert(message.topic, message.clone()),
            };
        }
        for (c, client) in self.clients.iter_mut().enumerate() {
            let Some(session) = &mut client.session else { continue };
            let mut found = session.subscriptions.iter().filter(|(filter, (options, _))| {
                matches(filter, message.topic) && !(options.no_local && from == Some(c))
            });
            let Some((_, (first, number))) = found.next() else { continue };
            let (mut qos, mut kept, mut ids) =
                (first.qos, first.retain_as_published, vec![*number]);
            for (_, (options, number)) in found {
                qos = qos.max(options.qos);
                kept |= options.retain_as_published;
                ids.push(*number);
            }
            ids.retain(|&number| number != 0);
            ids.sort_unstable();
            let qos = qos.min(message.qos);
            let small = client.connection.as_ref().is_some_and(|connection| connection.small);
            if qos == QoS::AtMostOnce && client.connection.is_none() {
                continue;
            }
            let retain = retain && kept;
            let mut due = Due { message: message.clone(), qos, retain, ids, optional: false };
            due.optional = small && due.is_long();
            session.due.push_back(due);
        }
        self.route_shared(message);
    }

    fn route_shared(&mut self, message: &Rc<Message>) {
        for group in FILTERS.iter().copied().filter(|filter| filter.starts_with("$share/")) {
            let filter = group.splitn(3, '/').nth(2).unwrap_or_default();
            if !matches(filter, message.topic) {
                continue;
            }
            let member = |client: &&Client| {
                let session = client.session.as_ref();
                session.is_some_and(|s| s.subscriptions.contains_key(group))
            };
            let members: Vec<&Client> = self.clients.iter().filter(member).collect();
            // With QoS 0 it is lost where nobody is connected, or the one that gets it stalls.
            let sure = |client: &&Client| client.connection.as_ref().is_some_and(|c| !c.stalled);
            let connected = members.iter().filter(|client| client.connection.is_some());
            let all_sure = connected.clone().count() > 0 && connected.clone().all(sure);
            let optional = message.qos == QoS::AtMostOnce && !all_sure;
            if !members.is_empty() {
                let (qos, received, reissued) = (message.qos, 0, 0);
                let shared = Shared { group, qos, received, reissued, optional };
                self.shared.insert(message.payload.clone(), shared);
            }
        }
    }

    // ---- what came

    pub fn absorb_all(&mut self) {
        for c in 0..CLIENTS {
            self.absorb(c);
        }
        for client in &self.clients {
            let Some(connection) = &client.connection else { continue };
            assert!(self.broker.links[connection.link].open, "the broker closed a connection");
            if !connection.stalled {
                assert!(connection.acks.is_empty(), "not acknowledged: {:?}", connection.acks);
                assert!(connection.connack.is_none(), "no CONNACK");
            }
        }
    }

    fn absorb(&mut self, c: usize) {
        let Some(link) = self.clients[c].connection.as_ref().map(|c| c.link) else { return };
        for got in self.broker.received(link) {
            self.got(c, got);
        }
    }

    fn got(&mut self, c: usize, got: Got) {
        let Client { connection: Some(connection), session: Some(session), .. } =
            &mut self.clients[c]
        else {
            panic!("{got:?} for nobody");
        };
        let mut ack = |kind: char, n: u16| {
            let at = connection.acks.iter().position(|ack| *ack == (kind, n));
            connection.acks.remove(at.unwrap_or_else(|| panic!("{kind} {n} was not due")));
        };
        match got {
            Got::ConnAck { session_present, reason } => {
                assert_eq!(reason, ReasonCode::Success);
                // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
                assert_eq!(Some(session_present), connection.connack.take());
            }
            Got::Publish(delivered) => self.delivered(c, &delivered),
            Got::PubAck(n, reason) => {
                assert!(!reason.is_error());
                ack('A', n);
            }
            Got::PubRec(n, reason) => {
                assert!(!reason.is_error());
                ack('R', n);
            }
            Got::PubComp(n, reason) => {
                assert!(!reason.is_error());
                ack('C', n);
            }
            Got::PubRel(n, reason) => {
                assert!(!reason.is_error());
                if session.repeat.contains(&n) {
                    session.repeated(n, connection.small);
                }
                let known = session.in_flight.iter_mut().find(|f| f.id == n);
                let known = known.expect("PUBREL for what is in flight");
                assert!(known.released, "PUBREL before PUBREC");
                known.here = true;
                connection.answers.push_back(Answer::Comp(n));
            }
            Got::SubAck(n, codes) => {
                assert!(codes.iter().all(|code| *code <= 2), "{codes:?}");
                ack('S', n);
            }
            Got::UnsubAck(n, codes) => {
                assert!(codes.iter().all(|code| *code == 0 || *code == 0x11), "{codes:?}");
                ack('U', n);
            }
            Got::Disconnect(reason) => {
                let open = self.broker.links[connection.link].open;
                assert!(!open && reason == ReasonCode::SessionTakenOver, "{reason:?}");
            }
            Got::PingResp | Got::Auth(..) | Got::Other => panic!("{got:?} was not asked for"),
        }
    }

    fn delivered(&mut self, c: usize, got: &Delivered) {
        let now_s = self.now_s;
        let Client { connection: Some(connection), session: Some(session), .. } =
            &mut self.clients[c]
        else {
            return;
        };
        let (small, v5, stalled) =
            (connection.small, connection.version.is_v5(), connection.stalled);
        // [MQTT-3.1.2-24]
        assert!(!small || got.packet_len <= SMALL as usize, "too large: {got:?}");
        let expired = |due: &Due| due.message.expires_s.is_some_and(|at| at <= now_s);
        let late = stalled || session.lost;
        let again = session
            .in_flight
            .iter()
            .position(|f| got.dup && f.id == got.id && f.due.message.payload == got.payload);
        let due = match again {
            // [MQTT-4.4.0-1]
            Some(at) => {
                session.repeated(got.id, small);
                let at = session.in_flight.iter().position(|f| f.id == got.id).unwrap_or(at);
                let known = &mut session.in_flight[at];
                assert!(!known.released, "PUBLISH after PUBREC: {got:?}");
                known.here = true;
                known.due.clone()
            }
            None => {
                assert!(!got.dup || session.lost, "DUP on a first delivery: {got:?}");
                match self.shared.get_mut(&got.payload) {
                    Some(shared) => shared.receive(got),
                    None => {
                        let skip = |due: &Due| due.optional || expired(due);
                        let due = session.take_due(got, skip);
                        let due = due.unwrap_or_else(|| {
                            panic!("{got:?} is not what {} must receive", NAMES[c])
                        });
                        assert!(late || !expired(&due), "[MQTT-3.3.2-5] {got:?}");
                        due
                    }
                }
            }
        };
        assert_eq!((got.topic.as_str(), &got.payload), (due.message.topic, &due.message.payload));
        if !got.topic.starts_with("s/") {
            let ids: &[u32] = if v5 { &due.ids } else { &[] };
            assert_eq!((got.qos, got.retain), (due.qos, due.retain), "{got:?}");
            assert_eq!(got.subscription_ids, ids, "{got:?}");
            let left = due.message.expires_s.filter(|_| v5);
            let left = left.map(|at| at.saturating_sub(now_s) as u32);
            assert!(stalled || got.expiry_s == left, "[MQTT-3.3.2-6] {got:?}, not {left:?}");
        }
        if got.qos == QoS::AtMostOnce {
            return;
        }
        // [MQTT-2.2.1-4]
        if again.is_none()
            && let Some(at) = session.in_flight.iter().position(|f| f.id == got.id)
        {
            let was = session.in_flight.remove(at);
            let gone = was.due.optional && !was.here;
            assert!(gone, "{} is given to {got:?} while in flight for {was:?}", got.id);
            session.repeat.retain(|id| *id != got.id);
        }
        connection.answers.push_back(match got.qos {
            QoS::ExactlyOnce => Answer::Rec(got.id),
            _ => Answer::Ack(got.id),
        });
        if again.is_none() {
            session.in_flight.push(InFlight { id: got.id, due, released: false, here: true });
        }
        // [MQTT-3.3.4-9]
        let here = session.in_flight.iter().filter(|f| f.here).count();
        assert!(here <= connection.receive_maximum, "{here} in flight");
    }

    fn answer(&mut self, c: usize, most: usize) {
        for _ in 0..most {
            let Client { connection: Some(connection), session: Some(session), .. } =
                &mut self.clients[c]
            else {
                return;
            };
            let link = connection.link;
            let Some(answer) = connection.answers.pop_front() else { return };
            let (Answer::Ack(n) | Answer::Rec(n) | Answer::Comp(n)) = answer;
            let at = session.in_flight.iter().position(|f| f.id == n).expect("what is in flight");
            let ack = Ack::new(id(n));
            let packet = match answer {
                Answer::Rec(_) => {
                    session.in_flight[at].released = true;
                    Packet::PubRec(ack)
                }
                Answer::Ack(_) => {
                    session.in_flight.remove(at);
                    Packet::PubAck(ack)
                }
                Answer::Comp(_) => {
                    session.in_flight.remove(at);
                    Packet::PubComp(ack)
                }
            };
            self.broker.send(link, &packet);
            self.absorb(c);
        }
    }

    // ---- the end

    /// All come back and take what waits for them: nothing may be missing then.
    pub fn finish(&mut self) {
        for c in 0..CLIENTS {
            if self.clients[c].session.is_some() {
                self.connect(&ConnectOp {
                    c,
                    version: Version::V5,
                    clean_start: false,
                    expiry_s: u32::MAX,
                    receive_maximum: 0,
                    small: false,
                    topic_alias_maximum: 0,
                    will: None,
                    shard: 0,
                });
                self.absorb_all();
            }
        }
        for _ in 0..4 {
            for c in 0..CLIENTS {
                self.answer(c, usize::MAX);
                self.absorb_all();
            }
        }
        let now_s = self.now_s;
        for client in &self.clients {
            let Some(Session { due, in_flight, .. }) = &client.session else { continue };
            let expired = |due: &&Due| due.message.expires_s.is_some_and(|at| at <= now_s);
            let missing: Vec<&Due> =
                due.iter().filter(|due| !due.optional && !expired(due)).collect();
            assert!(missing.is_empty(), "never came: {missing:?}");
            let open: Vec<&InFlight> = in_flight.iter().filter(|f| !f.due.optional).collect();
            assert!(open.is_empty(), "never repeated: {open:?}");
        }
        for (payload, shared) in &self.shared {
            let name = String::from_utf8_lossy(payload);
            assert!(
                shared.optional || shared.received > 0,
                "nobody got {name} of {}",
                shared.group
            );
        }
    }
}

impl Shared {
    fn receive(&mut self, got: &Delivered) -> Due {
        self.received += 1;
        assert_eq!(got.qos, self.qos, "{got:?}");
        let most = if self.qos == QoS::AtLeastOnce { 1 + self.reissued } else { 1 };
        assert!(self.received <= most, "{got:?} came {} times to {}", self.received, self.group);
        let topic = TOPICS.iter().find(|topic| **topic == got.topic).expect("a topic of ours");
        let (payload, qos) = (got.payload.clone(), got.qos);
        let message = Message { topic, payload, qos, expires_s: None };
        let (message, ids) = (Rc::new(message), Vec::new());
        Due { message, qos, retain: false, ids, optional: false }
    }
}
