//! Values that change from message to message.

use serde::Deserialize;
use serde_json::{Value, json};

/// How a value comes about, as in the file: `{ walk = { min = 15, max = 30, step = 0.5 } }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Field {
    /// A number that moves by up to `step` each time and stays between `min` and `max`.
    Walk {
        min: f64,
        max: f64,
        step: f64,
        /// Somewhere between if not given.
        start: Option<f64>,
        /// Digits after the point.
        #[serde(default = "two")]
        digits: u8,
    },
    /// Any number between `min` and `max`.
    Range {
        min: f64,
        max: f64,
        #[serde(default)]
        digits: u8,
    },
    /// A number that grows by `step`, and begins anew when it would pass `max`.
    Counter {
        #[serde(default)]
        start: i64,
        #[serde(default = "one")]
        step: i64,
        max: Option<i64>,
    },
    /// The time of the message.
    Time(TimeFormat),
    /// A random UUID (version 4), new for each message.
    Uuid {},
    /// One of `of`, with these weights if they are given.
    Choice { of: Vec<toml::Value>, weights: Option<Vec<f64>> },
    /// Always the same.
    Constant(toml::Value),
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// `2026-11-26T08:15:00.25Z`.
    Rfc3339,
    /// Seconds since 1970.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
}

fn one() -> i64 {
    1
}

fn two() -> u8 {
    2
}

impl Field {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Field::Walk { min, max, .. } | Field::Range { min, max, .. }
                if !(min.is_finite() && max.is_finite() && min <= max) =>
            {
                Err(format!("`min` ({min}) must not be greater than `max` ({max})"))
            }
            Field::Walk { step, .. } if !(step.is_finite() && *step >= 0.0) => {
                Err(format!("`step` ({step}) must not be negative"))
            }
            Field::Walk { start: Some(start), min, max, .. } if !(min..=max).contains(&start) => {
                Err(format!("`start` ({start}) must be between `min` and `max`"))
            }
            Field::Counter { start, max: Some(max), .. } if start > max => {
                Err(format!("`start` ({start}) must not be greater than `max` ({max})"))
            }
            Field::Choice { of, .. } if of.is_empty() => Err("`of` must not be empty".into()),
            Field::Choice { of, weights: Some(weights) } => {
                let good = |weight: &f64| weight.is_finite() && *weight >= 0.0;
                let usable = weights.len() == of.len()
                    && weights.iter().all(good)
                    && weights.iter().sum::<f64>() > 0.0;
                let what = "`weights` must be as many as `of` has values, and not all 0";
                if usable { Ok(()) } else { Err(what.into()) }
            }
            _ => Ok(()),
        }
    }
}

/// A field of one device.
#[derive(Clone, Debug)]
pub struct Generator {
    field: Field,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    Walked(f64),
    Counted(i64),
}

impl Generator {
    /// Before the first value.
    pub fn new(field: Field) -> Generator {
        Generator { field, state: State::Start }
    }

    /// The next value; `unix_ms` is the time of the message.
    pub fn next(&mut self, random: &mut fastrand::Rng, unix_ms: i64) -> Value {
        match &self.field {
            Field::Walk { min, max, step, start, digits } => {
                let at = match self.state {
                    State::Walked(before) => before + (random.f64() * 2.0 - 1.0) * step,
                    _ => start.unwrap_or_else(|| min + random.f64() * (max - min)),
                };
                let at = at.clamp(*min, *max);
                self.state = State::Walked(at);
                number(at, *digits)
            }
            Field::Range { min, max, digits } => number(min + random.f64() * (max - min), *digits),
            Field::Counter { start, step, max } => {
                let next = match self.state {
                    State::Counted(before) => before.saturating_add(*step),
                    _ => *start,
                };
                let next = if max.is_some_and(|max| next > max) { *start } else { next };
                self.state = State::Counted(next);
                json!(next)
            }
            Field::Time(format) => time(*format, unix_ms),
            Field::Uuid {} => json!(uuid(random.u128(..))),
            Field::Choice { of, weights } => {
                let index = match weights {
                    Some(weights) => weighted(weights, random.f64()),
                    None => random.usize(..of.len().max(1)),
                };
                of.get(index).map_or(Value::Null, plain)
            }
            Field::Constant(value) => plain(value),
        }
    }
}

/// Rounded; a whole number if there are no digits.
fn number(value: f64, digits: u8) -> Value {
    if digits == 0 {
        return json!(value.round() as i64);
    }
    let factor = 10_f64.powi(i32::from(digits.min(15)));
    json!((value * factor).round() / factor)
}

fn time(format: TimeFormat, unix_ms: i64) -> Value {
    match format {
        TimeFormat::UnixS => json!(unix_ms.div_euclid(1000)),
        TimeFormat::UnixMs => json!(unix_ms),
        TimeFormat::Rfc3339 => {
            let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
            json!(time.to_string())
        }
    }
}

/// RFC 9562, section 5.4.
fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let mut out = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    out
}

fn weighted(weights: &[f64], random: f64) -> usize {
    let mut left = random * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        if left < *weight {
            return index;
        }
        left -= weight;
    }
    // Only rounding leads here.
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}

/// A value of the file as JSON; dates become texts.
pub fn plain(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(flag) => json!(flag),
        toml::Value::Datetime(time) => json!(time.to_string()),
        toml::Value::Array(items) => items.iter().map(plain).collect(),
        toml::Value::Table(table) => {
            table.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(text: &str) -> Field {
        #[derive(Deserialize)]
        struct Holder {
            field: Field,
        }
        toml::from_str::<Holder>(&format!("field = {text}")).unwrap().field
    }

    fn values(text: &str, count: usize) -> Vec<Value> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut generator = Generator::new(field(text));
        (0..count).map(|_| generator.next(&mut random, 1_764_144_000_250)).collect()
    }

    #[test]
    fn counters_begin_anew() {
        let counted = values("{ counter = { start = 1, step = 2, max = 5 } }", 4);
        assert_eq!(counted, [1, 3, 5, 1].map(|n| json!(n)));
        assert_eq!(values("{ counter = {} }", 2), [json!(0), json!(1)]);
    }

    #[test]
    fn times_are_those_of_the_message() {
        assert_eq!(values("{ time = \"rfc3339\" }", 1), [json!("2025-11-26T08:00:00.25Z")]);
        assert_eq!(values("{ time = \"unix_s\" }", 1), [json!(1_764_144_000)]);
        assert_eq!(values("{ time = \"unix_ms\" }", 1), [json!(1_764_144_000_250_i64)]);
    }

    #[test]
    fn choices_come_by_their_weights() {
        let weighted = values("{ choice = { of = [\"a\", 2, true], weights = [0, 1, 0] } }", 9);
        assert!(weighted.iter().all(|value| *value == json!(2)));
        let even = values("{ choice = { of = [0, 1] } }", 1000);
        let ones = even.iter().filter(|value| **value == json!(1)).count();
        assert!((400..600).contains(&ones), "{ones}");
    }

    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let uuids = values("{ uuid = {} }", 2);
        let text = uuids[0].as_str().unwrap();
        assert_eq!((text.len(), &text[14..15]), (36, "4"));
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(uuids[0], uuids[1]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("{ range = { min = 2, max = 1 } }", "must not be greater"),
            ("{ walk = { min = 0, max = 1, step = -1 } }", "must not be negative"),
            ("{ walk = { min = 0, max = 1, step = 1, start = 3 } }", "must be between"),
            ("{ counter = { start = 3, max = 1 } }", "must not be greater"),
            ("{ choice = { of = [] } }", "must not be empty"),
            ("{ choice = { of = [1], weights = [0] } }", "not all 0"),
            ("{ choice = { of = [1], weights = [1, 2] } }", "as many as"),
            ("{ range = { min = nan, max = 1 } }", "must not be greater"),
        ] {
            let said = field(text).check().unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    proptest! {
        #[test]
        fn walks_stay_inside_and_take_small_steps(
            seed: u64, min in -1e3..1e3, width in 0.0..1e3, step in 0.0..10.0,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let max = min + width;
            let field = Field::Walk { min, max, step, start: None, digits: 9 };
            prop_assert!(field.check().is_ok());
            let mut generator = Generator::new(field);
            let mut before: Option<f64> = None;
            for _ in 0..50 {
                let value = generator.next(&mut random, 0).as_f64().unwrap();
                prop_assert!(value >= min - 1e-6 && value <= max + 1e-6);
                prop_assert!(before.is_none_or(|before| (value - before).abs() <= step + 1e-6));
                before = Some(value);
            }
        }

        #[test]
        fn ranges_and_weights_stay_inside(
            seed: u64, weights in prop::collection::vec(0.0..9.0, 1..5),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let index = weighted(&weights, random.f64());
            prop_assert!(index < weights.len());
            let mut generator = Generator::new(Field::Range { min: -2.0, max: 2.0, digits: 0 });
            let value = generator.next(&mut random, 0).as_i64().unwrap();
            prop_assert!((-2..=2).contains(&value));
        }
    }
}
