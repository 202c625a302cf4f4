use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Mutex;

use quadriga_abi::Error;

use super::{KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore};
use crate::dispatcher::lock;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryKv(Mutex<HashMap<String, Kept>>);

/// What one owner has.
#[derive(Debug, Default)]
struct Kept {
    pairs: BTreeMap<KvKey, KvEntry>,
    bytes: u64,
    /// The last version.
    version: u64,
    /// Before then nothing expires.
    soonest: Option<u64>,
}

impl KvStore for MemoryKv {
    fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error> {
        let all = lock(&self.0);
        Ok(all.get(owner).and_then(|kept| kept.pairs.get(key)).filter(|entry| entry.lives(now)).cloned())
    }

    fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error> {
        let all = lock(&self.0);
        let Some(kept) = all.get(owner) else { return Ok(Vec::new()) };
        Ok(kept.within(range, now).map(|(key, _)| key.key.clone()).collect())
    }

    fn entries(
        &self,
        owner: &str,
        range: &KvRange,
        bytes: u64,
        now: u64,
    ) -> Result<Vec<(String, KvEntry)>, Error> {
        let all = lock(&self.0);
        let Some(kept) = all.get(owner) else { return Ok(Vec::new()) };
        let mut taken = 0;
        let fitting = kept.within(range, now).take_while(|(key, entry)| {
            let is_first = taken == 0;
            taken += key.size(&entry.value);
            is_first || taken <= bytes
        });
        Ok(fitting.map(|(key, entry)| (key.key.clone(), entry.clone())).collect())
    }

    fn write(
        &self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error> {
        lock(&self.0).entry(owner.to_owned()).or_default().write(owner, changes, quota, now)
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl Kept {
    fn write(
        &mut self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error> {
        self.expire(now);
        let is = |key: &KvKey| self.pairs.get(key).map_or(0, |entry| entry.version);
        if changes.iter().any(|it| it.version.is_some_and(|wanted| wanted != is(&it.key))) {
            return Ok(None);
        }
        let mut version = self.version;
        let mut there = Vec::with_capacity(changes.len());
        // What the keys are to be in the end.
        let mut new: BTreeMap<&KvKey, Option<KvEntry>> = BTreeMap::new();
        for KvChange { key, action, .. } in changes {
            there.push(new.get(key).map_or_else(|| self.pairs.contains_key(key), Option::is_some));
            match action {
                KvAction::Check => {}
                KvAction::Put { value, expires } => {
                    version += 1;
                    let entry = KvEntry { value: value.clone(), version, expires: *expires };
                    new.insert(key, Some(entry));
                }
                KvAction::Delete => _ = new.insert(key, None),
            }
        }
        let before = KvQuota { bytes: self.bytes, keys: self.pairs.len() };
        let mut after = before;
        for (key, entry) in &new {
            if let Some(gone) = self.pairs.get(key) {
                after.bytes -= key.size(&gone.value);
                after.keys -= 1;
            }
            if let Some(entry) = entry {
                after.bytes += key.size(&entry.value);
                after.keys += 1;
            }
        }
        quota.check(owner, before, after)?;
        for (key, entry) in new {
            match entry {
                Some(entry) => {
                    self.soonest = self.soonest.into_iter().chain(entry.expires).min();
                    self.pairs.insert(key.clone(), entry);
                }
                None => _ = self.pairs.remove(key),
            }
        }
        (self.bytes, self.version) = (after.bytes, version);
        Ok(Some(there))
    }

    /// Removes what has expired.
    fn expire(&mut self, now: u64) {
        if self.soonest.is_none_or(|soonest| soonest > now) {
            return;
        }
        self.pairs.retain(|_, entry| entry.lives(now));
        self.bytes = self.pairs.iter().map(|(key, entry)| key.size(&entry.value)).sum();
        self.soonest = self.pairs.values().filter_map(|entry| entry.expires).min();
    }

    fn within(&self, range: &KvRange, now: u64) -> impl Iterator<Item = (&KvKey, &KvEntry)> {
        let key = |key: &String| KvKey { namespace: range.namespace.clone(), key: key.clone() };
        let from = match &range.after {
            Some(after) if *after >= range.prefix => Bound::Excluded(key(after)),
            _ => Bound::Included(key(&range.prefix)),
        };
        let is_within =
            move |key: &KvKey| key.namespace == range.namespace && key.key.starts_with(&range.prefix);
        let found = self.pairs.range((from, Bound::Unbounded)).take_while(move |(key, _)| is_within(key));
        found.filter(move |(_, entry)| entry.lives(now)).take(range.most)
    }
}
