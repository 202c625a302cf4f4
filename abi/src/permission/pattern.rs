use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::Span;

/// An entry of a list of permissions, which may cover many accesses.
pub(super) trait Pattern: Clone + PartialEq + fmt::Display {
    /// What both cover, if anything.
    fn meet(&self, other: &Self) -> Option<Self>;

    /// Whether it covers all that the other does.
    fn covers(&self, other: &Self) -> bool {
        self.meet(other).as_ref() == Some(other)
    }
}

/// Which topics: one by its name, those that begin with what stands before a final `*`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TopicPattern(pub String);

impl TopicPattern {
    /// Whether the pattern covers a topic.
    pub fn allows(&self, topic: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => topic.starts_with(beginning),
            None => self.0 == topic,
        }
    }
}

/// Whether a text can be the name of a topic: 1 to 256 bytes, and no `*`, blanks or control characters.
pub fn is_topic(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && !text.chars().any(|char| char == '*' || char.is_whitespace() || char.is_control())
}

/// Whether a text is a topic, the beginning of some and a final `*`, or `*`.
pub fn is_topic_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(beginning) => beginning.is_empty() || is_topic(beginning),
        None => is_topic(text),
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern for TopicPattern {
    fn meet(&self, other: &Self) -> Option<Self> {
        // Of two beginnings, the longer one is within the shorter.
        let within = |inner: &Self, outer: &Self| match outer.0.strip_suffix('*') {
            Some(beginning) => inner.0.strip_suffix('*').unwrap_or(&inner.0).starts_with(beginning),
            None => inner == outer,
        };
        if within(self, other) { Some(self.clone()) } else { within(other, self).then(|| other.clone()) }
    }
}

impl Pattern for String {
    fn meet(&self, other: &Self) -> Option<Self> {
        (self == other).then(|| self.clone())
    }
}

impl Pattern for Span {
    fn meet(&self, other: &Self) -> Option<Self> {
        Some(*self.max(other))
    }
}

/// What two lists cover both.
pub(super) fn meet<T: Pattern>(ours: &[T], theirs: &[T]) -> Vec<T> {
    fewest(ours.iter().flat_map(|a| theirs.iter().filter_map(|b| a.meet(b))))
}

/// What either of two lists covers.
pub(super) fn join<T: Pattern>(ours: &[T], theirs: &[T]) -> Vec<T> {
    fewest(ours.iter().chain(theirs).cloned())
}

/// What a list covers without what `gone` covers. Entries that cover some of it and more stay,
/// and are named in `wider`.
pub(super) fn part<T: Pattern>(kind: &str, ours: &[T], gone: &[T], wider: &mut Vec<String>) -> Vec<T> {
    let left = ours.iter().filter(|entry| !gone.iter().any(|gone| gone.covers(entry)));
    let left: Vec<T> = left.cloned().collect();
    let cut = left.iter().filter(|entry| gone.iter().any(|gone| gone.meet(entry).is_some()));
    wider.extend(cut.map(|entry| format!("{kind} \"{entry}\"")));
    left
}

/// Names the entries that no entry of `most` covers.
pub(super) fn over<T: Pattern>(kind: &str, ours: &[T], most: &[T], list: &mut Vec<String>) {
    let over = ours.iter().filter(|entry| !most.iter().any(|most| most.covers(entry)));
    list.extend(over.map(|entry| format!("{kind} \"{entry}\"")));
}

/// Drops the entries that others cover.
fn fewest<T: Pattern>(entries: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = Vec::new();
    for entry in entries {
        if !list.iter().any(|there| there.covers(&entry)) {
            list.retain(|there| !entry.covers(there));
            list.push(entry);
        }
    }
    list
}
