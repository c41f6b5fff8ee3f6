//! The rules of a broker, and which of them are for whom.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::{Client, Field};
use super::pattern::{Head, Pattern, Wanted};
use super::subject::Subject;
use super::{Access, Action};

/// From so many entries on, clients with the same list share it.
const SHARED_FROM: usize = 8;

/// Subjects by a value that they want.
type ByValue = HashMap<Box<str>, Vec<u32>>;

/// All rules of the broker.
#[derive(Default)]
pub struct Rules {
    /// Whether there are any; without, everything is allowed that no proof limits.
    limited: bool,
    /// The file they come from.
    name: Box<str>,
    rules: Vec<Rule>,
    /// The topics of all rules, in the order in which they decide.
    clauses: Vec<Clause>,
    /// How the topics of each clause begin: most need no closer look.
    heads: Vec<Head>,
    /// Clauses that are for everybody.
    everybody: Vec<u32>,
    /// Each other subject once, with its clauses.
    subjects: Vec<(Subject, Vec<u32>)>,
    /// Subjects by the value of a property.
    index: Vec<(Field, ByValue)>,
    /// Subjects that the index cannot find.
    others: Vec<u32>,
    shared: Mutex<HashSet<Arc<[u32]>>>,
}

/// One rule of a file.
#[derive(Debug)]
pub struct Rule {
    /// Where it begins, from 1.
    pub line: usize,
    /// What stands there.
    pub text: Box<str>,
    pub subject: Subject,
    pub effect: Effect,
}

/// What a rule does where it matches.
#[derive(Clone, Copy, Debug)]
pub struct Effect {
    pub allow: bool,
    pub publish: bool,
    /// To subscribe, and to receive.
    pub subscribe: bool,
    /// The highest QoS that is allowed; a denial is for all.
    pub qos: u8,
    /// Of PUBLISH. Allowed: whether messages may be retained. Denied: only those to be retained.
    pub retain: bool,
}

/// One topic of a rule.
#[derive(Debug)]
pub struct Clause {
    pub pattern: Pattern,
    pub effect: Effect,
    /// Index of its rule.
    pub rule: u32,
}

impl Rules {
    /// Everything is allowed to everybody whose proof does not say what it permits.
    pub fn open() -> Rules {
        Rules::default()
    }

    /// Whether there are no rules at all.
    pub fn is_open(&self) -> bool {
        !self.limited
    }

    /// The file they come from; empty if there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none; then nothing is allowed, unless they are [`Rules::open`].
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Of these rules, in this order; `name` is their file.
    pub(super) fn new(name: &str, rules: impl IntoIterator<Item = (Rule, Vec<Pattern>)>) -> Rules {
        let mut all = Rules { limited: true, name: name.into(), ..Rules::default() };
        let mut known: HashMap<Subject, usize> = HashMap::new();
        for (rule, patterns) in rules {
            let first = all.clauses.len() as u32;
            let (number, effect) = (all.rules.len() as u32, rule.effect);
            let clause = |pattern| Clause { pattern, effect, rule: number };
            all.heads.extend(patterns.iter().map(Pattern::head));
            all.clauses.extend(patterns.into_iter().map(clause));
            let clauses = first..all.clauses.len() as u32;
            if rule.subject.is_everybody() {
                all.everybody.extend(clauses);
            } else {
                let next = all.subjects.len();
                let at = *known.entry(rule.subject.clone()).or_insert(next);
                if at == next {
                    all.enter(&rule.subject, next as u32);
                    all.subjects.push((rule.subject.clone(), Vec::new()));
                }
                if let Some((_, list)) = all.subjects.get_mut(at) {
                    list.extend(clauses);
                }
            }
            all.rules.push(rule);
        }
        all
    }

    fn enter(&mut self, subject: &Subject, number: u32) {
        let Some((field, values)) = subject.exact() else {
            self.others.push(number);
            return;
        };
        let place = self.index.iter().position(|(known, _)| known == field).unwrap_or_else(|| {
            self.index.push((field.clone(), HashMap::new()));
            self.index.len() - 1
        });
        for value in values {
            if let Some((_, by_value)) = self.index.get_mut(place) {
                by_value.entry(value.into()).or_default().push(number);
            }
        }
    }

    /// The clauses that are for this client, apart from those for everybody, in order.
    pub(super) fn own(&self, client: &Client<'_>) -> Option<Arc<[u32]>> {
        let mut subjects = self.others.clone();
        for (field, by_value) in &self.index {
            for value in client.values(field) {
                subjects.extend(by_value.get(value).into_iter().flatten());
            }
        }
        subjects.sort_unstable();
        subjects.dedup();
        let found = subjects.iter().filter_map(|at| self.subjects.get(*at as usize));
        let mut own: Vec<u32> = found
            .filter(|(subject, _)| subject.includes(client))
            .flat_map(|(_, clauses)| clauses.iter().copied())
            .collect();
        own.sort_unstable();
        match own.len() {
            0 => None,
            1..SHARED_FROM => Some(own.into()),
            _ => Some(self.share(own)),
        }
    }

    fn share(&self, list: Vec<u32>) -> Arc<[u32]> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.get(&list[..]) {
            return known.clone();
        }
        // What nobody uses any more goes whenever the table would grow.
        if shared.len() == shared.capacity() {
            shared.retain(|list| Arc::strong_count(list) > 1);
        }
        let list: Arc<[u32]> = list.into();
        shared.insert(list.clone());
        list
    }

    /// The first of the clauses for everybody and `own` that decides, if any.
    pub(super) fn first(
        &self,
        own: &[u32],
        access: &Access<'_>,
        client: &Client<'_>,
    ) -> Option<u32> {
        let question = Question::new(access, client);
        let may = |at: usize| {
            question.wild || self.heads.get(at).is_some_and(|head| head.begins(&question.wanted))
        };
        let decides = |at: &u32| {
            may(*at as usize) && self.clause(*at).is_some_and(|clause| clause.decides(&question))
        };
        let of_own = own.iter().copied().find(decides);
        let end = of_own.unwrap_or(u32::MAX);
        self.everybody.iter().copied().take_while(|at| *at < end).find(decides).or(of_own)
    }

    /// In the order in which they decide.
    pub(super) fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    pub(super) fn rule(&self, clause: &Clause) -> Option<&Rule> {
        self.rules.get(clause.rule as usize)
    }

    pub(super) fn clause(&self, at: u32) -> Option<&Clause> {
        self.clauses.get(at as usize)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limited {
            true => write!(f, "Rules({:?}, {} rules)", self.name, self.rules.len()),
            false => f.write_str("Rules(open)"),
        }
    }
}

/// An access that a client wants, prepared for many comparisons.
pub struct Question<'a> {
    access: &'a Access<'a>,
    client: &'a Client<'a>,
    wanted: Wanted<'a>,
    /// The topic is a filter with wildcards.
    wild: bool,
}

impl<'a> Question<'a> {
    pub fn new(access: &'a Access<'a>, client: &'a Client<'a>) -> Question<'a> {
        let wild = access.action == Action::Subscribe && access.topic.contains(['+', '#']);
        Question { access, client, wanted: Wanted::new(access.topic), wild }
    }
}

impl Clause {
    /// Whether it allows or denies this.
    pub fn decides(&self, question: &Question<'_>) -> bool {
        let Question { access, client, wanted, wild } = question;
        let Effect { allow, publish, subscribe, qos, retain } = self.effect;
        let concerns = match access.action {
            Action::Publish if allow => publish && access.qos <= qos && (retain || !access.retain),
            Action::Publish => publish && (!retain || access.retain),
            Action::Subscribe => subscribe && (!allow || access.qos <= qos),
            Action::Receive => subscribe,
        };
        if !concerns {
            return false;
        }
        // A denial refuses whatever could bring what it denies.
        if *wild && !allow {
            return self.pattern.overlaps(access.topic, client, true);
        }
        self.pattern.head().begins(wanted) && self.pattern.covers(access.topic, client, !allow)
    }
}
