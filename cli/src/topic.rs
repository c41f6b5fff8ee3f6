//! Topic names and filters, as far as the tools need them (section 4.7).

/// Whether a message to `topic` matches `filter`.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// `[MQTT-4.7.1-1]` `[MQTT-4.7.1-2]` `[MQTT-4.7.3-1]`
pub fn is_filter(filter: &str) -> bool {
    let levels: Vec<_> = filter.split('/').collect();
    let well_placed = |(index, level): (usize, &&str)| match *level {
        "#" => index + 1 == levels.len(),
        "+" => true,
        level => !level.contains(['+', '#']),
    };
    is_text(filter) && levels.iter().enumerate().all(well_placed)
}

/// Not empty, no wildcard `[MQTT-3.3.2-2]`.
pub fn is_name(topic: &str) -> bool {
    is_text(topic) && !topic.contains(['+', '#'])
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= usize::from(u16::MAX) && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/"),
            ("a/#", "a"),
            ("#", "a/b"),
            ("+/+", "/"),
            ("$S/#", "$S"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [("a/+", "a"), ("a", "a/b"), ("#", "$S/a"), ("+/a", "$S/a")] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn misplaced_wildcards_are_no_filter() {
        assert!(["a/+/#", "#", "/", "$share/g/a"].into_iter().all(is_filter));
        assert!(!["", "a#", "#/a", "a+/b"].into_iter().any(is_filter));
        assert!(is_name("a/b") && !is_name("a/+") && !is_name(""));
    }
}
