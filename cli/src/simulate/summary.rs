//! What a fleet has done, for people and for scripts.

use std::collections::BTreeMap;

use serde::Serialize;

/// Of a whole run. `docs/simulate.md` documents the keys of its JSON.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub format: &'static str,
    /// Name of the file.
    pub fleet: String,
    pub broker: String,
    pub seed: u64,
    pub elapsed_s: f64,
    pub total: Counts,
    pub groups: Vec<Counts>,
}

/// Of the devices of one group, or of all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Empty for all.
    pub name: String,
    pub devices: u64,
    /// Devices that are connected; at the end, just before all go.
    pub connected: u64,
    /// Connections that the broker accepted.
    pub connects: u64,
    /// Attempts that failed, and connections that were lost without being asked for.
    pub failures: u64,
    /// How many for which reason.
    pub failure_reasons: BTreeMap<String, u64>,
    /// Times that a device went to sleep.
    pub sleeps: u64,
    pub published: u64,
    pub published_bytes: u64,
    /// Of QoS 1 and 2: those that the broker has acknowledged.
    pub acknowledged: u64,
    /// Not taken by the broker, or by a queue that was full.
    pub refused: u64,
    /// How many for which reason.
    pub refusal_reasons: BTreeMap<String, u64>,
    /// Messages that came to the devices.
    pub received: u64,
    pub replies: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.devices += other.devices;
        self.connected += other.connected;
        self.connects += other.connects;
        self.failures += other.failures;
        self.sleeps += other.sleeps;
        self.published += other.published;
        self.published_bytes += other.published_bytes;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.received += other.received;
        self.replies += other.replies;
        for (mine, theirs) in [
            (&mut self.failure_reasons, &other.failure_reasons),
            (&mut self.refusal_reasons, &other.refusal_reasons),
        ] {
            for (reason, count) in theirs {
                *mine.entry(reason.clone()).or_default() += count;
            }
        }
    }

    /// All of them together.
    pub fn total(groups: &[Counts]) -> Counts {
        let mut total = Counts::default();
        groups.iter().for_each(|group| total.add(group));
        total
    }
}

impl Summary {
    /// One line.
    pub fn to_json(&self) -> String {
        // Only maps whose keys are no strings cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A row for each group.
    pub fn to_table(&self) -> String {
        let mut lines = vec![format!(
            "{} at {}: {:.1} s, seed {}",
            self.fleet, self.broker, self.elapsed_s, self.seed
        )];
        lines.push(row(&[
            "group",
            "devices",
            "connects",
            "failures",
            "published",
            "per s",
            "refused",
            "received",
            "replies",
        ]
        .map(String::from)));
        let total = Counts { name: "all".into(), ..self.total.clone() };
        let alone = self.groups.len() == 1;
        for group in self.groups.iter().chain((!alone).then_some(&total)) {
            lines.push(row(&[
                group.name.clone(),
                group.devices.to_string(),
                group.connects.to_string(),
                group.failures.to_string(),
                group.published.to_string(),
                format!("{:.1}", group.published as f64 / self.elapsed_s.max(1e-3)),
                group.refused.to_string(),
                group.received.to_string(),
                group.replies.to_string(),
            ]));
        }
        for (what, reasons) in [
            ("connections", &self.total.failure_reasons),
            ("messages", &self.total.refusal_reasons),
        ] {
            lines.extend(reasons.iter().map(|(why, count)| format!("{count} {what}: {why}")));
        }
        lines.join("\n")
    }

    /// What makes a run a failed one: not one device came through.
    pub fn failure(&self) -> Option<String> {
        if self.total.connects > 0 || self.total.devices == 0 {
            return None;
        }
        let reasons = self.total.failure_reasons.iter();
        let reason = reasons.max_by_key(|(_, count)| **count).map(|(reason, _)| reason.as_str());
        Some(format!("no device could connect: {}", reason.unwrap_or("there was not enough time")))
    }
}

fn row(cells: &[String; 9]) -> String {
    let [name, numbers @ ..] = cells;
    let numbers: Vec<String> = numbers.iter().map(|cell| format!("{cell:>10}")).collect();
    format!("{name:<20}{}", numbers.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(groups: Vec<Counts>) -> Summary {
        Summary {
            format: "whimbrel-simulate 1",
            fleet: "f.toml".into(),
            broker: "b".into(),
            seed: 1,
            elapsed_s: 2.0,
            total: Counts::total(&groups),
            groups,
        }
    }

    #[test]
    fn groups_are_added_up() {
        let reasons = BTreeMap::from([("not authorized".to_string(), 2)]);
        let group = |name: &str| Counts {
            name: name.into(),
            devices: 3,
            connects: 4,
            published: 5,
            refused: 2,
            refusal_reasons: reasons.clone(),
            ..Counts::default()
        };
        let text = summary(vec![group("a"), group("b")]).to_table();
        assert!(text.contains("4 messages: not authorized"), "{text}");
        let all = text.lines().find(|line| line.starts_with("all")).unwrap();
        let words: Vec<_> = all.split_whitespace().collect();
        assert_eq!(words, ["all", "6", "8", "0", "10", "5.0", "4", "0", "0"]);
    }

    #[test]
    fn a_fleet_that_nobody_let_in_has_failed() {
        let refused = Counts {
            devices: 1,
            failures: 2,
            failure_reasons: BTreeMap::from([("bad password".into(), 2)]),
            ..Counts::default()
        };
        let what = summary(vec![refused]).failure().unwrap();
        assert_eq!(what, "no device could connect: bad password");
        let fine = Counts { devices: 1, connects: 1, ..Counts::default() };
        assert_eq!(summary(vec![fine]).failure(), None);
    }
}
