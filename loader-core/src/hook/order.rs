//! Who answers before whom.

use std::collections::HashMap;

use quadriga_abi::ExtensionId;

/// What the place of a handler depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) extension: &'a ExtensionId,
    pub(crate) method: &'a str,
    pub(crate) priority: i32,
    pub(crate) before: &'a [ExtensionId],
    pub(crate) after: &'a [ExtensionId],
}

/// The order of some handlers, by their places in the list of claims.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Order {
    /// Those of one stage have the same priority and say nothing of each other.
    pub(crate) stages: Vec<Vec<usize>>,
    /// Whose `before` or `after` could not be met, and about whom it was.
    pub(crate) unmet: Vec<(usize, ExtensionId)>,
}

/// One comes before another, because `whose` claim says so.
struct Edge {
    from: usize,
    to: usize,
    whose: usize,
}

/// Orders by priority, then by what `before` and `after` say, then by id and method. `before` and
/// `after` hold among handlers of the same priority; where those go round in a circle, the smallest
/// id comes first.
pub(crate) fn order(claims: &[Claim<'_>]) -> Order {
    let mut by_id: HashMap<&ExtensionId, Vec<usize>> = HashMap::new();
    for (place, claim) in claims.iter().enumerate() {
        by_id.entry(claim.extension).or_default().push(place);
    }
    let mut result = Order::default();
    let mut edges = Vec::new();
    for (whose, claim) in claims.iter().enumerate() {
        let before = claim.before.iter().map(|id| (id, true));
        for (id, first) in before.chain(claim.after.iter().map(|id| (id, false))) {
            for &other in by_id.get(id).into_iter().flatten() {
                let (from, to) = if first { (whose, other) } else { (other, whose) };
                match claims[from].priority.cmp(&claims[to].priority) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal if id != claim.extension => {
                        edges.push(Edge { from, to, whose });
                    }
                    _ => result.unmet.push((whose, id.clone())),
                }
            }
        }
    }
    let mut left: Vec<usize> = (0..claims.len()).collect();
    left.sort_by_key(|&it| (claims[it].priority, claims[it].extension, claims[it].method));
    while let Some(&first) = left.first() {
        let is_next = |it: &usize| claims[*it].priority == claims[first].priority;
        let waits = |it: &usize| edges.iter().any(|edge| edge.to == *it && left.contains(&edge.from));
        let mut stage: Vec<usize> =
            left.iter().take_while(|it| is_next(it)).filter(|it| !waits(it)).copied().collect();
        if stage.is_empty() {
            let broken = edges.iter().filter(|edge| edge.to == first && left.contains(&edge.from));
            result.unmet.extend(broken.map(|edge| {
                let other = if edge.whose == edge.to { edge.from } else { edge.to };
                (edge.whose, claims[other].extension.clone())
            }));
            stage.push(first);
        }
        left.retain(|it| !stage.contains(it));
        result.stages.push(stage);
    }
    result.unmet.sort();
    result.unmet.dedup();
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(text: &str) -> Vec<ExtensionId> {
        text.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    /// A handler per line: `id priority [< ids before which it is] [> ids after which it is]`.
    fn check(handlers: &str, expected: &str, unmet: &str) {
        let parsed: Vec<_> = handlers
            .split(';')
            .map(|text| {
                let (text, after) = text.split_once('>').unwrap_or((text, ""));
                let (text, before) = text.split_once('<').unwrap_or((text, ""));
                let (id, priority) = text.trim().split_once(' ').unwrap();
                let id: ExtensionId = id.parse().unwrap();
                (id, priority.trim().parse::<i32>().unwrap(), ids(before), ids(after))
            })
            .collect();
        let claims: Vec<_> = parsed
            .iter()
            .map(|(extension, priority, before, after)| Claim {
                extension,
                method: "m",
                priority: *priority,
                before,
                after,
            })
            .collect();
        let order = order(&claims);
        let id = |place: &usize| parsed[*place].0.as_str();
        let stages: Vec<String> =
            order.stages.iter().map(|stage| stage.iter().map(id).collect::<Vec<_>>().join(" ")).collect();
        let pairs: Vec<String> =
            order.unmet.iter().map(|(whose, other)| format!("{}:{other}", id(whose))).collect();
        assert_eq!(
            (stages.join(" | "), pairs.join(" ")),
            (expected.to_owned(), unmet.to_owned()),
            "{handlers}"
        );
    }

    #[test]
    fn priority_then_what_they_say_of_each_other_then_id() {
        let table = [
            ("x.b 0; x.a 0; x.c 0", "x.a x.b x.c", ""),
            ("x.a 5; x.b -5; x.c 0", "x.b | x.c | x.a", ""),
            ("x.a 0 > x.b; x.b 0", "x.b | x.a", ""),
            ("x.b 0 < x.a; x.a 0", "x.b | x.a", ""),
            ("x.a 0 > x.c; x.b 0; x.c 0", "x.b x.c | x.a", ""),
            ("x.a 0 > x.b; x.b 0 > x.c; x.c 0", "x.c | x.b | x.a", ""),
            ("x.a 0 > x.b x.c; x.b 0; x.c 0; x.d 1", "x.b x.c | x.a | x.d", ""),
            // What it says of who is not there counts when that one is.
            ("x.a 0 > x.gone; x.b 0", "x.a x.b", ""),
            // The priority says it already, or says the contrary.
            ("x.a 0 < x.b; x.b 1", "x.a | x.b", ""),
            ("x.a 0 > x.b; x.b 1", "x.a | x.b", "x.a:x.b"),
            ("x.a 1 < x.b; x.b 0", "x.b | x.a", "x.a:x.b"),
            // Circles.
            ("x.a 0 > x.b; x.b 0 > x.a", "x.a | x.b", "x.a:x.b"),
            ("x.a 0 > x.a; x.b 0", "x.a x.b", "x.a:x.a"),
            ("x.c 0 > x.b; x.b 0 > x.a; x.a 0 > x.c; x.d 0 > x.a", "x.a | x.b x.d | x.c", "x.a:x.c"),
            ("x.a 0 < x.b; x.b 0 < x.a", "x.a | x.b", "x.b:x.a"),
        ];
        for (handlers, expected, unmet) in table {
            check(handlers, expected, unmet);
        }
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_who_was_loaded_first(
            handlers in proptest::collection::vec(
                (0..3_i32, proptest::collection::vec(0..6_usize, 0..3), proptest::collection::vec(0..6_usize, 0..3)),
                1..6,
            ),
            turn in 0..6_usize,
        ) {
            let all: Vec<ExtensionId> = (0..6).map(|n| format!("x.e{n}").parse().unwrap()).collect();
            let owned: Vec<_> = handlers
                .iter()
                .enumerate()
                .map(|(place, (priority, before, after))| {
                    let named = |list: &[usize]| list.iter().map(|n| all[*n].clone()).collect::<Vec<_>>();
                    (all[place].clone(), *priority, named(before), named(after))
                })
                .collect();
            let claims: Vec<_> = owned
                .iter()
                .map(|(extension, priority, before, after)| Claim { extension, method: "m", priority: *priority, before, after })
                .collect();
            let named = |order: &Order, claims: &[Claim<'_>]| -> Vec<Vec<String>> {
                let id = |place: &usize| claims[*place].extension.to_string();
                order.stages.iter().map(|stage| stage.iter().map(id).collect()).collect()
            };
            let one = order(&claims);
            let mut turned = claims.clone();
            turned.rotate_left(turn % claims.len());
            let other = order(&turned);
            prop_assert_eq!(named(&one, &claims), named(&other, &turned));
            prop_assert_eq!(one.stages.concat().len(), claims.len());
            prop_assert_eq!(one.unmet.len(), other.unmet.len());
            // Higher priorities come later, without exception.
            let priorities: Vec<i32> = one.stages.concat().iter().map(|place| claims[*place].priority).collect();
            prop_assert!(priorities.is_sorted());
        }
    }
}
