use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Subscription;

type ByText = HashMap<Arc<str>, Vec<Arc<Subscription>>, RandomState>;

/// Subscriptions by topic. What a lookup costs does not depend on how many topics there are.
#[derive(Clone, Default)]
pub(crate) struct Topics {
    exact: ByText,
    /// By what stands before the `*`.
    beginnings: ByText,
    /// The lengths that beginnings have, each once.
    lengths: Vec<usize>,
}

impl Topics {
    pub(crate) fn insert(&mut self, subscription: Arc<Subscription>) {
        let place = match subscription.pattern.strip_suffix('*') {
            None => self.exact.entry(Arc::clone(&subscription.pattern)),
            Some(beginning) => {
                if !self.lengths.contains(&beginning.len()) {
                    self.lengths.push(beginning.len());
                }
                self.beginnings.entry(Arc::from(beginning))
            }
        };
        place.or_default().push(subscription);
    }

    pub(crate) fn keep(&mut self, keep: impl Fn(&Subscription) -> bool) {
        for by_text in [&mut self.exact, &mut self.beginnings] {
            by_text.retain(|_, list| {
                list.retain(|subscription| keep(subscription));
                !list.is_empty()
            });
        }
        let beginnings = &self.beginnings;
        self.lengths.retain(|length| beginnings.keys().any(|beginning| beginning.len() == *length));
    }

    /// Who listens to a topic.
    pub(crate) fn listeners(&self, topic: &str) -> impl Iterator<Item = &Arc<Subscription>> {
        let beginnings = self.lengths.iter().filter_map(move |length| topic.get(..*length));
        let begun = beginnings.filter_map(|beginning| self.beginnings.get(beginning));
        self.exact.get(topic).into_iter().chain(begun).flatten()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.exact.values().chain(self.beginnings.values()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quadriga_abi::Overflow;
    use quadriga_abi::permission::TopicPattern;

    use super::*;
    use crate::event::Listener;

    proptest! {
        #[test]
        fn those_listen_whose_patterns_cover_the_topic(
            patterns in proptest::collection::vec("[ab.é]{0,4}\\*?", 0..12),
            gone in proptest::collection::vec(any::<bool>(), 12),
            topic in "[ab.é]{1,5}",
        ) {
            let mut topics = Topics::default();
            for pattern in &patterns {
                let host = Listener::Host(tokio::sync::Notify::new());
                topics.insert(Subscription::new(pattern, Overflow::DropNewest, host, None));
            }
            let stays = |pattern: &str| {
                patterns.iter().zip(&gone).any(|(other, gone)| other == pattern && !gone)
            };
            topics.keep(|subscription| stays(&subscription.pattern));
            let mut found: Vec<&str> = topics.listeners(&topic).map(|it| &*it.pattern).collect();
            let allows = |pattern: &&String| TopicPattern((*pattern).clone()).allows(&topic);
            let mut wanted: Vec<&str> =
                patterns.iter().filter(allows).map(String::as_str).filter(|it| stays(it)).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
            prop_assert!(topics.all().all(|it| stays(&it.pattern)));
        }
    }
}
