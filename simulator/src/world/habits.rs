//! The clients of a run: publishers, subscribers of several kinds, members of groups, visitors.

use whimbrel_codec::Version;

use super::World;
use crate::client::{Client, Habits};
use crate::real::Ways;
use crate::rng::Rng;

/// Index of the client that has no session and reads what is retained.
pub const READER: usize = 0;

fn version(rng: &mut Rng) -> Version {
    if rng.percent(60) { Version::V5 } else { Version::V3_1_1 }
}

fn expiry_s(rng: &mut Rng) -> u32 {
    *rng.pick(&[5, 60, 3600, 1_000_000, u32::MAX])
}

fn list(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

fn habits(rng: &mut Rng) -> Habits {
    Habits {
        version: version(rng),
        clean: false,
        expiry_s: expiry_s(rng),
        receive_maximum: *rng.pick(&[1, 3, 20, 65_535]),
        will_percent: 0,
        topics: Vec::new(),
        filters: Vec::new(),
        publish_weight: 0,
        ways: None,
    }
}

/// All clients of a run.
///
/// `real`: two of three are clients of `client-core`.
pub fn clients(rng: &mut Rng, real: bool) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut reader = habits(rng);
    (reader.clean, reader.filters) = (true, list(&["r/#"]));
    clients.push(Client::new("reader", reader));
    for n in 0..rng.between(2, 3) {
        let mut publisher = habits(rng);
        publisher.publish_weight = rng.between(20, 60);
        publisher.will_percent = *rng.pick(&[0, 50, 100]);
        publisher.topics = list(&["q/0", "q/1", "q/2", "s/0", "s/1"]);
        publisher.topics.extend([format!("r/{n}/a"), format!("r/{n}/b")]);
        clients.push(Client::new(&format!("publisher{n}"), publisher));
    }
    for n in 0..rng.between(2, 4) {
        let mut subscriber = habits(rng);
        let all = ["q/#", "q/0", "q/+", "q/1", "#", "w/#", "+/0", "r/#", "r/0/+"];
        subscriber.filters = list(&all);
        subscriber.filters.retain(|_| rng.percent(50));
        subscriber.will_percent = *rng.pick(&[0, 0, 60]);
        if rng.one_in(3) {
            subscriber.topics = list(&["q/0", "q/1"]);
            subscriber.publish_weight = 10;
        }
        clients.push(Client::new(&format!("subscriber{n}"), subscriber));
    }
    for n in 0..rng.between(0, 3) {
        let mut member = habits(rng);
        member.filters = list(if n < 2 { &["$share/g/s/#"] } else { &["$share/h/s/+"] });
        clients.push(Client::new(&format!("member{n}"), member));
    }
    let mut visitor = habits(rng);
    (visitor.clean, visitor.filters) = (true, list(&["q/#", "w/#"]));
    visitor.topics = list(&["q/2", "q/0"]);
    visitor.publish_weight = 10;
    visitor.will_percent = 50;
    clients.push(Client::new("visitor", visitor));
    for client in clients.iter_mut().filter(|_| real) {
        let lent = World::may_lend(client.habits.version);
        client.habits.ways = rng.percent(66).then(|| Ways::new(rng, lent));
    }
    clients
}
