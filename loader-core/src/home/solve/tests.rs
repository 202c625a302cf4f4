use proptest::prelude::*;

use super::*;

fn manifest(id: &str, version: &str, lines: &str) -> Manifest {
    let text = format!(
        "[extension]\nid = '{id}'\nversion = '{version}'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{lines}"
    );
    Manifest::parse(&text, "quadriga.toml").unwrap()
}

/// Candidates are lines such as `a.b 1.0.0: a.c ^1, t@^2, provides t@1.0.0`; one that begins with `+` is
/// preferred, and one with `-` is disabled.
fn check(candidates: &[&str], wanted: &[&str], expected: Result<&str, (ErrorCode, &str)>) {
    let read = |line: &str| {
        let (name, rest) = line.trim_start_matches(['+', '-']).split_once(':').unwrap();
        let (id, version) = name.split_once(' ').unwrap();
        let (mut on, mut provides, mut requires) = (String::new(), Vec::new(), Vec::new());
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match (part.strip_prefix("provides "), part.split_once(' ')) {
                (Some(it), _) => provides.push(it),
                (None, Some((id, range))) => on += &format!("'{id}' = '{range}'\n"),
                (None, None) => requires.push(part),
            }
        }
        let lines =
            format!("[dependencies]\n{on}[capabilities]\nprovides = {provides:?}\nrequires = {requires:?}");
        manifest(id, version, &lines)
    };
    let manifests: Vec<Manifest> = candidates.iter().map(|line| read(line)).collect();
    let list: Vec<Candidate<'_>> = std::iter::zip(candidates, &manifests)
        .map(|(line, manifest)| {
            let barred = line.starts_with('-').then(|| "is disabled".to_owned());
            Candidate { manifest, preferred: line.starts_with('+'), barred }
        })
        .collect();
    let wanted: Vec<ExtensionId> = wanted.iter().map(|id| ExtensionId::new(*id).unwrap()).collect();
    let solved = solve(&list, &wanted.iter().collect::<Vec<_>>());
    let name = |place: usize| {
        let about = &manifests[place].extension;
        format!("{} {}", about.id, about.version)
    };
    let solved = solved.map(|all| all.into_iter().map(name).collect::<Vec<_>>().join(", "));
    match (&solved, expected) {
        (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected, "{candidates:?}"),
        (Err(error), Err((code, why))) => {
            assert_eq!((error.code, &*error.message), (code, why), "{candidates:?}");
        }
        _ => panic!("{candidates:?}: {solved:?}"),
    }
}

#[test]
fn the_newest_that_fit_each_other_are_chosen() {
    let words = ["a.words 1.0.0:", "a.words 1.1.0:", "a.words 2.0.0:"];
    check(&words, &["a.words"], Ok("a.words 2.0.0"));
    let with = |more: &[&'static str]| [&words[..], more].concat();
    check(&with(&["a.site 1.0.0: a.words ^1"]), &["a.site"], Ok("a.words 1.1.0, a.site 1.0.0"));
    // An older one, if the newest lacks something.
    let sites = with(&["a.site 1.0.0: a.words =1.0.0", "a.site 2.0.0: a.words ^3"]);
    check(&sites, &["a.site"], Ok("a.words 1.0.0, a.site 1.0.0"));
    // Two that agree on one in the middle.
    let two = with(&["a.site 1.0.0: a.words >=1.1", "a.rank 1.0.0: a.words <2"]);
    check(&two, &["a.site", "a.rank"], Ok("a.words 1.1.0, a.site 1.0.0, a.rank 1.0.0"));
}

#[test]
fn a_capability_is_had_of_whoever_provides_it() {
    let two = ["a.p 1.0.0: provides t@1.0.0", "a.q 1.0.0: provides t@1.5.0", "a.r 1.0.0: t@^1"];
    check(&two, &["a.r"], Ok("a.p 1.0.0, a.r 1.0.0"));
    check(&[two[0], "+a.q 1.0.0: provides t@1.5.0", two[2]], &["a.r"], Ok("a.q 1.0.0, a.r 1.0.0"));
    check(&["-a.p 1.0.0: provides t@1.0.0", two[1], two[2]], &["a.r"], Ok("a.q 1.0.0, a.r 1.0.0"));
    // The other, where one lacks something itself.
    let lacks = "a.p 1.0.0: a.z ^1, provides t@1.0.0";
    check(&[lacks, two[1], two[2]], &["a.r"], Ok("a.q 1.0.0, a.r 1.0.0"));
    // Two that want different versions get it of two.
    let both = ["a.p 1.0.0: provides t@1.0.0", "a.q 1.0.0: provides t@2.0.0", two[2], "a.s 1.0.0: t@^2"];
    check(&both, &["a.r", "a.s"], Ok("a.p 1.0.0, a.q 1.0.0, a.r 1.0.0, a.s 1.0.0"));
    // None provides it for itself.
    let wrapper = "a.r 1.0.0: t@^1, provides t@1.0.0";
    check(&[wrapper, two[1]], &["a.r"], Ok("a.r 1.0.0, a.q 1.0.0"));
    // Who needs the one that it is to serve cannot.
    let circle = ["a.p 1.0.0: a.r ^1, provides t@1.0.0", two[1], two[2]];
    check(&circle, &["a.r"], Ok("a.q 1.0.0, a.r 1.0.0"));
}

#[test]
fn what_does_not_fit_is_told_in_facts() {
    use ErrorCode::{DependencyCycle, MissingDependency};
    let site = "a.site 1.0.0: a.words ^2";
    let cases: &[(&[&str], &[&str], ErrorCode, &str)] = &[
        (&[site], &["a.site"], MissingDependency, "a.site 1.0.0 needs a.words ^2, which is not installed"),
        (
            &[site, "a.words 1.0.0:", "a.words 1.1.0:"],
            &["a.site"],
            MissingDependency,
            "a.site 1.0.0 needs a.words ^2; there is 1.0.0 and 1.1.0",
        ),
        (
            &[site, "a.rank 1.0.0: a.words ^1", "a.words 1.0.0:", "a.words 2.0.0:"],
            &["a.site", "a.rank"],
            MissingDependency,
            "a.rank 1.0.0 needs a.words ^1; a.site 1.0.0 needs a.words ^2",
        ),
        (
            &[site, "-a.words 2.0.0:"],
            &["a.site"],
            MissingDependency,
            "a.site 1.0.0 needs a.words ^2; a.words 2.0.0 is disabled",
        ),
        (
            &["a.r 1.0.0: t@^1", "a.p 1.0.0: provides t@2.0.0"],
            &["a.r"],
            MissingDependency,
            "a.r 1.0.0 needs the capability t@^1, which nothing provides that is installed",
        ),
        (
            &["a.x 1.0.0: a.y ^1", "a.y 1.0.0: a.z ^1", "a.z 1.0.0: a.y ^1"],
            &["a.x"],
            DependencyCycle,
            "these need each other, so that none can start first: a.y -> a.z -> a.y",
        ),
        (
            &["a.r 1.0.0: t@^1", "a.p 1.0.0: a.r ^1, provides t@1.0.0"],
            &["a.r"],
            DependencyCycle,
            "these need each other, so that none can start first: a.p -> a.r -> a.p",
        ),
    ];
    for (candidates, wanted, code, why) in cases {
        check(candidates, wanted, Err((*code, why)));
    }
}

proptest! {
    /// There is an answer if trying all of them finds one, and then it is one.
    #[test]
    fn it_finds_what_there_is(
        // For each of four extensions two versions, each needing ranges of those after it.
        needs in proptest::collection::vec(proptest::collection::vec((1_usize..4, 0_usize..3), 0..3), 8),
        barred in proptest::collection::vec(0..6, 8),
    ) {
        let range = |at: usize| ["^1", "^2", "*"][at];
        let mut manifests = Vec::new();
        for (place, list) in needs.iter().enumerate() {
            let (id, version) = (place / 2, place % 2 + 1);
            let mut list: Vec<(usize, usize)> = list.iter().map(|(on, at)| (id + on, *at)).collect();
            list.sort_unstable();
            list.dedup_by_key(|it| it.0);
            let lines: String = list.iter().map(|(on, at)| format!("'a.x{on}' = '{}'\n", range(*at))).collect();
            let lines = format!("[dependencies]\n{lines}");
            manifests.push(manifest(&format!("a.x{id}"), &format!("{version}.0.0"), &lines));
        }
        let candidate = |(manifest, barred)| {
            let barred: Option<String> = match barred {
                0 => Some("is barred".to_owned()),
                _ => None,
            };
            Candidate { manifest, preferred: false, barred }
        };
        let list: Vec<Candidate<'_>> = manifests.iter().zip(barred).map(candidate).collect();
        let fits = |chosen: &[usize]| {
            chosen.iter().all(|place| {
                list[*place].barred.is_none()
                    && Need::all(list[*place].manifest)
                        .all(|need| chosen.iter().any(|other| need.what.is_met_by(list[*other].manifest)))
            })
        };
        // None, or the first, or the second version of each.
        let all = (0..81_usize).map(|n| {
            let digit = |id: usize| n / 3_usize.pow(u32::try_from(id).unwrap()) % 3;
            (0..4).filter(|id| digit(*id) > 0).map(|id| id * 2 + digit(id) - 1).collect::<Vec<_>>()
        });
        let mut answers = all.filter(|chosen| chosen.iter().any(|it| it / 2 == 0) && fits(chosen));
        let wanted = ExtensionId::new("a.x0").unwrap();
        match solve(&list, &[&wanted]) {
            Ok(chosen) => {
                prop_assert!(chosen.iter().any(|it| it / 2 == 0) && fits(&chosen), "{chosen:?}");
                prop_assert!((0..4).all(|id| chosen.iter().filter(|it| **it / 2 == id).count() < 2));
            }
            Err(error) => prop_assert_eq!(answers.next(), None, "{}", error),
        }
    }
}
