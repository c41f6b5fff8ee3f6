//! Which places of the topic tree are shown, from top to bottom.

use super::topics::{NodeId, ROOT, Topics};
use crate::topic;

/// A line of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub id: NodeId,
    /// Levels above it.
    pub depth: usize,
    /// Whether its children follow.
    pub is_open: bool,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A part of the topic in any case, or a topic filter with wildcards; empty: everything.
    pub search: String,
    /// Only topics with a retained message.
    pub retained_only: bool,
}

/// The rows of all that is wanted and open; what is searched for is shown, open or not.
pub fn rows(topics: &Topics, wanted: &Wanted) -> Vec<Row> {
    let shown = if wanted.search.is_empty() { None } else { Some(found(topics, &wanted.search)) };
    let mut rows = Vec::new();
    let mut waiting = vec![(ROOT, 0)];
    while let Some((id, depth)) = waiting.pop() {
        let node = topics.node(id);
        let hidden = (wanted.retained_only && node.retained == 0)
            || shown.as_ref().is_some_and(|shown| !shown[id]);
        if hidden && id != ROOT {
            continue;
        }
        let is_open = (node.is_open || shown.is_some()) && !node.children.is_empty();
        if id != ROOT {
            rows.push(Row { id, depth: depth - 1, is_open });
        }
        if is_open {
            waiting.extend(node.children.values().rev().map(|child| (*child, depth + 1)));
        }
    }
    rows
}

/// For each place, whether a topic at or below it is looked for.
fn found(topics: &Topics, search: &str) -> Vec<bool> {
    let is_filter = search.contains(['+', '#']) && topic::is_filter(search);
    let lower = search.to_lowercase();
    let mut found = vec![false; topics.len()];
    // Children stand behind their parents.
    for id in (1..topics.len()).rev() {
        let node = topics.node(id);
        if !found[id] && !node.values.is_empty() {
            let topic = topics.topic(id);
            found[id] = match is_filter {
                true => topic::matches(search, &topic),
                false => topic.to_lowercase().contains(&lower),
            };
        }
        found[node.parent] |= found[id];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::topics::Limits;
    use whimbrel_codec::Publish;

    fn topics() -> Topics {
        let mut topics = Topics::new(Limits::default());
        for (topic, retain) in
            [("b/Two", false), ("a", false), ("b/one/x", true), ("b", false), ("$S/up", false)]
        {
            topics.handle_message(0, &Publish { retain, ..Publish::new(topic, b"1") });
        }
        topics
    }

    fn shown(topics: &Topics, search: &str, retained_only: bool) -> String {
        let rows = rows(topics, &Wanted { search: search.into(), retained_only });
        let name = |row: &Row| format!("{}{}", ".".repeat(row.depth), topics.node(row.id).name);
        rows.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn closed_places_hide_what_is_below() {
        let mut topics = topics();
        assert_eq!(shown(&topics, "", false), "$S a b");
        let b = topics.find("b").unwrap();
        topics.set_open(b, true);
        assert_eq!(shown(&topics, "", false), "$S a b .Two .one");
        topics.set_open_below(ROOT, true);
        assert_eq!(shown(&topics, "", false), "$S .up a b .Two .one ..x");
        topics.set_open_below(b, false);
        topics.set_open(b, true);
        assert_eq!(shown(&topics, "", false), "$S .up a b .Two .one");
    }

    #[test]
    fn a_search_opens_what_it_finds() {
        let topics = topics();
        assert_eq!(shown(&topics, "two", false), "b .Two");
        assert_eq!(shown(&topics, "b/ONE", false), "b .one ..x");
        assert_eq!(shown(&topics, "+/+", false), "b .Two");
        assert_eq!(shown(&topics, "#", false), "a b .Two .one ..x");
        assert_eq!(shown(&topics, "none", false), "");
    }

    #[test]
    fn retained_topics_alone() {
        let mut topics = topics();
        topics.set_open_below(ROOT, true);
        assert_eq!(shown(&topics, "", true), "b .one ..x");
        let x = topics.find("b/one/x").unwrap();
        topics.set_retained(x, false);
        assert_eq!(shown(&topics, "", true), "");
    }
}
