//! Why something is allowed or not, for people.

use std::fmt;

use super::client::{Client, Field};
use super::pattern::Pattern;
use super::table::{Clause, Rule};
use super::{Access, Action, Decision, Rights};
use crate::Permission;

/// How many rules that nearly decide are named.
const NEAR_MAX: usize = 5;

/// What decides on an access, and what nearly does; shown as one line or a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// As [`Rights::authorize`] has it.
    pub decision: Decision,
    /// What decides.
    pub verdict: Verdict,
    /// What would allow it but for one thing, if it is denied.
    pub near: Vec<String>,
}

/// What decides on an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There are no rules, and the client's proof says nothing of permissions.
    Open,
    /// A rule.
    Rule {
        /// Its file and line.
        place: String,
        /// What stands there.
        text: String,
        /// It denies a part of a topic filter, and so all of it.
        partly: bool,
    },
    /// A permission of the client's proof.
    Permission(Permission),
    /// Nothing, which denies.
    Nothing {
        /// There are rules.
        rules: bool,
        /// The proof says what it permits.
        permissions: bool,
    },
}

impl Rights {
    /// What decides on this, and why.
    pub fn explain(&self, access: &Access<'_>) -> Explanation {
        let decision = self.authorize(access);
        let client = self.client();
        let decisive = self.decisive(access);
        let clause = decisive.and_then(|at| self.rules.clause(at));
        let permissions = self.principal.permissions.as_deref();
        let mut granted = permissions.unwrap_or_default().iter();
        let permission = granted.find(|one| one.permits(access, &client));
        let verdict = match (clause, permission) {
            (Some(clause), _) => Verdict::Rule {
                place: self.place(clause),
                text: self.rules.rule(clause).map(|rule| rule.text.to_string()).unwrap_or_default(),
                partly: !clause.pattern.covers(access.topic, &client, !clause.effect.allow),
            },
            (None, Some(permission)) => Verdict::Permission(permission.clone()),
            (None, None) if self.is_unlimited() => Verdict::Open,
            (None, None) => Verdict::Nothing {
                rules: !self.rules.is_open(),
                permissions: permissions.is_some(),
            },
        };
        let near = match decision {
            Decision::Allowed => Vec::new(),
            Decision::Denied => self.near(access, decisive),
        };
        Explanation { decision, verdict, near }
    }

    /// Rules before the decisive one, and permissions, that would allow it but for one thing.
    fn near(&self, access: &Access<'_>, decisive: Option<u32>) -> Vec<String> {
        let client = self.client();
        let end = decisive.map_or(usize::MAX, |at| at as usize);
        // Rules for this client tell more than those for others.
        let (mut near, mut others) = (Vec::new(), Vec::new());
        for clause in self.rules.clauses().iter().take(end) {
            let Some(rule) = self.rules.rule(clause) else { continue };
            if !clause.effect.allow || !clause.pattern.resembles(access.topic, false) {
                continue;
            }
            let (list, why) = match foreign(clause, rule, access, &client) {
                None => (&mut near, misses(clause, access, &client)),
                Some(why) if clause.pattern.resembles(access.topic, true) => (&mut others, why),
                Some(_) => continue,
            };
            if list.len() < NEAR_MAX {
                list.push(self.line(clause, rule, &why));
            }
        }
        if decisive.is_none() {
            let permissions = self.principal.permissions.iter().flatten();
            near.extend(permissions.filter(|one| resembles(one, access)).map(|one| {
                let Permission { qos, retain, .. } = one;
                let retain = if *retain { "" } else { ", not retained" };
                format!("the proof permits {}{retain}, up to QoS {qos}", told(one))
            }));
        }
        near.append(&mut others);
        near.truncate(NEAR_MAX);
        near
    }

    fn place(&self, clause: &Clause) -> String {
        let line = self.rules.rule(clause).map_or(0, |rule| rule.line);
        format!("{}:{line}", self.rules.name())
    }

    fn line(&self, clause: &Clause, rule: &Rule, why: &str) -> String {
        format!("{} {why}: {}", self.place(clause), rule.text)
    }
}

/// Whether a permission has a topic in common with what is asked for, for some client.
fn resembles(permission: &Permission, access: &Access<'_>) -> bool {
    let pattern = Pattern::parse(&permission.filter);
    pattern.is_ok_and(|pattern| pattern.resembles(access.topic, false))
}

/// Why a rule is about something else, if it is.
fn foreign(
    clause: &Clause,
    rule: &Rule,
    access: &Access<'_>,
    client: &Client<'_>,
) -> Option<String> {
    if let Some(key) = rule.subject.unmet(client) {
        return Some(format!("is for others ({key})"));
    }
    let (named, what) = match access.action {
        Action::Publish => (clause.effect.publish, "publishing"),
        Action::Subscribe | Action::Receive => (clause.effect.subscribe, "subscribing"),
    };
    (!named).then(|| format!("is not about {what}"))
}

/// Why a clause that allows topics like this to this client does not allow this.
fn misses(clause: &Clause, access: &Access<'_>, client: &Client<'_>) -> String {
    let Clause { pattern, effect, .. } = clause;
    if let Some(level) = pattern.void(client) {
        format!("has `{level}`, for which this client has no value that can stand in a topic")
    } else if let Some((level, field)) = pattern.differs(access.topic, client) {
        let values: Vec<&str> = client.values(field).collect();
        format!(
            "has `{level}`, and the {} is {}",
            told_field(field),
            values.join(" or ").escape_debug()
        )
    } else if !pattern.covers(access.topic, client, false) {
        "allows only a part of this filter".into()
    } else if access.action != Action::Receive && access.qos > effect.qos {
        format!("allows no more than QoS {}", effect.qos)
    } else {
        "does not allow retained messages".into()
    }
}

fn told_field(field: &Field) -> String {
    match field {
        Field::User => "user".into(),
        Field::ClientId => "client id".into(),
        other => other.key().into(),
    }
}

fn told(permission: &Permission) -> String {
    match permission.action {
        Action::Publish => format!("publishing to {}", permission.filter),
        Action::Subscribe | Action::Receive => format!("subscribing to {}", permission.filter),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.decision {
            Decision::Allowed => "allowed",
            Decision::Denied => "denied",
        })?;
        match &self.verdict {
            Verdict::Open => f.write_str(": there are no rules")?,
            Verdict::Rule { place, text, partly } => {
                write!(f, " by {place}: {text}")?;
                if *partly {
                    f.write_str("\n  a part of the filter is denied, and so all of it")?;
                }
            }
            Verdict::Permission(permission) => {
                write!(f, ": no rule decides, and the proof permits {}", told(permission))?;
            }
            Verdict::Nothing { rules, permissions } => f.write_str(match (rules, permissions) {
                (true, true) => ": no rule decides, and the proof does not permit it",
                (true, false) => ": no rule allows it",
                (false, _) => ": the proof does not permit it",
            })?,
        }
        self.near.iter().try_for_each(|near| write!(f, "\n  {near}"))
    }
}
