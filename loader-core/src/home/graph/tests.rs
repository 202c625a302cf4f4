use proptest::prelude::*;

use super::*;

/// Manifests of extensions `a.x0`, `a.x1` and so on, with these lines in each.
fn manifests(lines: &[String]) -> Vec<Manifest> {
    let manifest = |(n, lines): (usize, &String)| {
        let text = format!(
            "[extension]\nid = 'a.x{n}'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{lines}"
        );
        Manifest::parse(&text, "quadriga.toml").unwrap()
    };
    lines.iter().enumerate().map(manifest).collect()
}

/// The levels as text: those of one level joined by commas, levels by slashes.
fn order(lines: &[&str]) -> String {
    let manifests = manifests(&lines.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let graph = Graph::of(&manifests);
    let level = |level: Vec<usize>| {
        let ids: Vec<&str> = level.into_iter().map(|node| &graph.id(node).as_str()[2..]).collect();
        ids.join(",")
    };
    graph.levels().into_iter().map(level).collect::<Vec<_>>().join("/")
}

#[test]
fn independent_ones_start_together_and_each_after_what_it_needs() {
    let (x0, x1, x3) =
        ("[dependencies]\n'a.x0' = '1'", "[dependencies]\n'a.x1' = '1'", "[dependencies]\n'a.x3' = '1'");
    let (maybe, provides) =
        ("[optional-dependencies]\n'a.x1' = '1'", "[capabilities]\nprovides = ['t@1.2.0']");
    let requires = "[capabilities]\nrequires = ['t@^1']";
    let both = "[capabilities]\nprovides = ['t@1.0.0']\nrequires = ['t@^1']";
    let cases: &[(&[&str], &str)] = &[
        (&[], ""),
        (&["", ""], "x0,x1"),
        (&[x1, x3, "", ""], "x2,x3/x1/x0"),
        // A diamond.
        (&["", x0, x0, "[dependencies]\n'a.x1' = '1'\n'a.x2' = '1'"], "x0/x1,x2/x3"),
        // What cannot start is left out, with those that need it.
        (&["[dependencies]\n'a.x9' = '1'", x0, ""], "x2"),
        (&["", "[dependencies]\n'a.x0' = '2'"], "x0"),
        (&[x1, x0, ""], "x2"),
        // What is optional is waited for, unless that would be for ever.
        (&[maybe, ""], "x1/x0"),
        (&[maybe, x0], "x0/x1"),
        (&[maybe], "x0"),
        (&["[optional-dependencies]\n'a.x1' = '2'", ""], "x0,x1"),
        // Any provider will do, and all are waited for.
        (&[requires, provides, provides], "x1,x2/x0"),
        (&[requires], ""),
        (&[requires, "[capabilities]\nprovides = ['t@2.0.0']"], "x1"),
        (&[requires, provides, both], "x1/x2/x0"),
        (&[both], ""),
    ];
    for (lines, expected) in cases {
        assert_eq!(order(lines), *expected, "{lines:?}");
    }
}

#[test]
fn a_cycle_is_told_as_one() {
    let lines = ["'a.x1' = '1'", "'a.x2' = '1'\n'a.x3' = '1'", "'a.x1' = '1'", ""];
    let manifests = manifests(&lines.map(|it| format!("[dependencies]\n{it}")));
    let graph = Graph::of(&manifests);
    assert_eq!(graph.cycle(0), Some(vec![1, 2, 1]));
    assert_eq!(graph.cycle(3), None);
}

proptest! {
    /// With any needs, optional or not: each starts after all that it needs, and is left out only if one
    /// of those is.
    #[test]
    fn what_is_needed_starts_first(
        needs in proptest::collection::vec(proptest::collection::vec((0_usize..9, any::<bool>()), 0..4), 1..9),
    ) {
        let mut lines = Vec::new();
        for (n, list) in needs.iter().enumerate() {
            let of = |optional: bool| {
                let mut ids: Vec<usize> = list.iter().filter(|(_, it)| *it == optional).map(|it| it.0).collect();
                ids.retain(|id| *id != n && (!optional || !list.contains(&(*id, false))));
                ids.sort_unstable();
                ids.dedup();
                ids.into_iter().map(|id| format!("'a.x{id}' = '1'\n")).collect::<String>()
            };
            lines.push(format!("[dependencies]\n{}[optional-dependencies]\n{}", of(false), of(true)));
        }
        let manifests = manifests(&lines);
        let graph = Graph::of(&manifests);
        let levels = graph.levels();
        let level_of = |node: usize| levels.iter().position(|level| level.contains(&node));
        for node in 0..manifests.len() {
            let hard = || graph.edges[node].iter().filter(|edge| !edge.need.optional);
            match level_of(node) {
                Some(level) => for edge in hard() {
                    prop_assert!(edge.met_by.iter().any(|other| level_of(*other).is_some_and(|it| it < level)));
                },
                None => prop_assert!(hard().any(|edge| edge.met_by.iter().all(|it| level_of(*it).is_none()))),
            }
        }
        prop_assert_eq!(levels.iter().flatten().count(), graph.startable().len());
    }
}
