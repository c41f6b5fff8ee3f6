//! The rules of topic names and topic filters: MQTT 5.0, sections 4.7 and 4.8.2.
//!
//! Where 3.1.1 numbers a statement differently, both versions mean the same.

use std::fmt;

/// Longest topic name or filter in bytes: its length is a two byte integer on the wire.
pub const MAX_TOPIC_BYTES: usize = 65_535;

const SHARE_PREFIX: &str = "$share/";

/// What is wrong with a topic name or topic filter; always the fault of who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// No character at all.
    Empty,
    /// More than [`MAX_TOPIC_BYTES`] bytes.
    TooLong,
    /// Contains the character U+0000.
    Nul,
    /// A topic name contains `+` or `#`.
    WildcardInName,
    /// `#` is not the whole last level of the filter.
    MultiLevelWildcard,
    /// `+` is not the whole of its level.
    SingleLevelWildcard,
    /// A filter starts with `$share/` but its share name is empty or contains a wildcard.
    ShareName,
    /// A filter starts with `$share/` but nothing follows the share name.
    ShareWithoutFilter,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "it is empty",
            TopicError::TooLong => "it is longer than 65,535 bytes",
            TopicError::Nul => "it contains U+0000",
            TopicError::WildcardInName => "a topic name must not contain + or #",
            TopicError::MultiLevelWildcard => "# must be the whole last level",
            TopicError::SingleLevelWildcard => "+ must be the whole of its level",
            TopicError::ShareName => "the share name must be non-empty and without + or #",
            TopicError::ShareWithoutFilter => "a topic filter must follow $share/<name>/",
        })
    }
}

impl std::error::Error for TopicError {}

/// Checks a topic name, as in PUBLISH.
pub fn validate_topic_name(topic: &str) -> Result<(), TopicError> {
    validate_length(topic)?;
    for &byte in topic.as_bytes() {
        match byte {
            // [MQTT-4.7.0-1]
            b'+' | b'#' => return Err(TopicError::WildcardInName),
            // [MQTT-4.7.3-2]
            0 => return Err(TopicError::Nul),
            _ => {}
        }
    }
    Ok(())
}

/// Checks a topic filter, as in SUBSCRIBE; for one that may be shared call [`parse_shared`] first.
pub fn validate_topic_filter(filter: &str) -> Result<(), TopicError> {
    validate_length(filter)?;
    let bytes = filter.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let starts_level = || at == 0 || bytes.get(at - 1) == Some(&b'/');
        match byte {
            // [MQTT-4.7.1-1]
            b'#' if !starts_level() || at + 1 != bytes.len() => {
                return Err(TopicError::MultiLevelWildcard);
            }
            // [MQTT-4.7.1-2]
            b'+' if !starts_level() || bytes.get(at + 1).is_some_and(|&next| next != b'/') => {
                return Err(TopicError::SingleLevelWildcard);
            }
            // [MQTT-4.7.3-2]
            0 => return Err(TopicError::Nul),
            _ => {}
        }
    }
    Ok(())
}

fn validate_length(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        // [MQTT-4.7.3-1]
        0 => Err(TopicError::Empty),
        1..=MAX_TOPIC_BYTES => Ok(()),
        // [MQTT-4.7.3-3]
        _ => Err(TopicError::TooLong),
    }
}

/// Whether a filter (valid, without `$share/`) contains a wildcard.
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// Whether `filter` (valid, without `$share/`) matches `topic`, level by level in linear time.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    // Compared byte for byte, without normalisation. [MQTT-4.7.3-4]
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The parts of `$share/<group>/<filter>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// The share name.
    pub group: &'a str,
    /// The topic filter behind it.
    pub filter: &'a str,
}

/// Splits a shared subscription's filter; `None` when `filter` does not start with `$share/`.
///
/// The share name and the filter behind it are checked; an ordinary filter is not.
pub fn parse_shared(filter: &str) -> Result<Option<SharedFilter<'_>>, TopicError> {
    let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else { return Ok(None) };
    validate_length(filter)?;
    let (group, filter) = rest.split_once('/').unwrap_or((rest, ""));
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    if group.is_empty() || group.contains(['+', '#']) {
        return Err(TopicError::ShareName);
    }
    if group.contains('\0') {
        return Err(TopicError::Nul);
    }
    // [MQTT-4.8.2-2]
    if filter.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    validate_topic_filter(filter)?;
    Ok(Some(SharedFilter { group, filter }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["/", "a", "a//b", "$SYS/x", "sport/tennis player", " "] {
            assert_eq!(validate_topic_name(good), Ok(()), "{good}");
        }
        // [MQTT-4.7.3-1]
        assert_eq!(validate_topic_name(""), Err(TopicError::Empty));
        // [MQTT-4.7.3-2]
        assert_eq!(validate_topic_name("a\0"), Err(TopicError::Nul));
        // [MQTT-4.7.3-3]
        assert_eq!(validate_topic_name(&"a".repeat(65_535)), Ok(()));
        assert_eq!(validate_topic_name(&"a".repeat(65_536)), Err(TopicError::TooLong));
        // [MQTT-4.7.0-1]
        for bad in ["+", "#", "a/+", "a#b"] {
            assert_eq!(validate_topic_name(bad), Err(TopicError::WildcardInName), "{bad}");
        }
    }

    #[test]
    fn topic_filters() {
        for good in ["#", "+", "/+", "+/", "a/#", "+/a/#", "a/+/b", "//", "$SYS/#"] {
            assert_eq!(validate_topic_filter(good), Ok(()), "{good}");
        }
        // [MQTT-4.7.1-1]
        for bad in ["a#", "#/", "a/#/b", "##", "+#"] {
            let wrong = validate_topic_filter(bad);
            assert!(
                matches!(
                    wrong,
                    Err(TopicError::MultiLevelWildcard | TopicError::SingleLevelWildcard)
                ),
                "{bad}"
            );
        }
        // [MQTT-4.7.1-2]
        for bad in ["a+", "+a", "a/b+/c", "++"] {
            assert_eq!(validate_topic_filter(bad), Err(TopicError::SingleLevelWildcard), "{bad}");
        }
        assert_eq!(validate_topic_filter(""), Err(TopicError::Empty));
        assert_eq!(validate_topic_filter("a\0/#"), Err(TopicError::Nul));
        assert_eq!(validate_topic_filter(&"/".repeat(65_536)), Err(TopicError::TooLong));
    }

    #[test]
    fn examples_of_the_specification_match() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/#", "a", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    /// [MQTT-4.7.2-1]
    #[test]
    fn leading_wildcards_do_not_match_dollar_topics() {
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/x", "$SYS/x"));
        assert!(!matches("+", "$SYS"));
        assert!(matches("$SYS/#", "$SYS/x"));
        assert!(matches("$SYS/+", "$SYS/x"));
        assert!(matches("a/#", "a/$SYS"));
    }

    #[test]
    fn shared_filters() {
        assert_eq!(parse_shared("a/b"), Ok(None));
        assert_eq!(parse_shared("$share"), Ok(None));
        assert_eq!(
            parse_shared("$share/g/a/+"),
            Ok(Some(SharedFilter { group: "g", filter: "a/+" }))
        );
        assert_eq!(parse_shared("$share/g//"), Ok(Some(SharedFilter { group: "g", filter: "/" })));
        // [MQTT-4.8.2-1]
        for bad in ["$share/", "$share//a"] {
            assert_eq!(parse_shared(bad), Err(TopicError::ShareName), "{bad}");
        }
        // [MQTT-4.8.2-2]
        for bad in ["$share/+/a", "$share/g#/a", "$share/#"] {
            assert_eq!(parse_shared(bad), Err(TopicError::ShareName), "{bad}");
        }
        for bad in ["$share/g", "$share/g/"] {
            assert_eq!(parse_shared(bad), Err(TopicError::ShareWithoutFilter), "{bad}");
        }
        assert_eq!(parse_shared("$share/g/a#"), Err(TopicError::MultiLevelWildcard));
    }
}
