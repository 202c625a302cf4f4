//! JSON Merge Patch (RFC 7396) on values, and what becomes of several patches of one context.

use std::collections::BTreeMap;

use quadriga_abi::Value;
use serde::{Deserialize, Serialize};

/// Who wins where two handlers that ran at once changed one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// The one that comes earlier in the order.
    FirstWins,
    /// The one that comes later.
    LastWins,
    /// Neither: the hook fails, and both are named.
    #[default]
    Error,
}

/// A value as the RFC sees it: objects by name, and everything else whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Doc {
    Map(BTreeMap<String, Doc>),
    Leaf(Value),
}

/// A field that two patches set to different values, by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clash {
    /// A JSON Pointer (RFC 6901).
    pub(crate) field: String,
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Doc {
    /// Reads one MessagePack value.
    ///
    /// # Errors
    /// If it is none, or says a field twice.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::of(Value::from_bytes(bytes).map_err(|error| error.to_string())?)
    }

    /// # Errors
    /// If it says a field twice.
    pub(crate) fn of(value: Value) -> Result<Self, String> {
        let pairs = match value {
            Value::Map(pairs) if pairs.iter().all(|(key, _)| matches!(key, Value::Text(_))) => pairs,
            other => return Ok(Self::Leaf(other)),
        };
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            let Value::Text(key) = key else { continue };
            if map.contains_key(&key) {
                return Err(format!("it has the field {key:?} twice"));
            }
            map.insert(key, Self::of(value)?);
        }
        Ok(Self::Map(map))
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::Map(map) => {
                Value::Map(map.iter().map(|(key, doc)| (Value::Text(key.clone()), doc.to_value())).collect())
            }
        }
    }

    pub(crate) fn fields(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(map) => Some(map),
            Self::Leaf(_) => None,
        }
    }

    /// `MergePatch` of RFC 7396, section 2.
    pub(crate) fn apply(&mut self, patch: &Self) {
        let Self::Map(patch) = patch else {
            *self = patch.clone();
            return;
        };
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(BTreeMap::new());
        }
        let Self::Map(target) = self else { return };
        for (name, value) in patch {
            match value {
                Self::Leaf(Value::Nil) => _ = target.remove(name),
                value => target.entry(name.clone()).or_insert(Self::Leaf(Value::Nil)).apply(value),
            }
        }
    }

    /// The fields that a patch sets or takes away, as JSON Pointers.
    pub(crate) fn changes(&self) -> Vec<String> {
        fn collect(doc: &Doc, at: &mut String, list: &mut Vec<String>) {
            match doc {
                Doc::Map(map) if !map.is_empty() => {
                    for (name, value) in map {
                        let length = at.len();
                        push(at, name);
                        collect(value, at, list);
                        at.truncate(length);
                    }
                }
                _ => list.push(at.clone()),
            }
        }
        let mut list = Vec::new();
        collect(self, &mut String::new(), &mut list);
        list
    }

    /// Takes out of a patch what another one sees otherwise, and says where that was.
    fn yield_to(&mut self, other: &Self, at: &mut String, fields: &mut Vec<String>) {
        let (Self::Map(mine), Self::Map(theirs)) = (self, other) else { return };
        mine.retain(|name, value| {
            let Some(other) = theirs.get(name) else { return true };
            let length = at.len();
            push(at, name);
            let stays = match (&mut *value, other) {
                (Self::Map(inner), Self::Map(_)) => {
                    let some = !inner.is_empty();
                    value.yield_to(other, at, fields);
                    // What it wanted to put there is all in dispute; an empty object is not.
                    !(some && value.fields().is_some_and(BTreeMap::is_empty))
                }
                (value, other) if value == other => true,
                _ => {
                    fields.push(at.clone());
                    false
                }
            };
            at.truncate(length);
            stays
        });
    }
}

fn push(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

/// Settles the conflicts among patches that were made of the same context, in their order. What is
/// left may be applied in any order. Two patches that want the same are not in conflict.
///
/// # Errors
/// The first conflict, with [`Conflict::Error`].
pub(crate) fn settle(patches: &mut [Doc], policy: Conflict) -> Result<Vec<Clash>, Clash> {
    let count = patches.len();
    let mut clashes = Vec::new();
    for step in 1..count {
        // Each yields to those that are stronger, the strongest first.
        for stronger in 0..step {
            let (weak, strong) = match policy {
                Conflict::LastWins => (count - 1 - step, count - 1 - stronger),
                _ => (step, stronger),
            };
            let Ok([yielding, other]) = patches.get_disjoint_mut([weak, strong]) else { continue };
            let mut fields = Vec::new();
            yielding.yield_to(other, &mut String::new(), &mut fields);
            let (first, second) = (weak.min(strong), weak.max(strong));
            clashes.extend(fields.into_iter().map(|field| Clash { field, first, second }));
            if policy == Conflict::Error && !clashes.is_empty() {
                return Err(clashes.swap_remove(0));
            }
        }
    }
    Ok(clashes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn doc(json: serde_json::Value) -> Doc {
        Doc::of(json.into()).unwrap()
    }

    /// RFC 7396, appendix A: original, patch, result; all of them, in its order.
    #[test]
    fn merges_as_the_rfc_says() {
        let table = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
            // Section 3.
            (
                json!({"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},
                    "tags":["example","sample"],"content":"This will be unchanged"}),
                json!({"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},
                    "tags":["example"]}),
                json!({"title":"Hello!","author":{"givenName":"John"},"tags":["example"],
                    "content":"This will be unchanged","phoneNumber":"+01-123-456-7890"}),
            ),
        ];
        for (original, patch, result) in table {
            let mut target = doc(original.clone());
            target.apply(&doc(patch.clone()));
            assert_eq!(target, doc(result), "{original} with {patch}");
        }
    }

    #[test]
    fn conflicts_are_settled_as_the_host_says() {
        use Conflict::{Error, FirstWins, LastWins};
        let clash = |field: &str, first, second| Clash { field: field.to_owned(), first, second };
        let a_b = || vec![clash("/a", 0, 1)];
        // Patches; the policy; what their sum is and what was in dispute, or the first conflict.
        let table = [
            (vec![json!({"a":1}), json!({"b":2})], Error, Ok((json!({"a":1,"b":2}), vec![]))),
            (vec![json!({"a":1}), json!({"a":1})], Error, Ok((json!({"a":1}), vec![]))),
            (vec![json!({"a":1}), json!({"a":2})], Error, Err(clash("/a", 0, 1))),
            (vec![json!({"a":1}), json!({"a":2})], FirstWins, Ok((json!({"a":1}), a_b()))),
            (vec![json!({"a":1}), json!({"a":2})], LastWins, Ok((json!({"a":2}), a_b()))),
            (vec![json!({"a":1}), json!({"a":null})], LastWins, Ok((json!({"a":null}), a_b()))),
            // Within a field, and a field as a whole.
            (
                vec![json!({"a":{"x":1}}), json!({"a":{"y":2}})],
                Error,
                Ok((json!({"a":{"x":1,"y":2}}), vec![])),
            ),
            (vec![json!({"a":{}}), json!({"a":{"y":2}})], Error, Ok((json!({"a":{"y":2}}), vec![]))),
            (
                vec![json!({"a":{"x":1,"y":1}}), json!({"a":{"x":2,"z":2}})],
                FirstWins,
                Ok((json!({"a":{"x":1,"y":1,"z":2}}), vec![clash("/a/x", 0, 1)])),
            ),
            (vec![json!({"a":{"x":1}}), json!({"a":5})], FirstWins, Ok((json!({"a":{"x":1}}), a_b()))),
            (vec![json!({"a":{"x":1}}), json!({"a":5})], LastWins, Ok((json!({"a":5}), a_b()))),
            (
                vec![json!({"~/":1}), json!({"~/":2})],
                FirstWins,
                Ok((json!({"~/":1}), vec![clash("/~0~1", 0, 1)])),
            ),
            // Three of them: who lost a field no longer stands in anybody's way.
            (
                vec![json!({"a":1}), json!({"a":2,"b":2}), json!({"a":3,"b":3,"c":3})],
                FirstWins,
                Ok((
                    json!({"a":1,"b":2,"c":3}),
                    vec![clash("/a", 0, 1), clash("/a", 0, 2), clash("/b", 1, 2)],
                )),
            ),
            (
                vec![json!({"a":1}), json!({"a":2,"b":2}), json!({"a":3})],
                LastWins,
                Ok((json!({"a":3,"b":2}), vec![clash("/a", 1, 2), clash("/a", 0, 2)])),
            ),
            (vec![json!({"b":1}), json!({"a":2}), json!({"a":3})], Error, Err(clash("/a", 1, 2))),
        ];
        for (patches, policy, expected) in table {
            let mut docs: Vec<Doc> = patches.iter().cloned().map(doc).collect();
            let settled = settle(&mut docs, policy).map(|clashes| {
                let mut sum = serde_json::Map::new();
                docs.iter().for_each(|patch| deep_merge(&mut sum, &patch.to_value().to_json()));
                (serde_json::Value::Object(sum), clashes)
            });
            assert_eq!(settled, expected, "{patches:?} {policy:?}");
        }
    }

    /// The union of patches that agree.
    fn deep_merge(into: &mut serde_json::Map<String, serde_json::Value>, from: &serde_json::Value) {
        for (name, value) in from.as_object().unwrap() {
            match (into.get_mut(name), value) {
                (Some(serde_json::Value::Object(inner)), value @ serde_json::Value::Object(_)) => {
                    deep_merge(inner, value);
                }
                _ => _ = into.insert(name.clone(), value.clone()),
            }
        }
    }

    #[test]
    fn a_patch_says_each_field_once() {
        // {"a": 1, "a": 2}, and the same further in.
        assert_eq!(Doc::read(b"\x82\xa1a\x01\xa1a\x02").unwrap_err(), "it has the field \"a\" twice");
        assert!(Doc::read(b"\x81\xa1b\x82\xa1a\x01\xa1a\x02").is_err());
        assert_eq!(doc(json!({"a":{"b":null,"c":{}},"d":[1]})).changes(), ["/a/b", "/a/c", "/d"]);
    }

    fn docs() -> impl Strategy<Value = Doc> {
        let leaf = prop_oneof![Just(Value::Nil), (0..3_i64).prop_map(Value::Int)].prop_map(Doc::Leaf);
        let tree = leaf.prop_recursive(3, 12, 3, |inner| {
            proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(Doc::Map)
        });
        proptest::collection::btree_map("[a-c]", tree, 0..4).prop_map(Doc::Map)
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_who_is_done_first(
            context in docs(),
            patches in proptest::collection::vec(docs(), 0..5),
            policy in prop_oneof![Just(Conflict::FirstWins), Just(Conflict::LastWins), Just(Conflict::Error)],
            turns in proptest::collection::vec(any::<prop::sample::Index>(), 5),
        ) {
            let mut settled = patches.clone();
            let Ok(clashes) = settle(&mut settled, policy) else {
                prop_assert_eq!(policy, Conflict::Error);
                return Ok(());
            };
            let mut in_order = context.clone();
            settled.iter().for_each(|patch| in_order.apply(patch));
            // Any order in which they may be done.
            let mut left = settled.clone();
            let mut shuffled = context.clone();
            for turn in turns {
                if !left.is_empty() {
                    let next = left.swap_remove(turn.index(left.len()));
                    shuffled.apply(&next);
                }
            }
            prop_assert_eq!(&in_order, &shuffled);
            // Without a conflict nothing is lost.
            if clashes.is_empty() {
                prop_assert_eq!(settled, patches);
            }
        }
    }
}
