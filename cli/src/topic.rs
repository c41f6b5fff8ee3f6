//! Topic names and filters, as far as the tools need them (section 4.7).

pub use whimbrel_topics::matches;

/// `[MQTT-4.7.1-1]` `[MQTT-4.7.1-2]` `[MQTT-4.7.3-1]`
pub fn is_filter(filter: &str) -> bool {
    whimbrel_topics::validate_topic_filter(filter).is_ok()
}

/// Not empty, no wildcard `[MQTT-3.3.2-2]`.
pub fn is_name(topic: &str) -> bool {
    whimbrel_topics::validate_topic_name(topic).is_ok()
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
