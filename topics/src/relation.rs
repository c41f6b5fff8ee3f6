//! How the topics of one filter lie to those of another.

/// Whether every topic that `other` matches is one that `filter` matches; both are valid filters.
///
/// A topic name is such a filter too: then this is [`crate::matches`].
pub fn covers(filter: &str, other: &str) -> bool {
    covers_by(filter, other, |_, level, wanted| level == wanted)
}

/// Whether there is a topic that both filters match; both are valid.
pub fn overlaps(filter: &str, other: &str) -> bool {
    overlaps_by(filter, other, |_, level, wanted| level == wanted)
}

/// [`covers`] for a `filter` in which some levels stand for texts that only the caller knows.
///
/// `same(depth, level, wanted)` says whether a level of `filter` that is no wildcard is (or may
/// stand for) the level `wanted` of `other`, which is none either. Depth counts from 0.
pub fn covers_by(
    filter: &str,
    other: &str,
    mut same: impl FnMut(usize, &str, &str) -> bool,
) -> bool {
    if hides(filter, other) {
        return false;
    }
    let mut levels = Levels(Some(filter));
    let mut wanted = Levels(Some(other)).enumerate();
    while let Some(level) = levels.next() {
        let fits = match (level, wanted.next()) {
            ("#", _) => return true,
            // `#` also means the level above it, which `+` does not; but above the first level
            // there is none, and the empty level alone is no topic.
            ("+", Some((_, "#"))) => {
                return (other == "#" || other == "/#") && levels.eq(["#"]);
            }
            ("+", Some(_)) => true,
            (_, Some((_, "+" | "#")) | None) => false,
            (level, Some((depth, wanted))) => same(depth, level, wanted),
        };
        if !fits {
            return false;
        }
    }
    wanted.next().is_none()
}

/// [`overlaps`] as [`covers_by`]; each level of `filter` that the caller knows is taken to stand
/// for at least one text.
pub fn overlaps_by(
    filter: &str,
    other: &str,
    mut same: impl FnMut(usize, &str, &str) -> bool,
) -> bool {
    if hides(filter, other) || hides(other, filter) {
        return false;
    }
    let mut levels = Levels(Some(filter));
    let mut wanted = Levels(Some(other)).enumerate();
    loop {
        let fits = match (levels.next(), wanted.next()) {
            // The empty level above `/#` alone is no topic.
            (Some("#"), None) => return filter != "/#",
            (None, Some((_, "#"))) => return other != "/#",
            (Some("#"), _) | (_, Some((_, "#"))) | (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => false,
            (Some("+"), _) | (_, Some((_, "+"))) => true,
            (Some(level), Some((depth, wanted))) => same(depth, level, wanted),
        };
        if !fits {
            return false;
        }
    }
}

/// Like `split('/')`, and a good deal quicker on levels of a few bytes.
struct Levels<'a>(Option<&'a str>);

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0?;
        let end = rest.bytes().position(|byte| byte == b'/');
        self.0 = end.and_then(|end| rest.get(end + 1..));
        end.map_or(Some(rest), |end| rest.get(..end))
    }
}

/// Wildcards at the start do not reach topics that begin with `$`. [MQTT-4.7.2-1]
fn hides(filter: &str, other: &str) -> bool {
    other.starts_with('$') && filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{matches, validate_topic_filter};

    const DEPTH: usize = 4;

    /// Every topic of up to four levels of which each is one of `LEVELS`: one level more than the
    /// filters have, and one text that none of them names.
    fn topics() -> Vec<String> {
        const LEVELS: [&str; 5] = ["", "a", "b", "z", "$s"];
        let mut all: Vec<String> = LEVELS.map(str::to_owned).to_vec();
        let mut last = all.clone();
        for _ in 1..DEPTH {
            last = last
                .iter()
                .flat_map(|head| LEVELS.map(|level| format!("{head}/{level}")))
                .collect();
            all.extend_from_slice(&last);
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["", "a", "a", "b", "$s", "+", "+"]);
        (prop::collection::vec(level, 0..DEPTH), any::<bool>())
            .prop_map(|(mut levels, all)| {
                levels.truncate(DEPTH - 1 - usize::from(all));
                levels.extend(all.then_some("#"));
                levels.join("/")
            })
            .prop_filter("a filter is not empty", |filter| !filter.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn relations_are_those_of_the_topics(a in filter(), b in filter()) {
            prop_assert!(validate_topic_filter(&a).is_ok());
            let all = topics();
            let of = |filter: &str| -> Vec<bool> {
                all.iter().map(|topic| matches(filter, topic)).collect()
            };
            let both: Vec<(bool, bool)> = of(&a).into_iter().zip(of(&b)).collect();
            prop_assert_eq!(covers(&a, &b), both.iter().all(|(a, b)| *a || !b), "{} {}", &a, &b);
            prop_assert_eq!(overlaps(&a, &b), both.iter().any(|(a, b)| *a && *b), "{} {}", &a, &b);
        }
    }

    #[test]
    fn what_covers_what() {
        for (filter, other, covered, common) in [
            ("a/#", "a", true, true),
            ("a/#", "a/+/b", true, true),
            ("a/+", "a/#", false, true),
            ("a/+", "a", false, false),
            ("a/b", "a/+", false, true),
            ("#", "$SYS/#", false, false),
            ("+/x", "$SYS/x", false, false),
            ("$SYS/#", "#", false, false),
            ("#", "+/#", true, true),
            ("+/#", "#", true, true),
            ("+/+/#", "#", false, true),
            ("/+/#", "/#", true, true),
            ("+/+/#", "/#", true, true),
            ("a/+/#", "a/#", false, true),
            ("+", "/#", false, false),
            ("a/+", "a//#", false, true),
        ] {
            assert_eq!(covers(filter, other), covered, "{filter} covers {other}");
            assert_eq!(overlaps(filter, other), common, "{filter} overlaps {other}");
            assert_eq!(overlaps(other, filter), common, "{other} overlaps {filter}");
        }
    }
}
