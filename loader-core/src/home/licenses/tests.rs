use proptest::prelude::*;

use super::*;

fn of(allow: Option<&[&str]>, deny: &[&str], unknown: bool) -> LicensePolicy {
    let set = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    LicensePolicy { allow: allow.map(set), deny: set(deny), unknown, exceptions: BTreeSet::new() }
}

/// What is allowed and denied, a licence, and why it is refused.
type Case<'a> = (Option<&'a [&'a str]>, &'a [&'a str], &'a str, &'a str);

#[test]
fn some_choice_has_to_be_permitted() {
    const OK: &str = "";
    let all = None;
    let (mit, two): (Option<&[&str]>, Option<&[&str]>) = (Some(&["MIT"]), Some(&["MIT", "Apache-2.0"]));
    let cases: &[Case<'_>] = &[
        (all, &[], "AGPL-3.0-only", OK),
        (mit, &[], "MIT", OK),
        (mit, &[], "ISC", "ISC is not among the licences that are allowed"),
        (mit, &[], "MIT OR ISC", OK),
        (mit, &[], "ISC OR MIT", OK),
        (mit, &[], "MIT AND ISC", "ISC is not among the licences that are allowed"),
        (mit, &[], "MIT AND (ISC OR MIT)", OK),
        (two, &[], "MIT AND Apache-2.0", OK),
        (mit, &[], "MIT/Apache-2.0", OK),
        // Denied, whatever is allowed.
        (all, &["AGPL-3.0-only"], "AGPL-3.0-only", "AGPL-3.0-only is denied"),
        (all, &["AGPL-3.0-only"], "MIT OR AGPL-3.0-only", OK),
        (all, &["AGPL-3.0-only"], "MIT AND AGPL-3.0-only", "AGPL-3.0-only is denied"),
        (mit, &["MIT"], "MIT", "MIT is denied"),
        // There is no later version to choose instead.
        (all, &["AGPL-3.0-only"], "AGPL-3.0-or-later", "AGPL-3.0-or-later is denied"),
        (all, &["GPL-2.0-only"], "GPL-2.0-or-later", OK),
        (all, &["GPL-2.0-or-later"], "GPL-3.0-only", "GPL-3.0-only is denied"),
        (all, &["GPL-2.0-or-later"], "GPL-1.0-only", OK),
        // A licensee may take a later version, and no other one.
        (Some(&["GPL-3.0-only"]), &[], "GPL-2.0-or-later", OK),
        (Some(&["GPL-3.0-only"]), &[], "GPL-2.0+", OK),
        (Some(&["GPL-2.0-or-later"]), &[], "GPL-3.0-only", OK),
        (
            Some(&["GPL-2.0-only"]),
            &[],
            "GPL-3.0-or-later",
            "GPL-3.0-or-later is not among the licences that are allowed",
        ),
        (Some(&["GPL-2.0-only"]), &[], "GPL-2.0", OK),
        (Some(&["GPL-2.0"]), &[], "GPL-2.0-only", OK),
        (Some(&["Apache-2.0"]), &[], "Apache-1.1+", OK),
        (Some(&["Apache-2.0"]), &[], "Apache-1.1", "Apache-1.1 is not among the licences that are allowed"),
        (Some(&["Apache-1.0+"]), &[], "Apache-2.0", OK),
        (
            Some(&["BSD-3-Clause"]),
            &[],
            "BSD-2-Clause+",
            "BSD-2-Clause+ is not among the licences that are allowed",
        ),
        (
            Some(&["LGPL-3.0-only"]),
            &[],
            "GPL-3.0-only",
            "GPL-3.0-only is not among the licences that are allowed",
        ),
        // Exceptions.
        (Some(&["Apache-2.0 WITH LLVM-exception"]), &[], "Apache-2.0 WITH LLVM-exception", OK),
        (
            Some(&["Apache-2.0"]),
            &[],
            "Apache-2.0 WITH LLVM-exception",
            "Apache-2.0 WITH LLVM-exception is not among the licences that are allowed",
        ),
        (
            all,
            &["GPL-2.0-only"],
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0 is denied",
        ),
        (all, &["GPL-2.0-only"], "GPL-2.0-with-GCC-exception", "GPL-2.0-with-GCC-exception is denied"),
        (all, &["GPL-2.0-only WITH Classpath-exception-2.0"], "GPL-2.0-only", OK),
        (
            all,
            &["AGPL-3.0-only"],
            "AGPL-3.0-only WITH AdditionRef-x",
            "AGPL-3.0-only WITH AdditionRef-x is denied",
        ),
        // Those of nobody else.
        (Some(&["LicenseRef-Acme"]), &[], "LicenseRef-Acme", OK),
        (mit, &[], "LicenseRef-Acme", "LicenseRef-Acme is not among the licences that are allowed"),
        (all, &["LicenseRef-Acme"], "LicenseRef-Acme", "LicenseRef-Acme is denied"),
        (mit, &["ISC"], "ISC AND Zlib", "ISC is denied, and Zlib is not among the licences that are allowed"),
    ];
    for (allow, deny, license, expected) in cases {
        let said = of(*allow, deny, false).judge(Some(license)).err().unwrap_or_default();
        assert_eq!(said, *expected, "allow {allow:?} deny {deny:?}: {license}");
    }
}

#[test]
fn what_is_unknown_is_a_matter_of_policy() {
    let long = format!("MIT{}", " OR MIT".repeat(1000));
    for license in [None, Some(""), Some("Apache 2"), Some("SEE LICENSE IN x"), Some("BSD"), Some(&*long)] {
        for allow in [None, Some(&["MIT"][..])] {
            assert!(of(allow, &["ISC"], true).judge(license).is_ok(), "{license:?}");
            let said = of(allow, &[], false).judge(license).unwrap_err();
            assert!(said.ends_with(", and what is unknown is denied"), "{license:?}: {said}");
        }
    }
}

#[test]
fn entries_are_licences() {
    for entry in ["MIT OR ISC", "MIT AND ISC", "", "mti", "Apache 2", "WITH LLVM-exception", "*"] {
        assert!(of(Some(&[entry]), &[], true).judge(Some("MIT")).is_err(), "{entry}");
        assert_eq!(Rules::of(&of(None, &[entry], true)).unwrap_err(), entry);
    }
    assert_eq!(unknown("Apache-2.").hint.as_deref(), Some("did you mean \"Apache-2.0\"?"));
    assert_eq!(unknown("AGPL-3.0").hint.as_deref(), Some("there are AGPL-3.0-only, AGPL-3.0-or-later"));
    assert!(unknown("proprietary stuff").hint.as_ref().unwrap().contains("https://spdx.org/licenses/"));
}

/// An expression, and the licences in it.
fn expression() -> impl Strategy<Value = (String, Vec<String>)> {
    let names =
        ["MIT", "ISC", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "GPL-2.0-only", "LicenseRef-x"];
    let later = ["GPL-2.0-or-later", "Apache-1.1+", "MPL-1.1+", "LGPL-2.1-or-later"];
    let all: Vec<&str> = names.into_iter().chain(later).collect();
    let leaf = prop::sample::select(all).prop_map(|it| (it.to_owned(), vec![it.to_owned()]));
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), prop::sample::select(vec!["AND", "OR"]), inner)
            .prop_map(|(a, with, b)| (format!("({} {with} {})", a.0, b.0), [a.1, b.1].concat()))
    })
}

proptest! {
    #[test]
    fn who_allows_all_of_an_expression_accepts_it((text, names) in expression()) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        prop_assert_eq!(of(Some(&names), &[], false).judge(Some(&text)), Ok(()));
        prop_assert_eq!(of(None, &[], false).judge(Some(&text)), Ok(()));
    }

    #[test]
    fn who_denies_all_of_it_or_allows_none_refuses_it((text, names) in expression()) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        prop_assert!(of(None, &names, true).judge(Some(&text)).is_err());
        prop_assert!(of(Some(&names), &names, true).judge(Some(&text)).is_err());
        prop_assert!(of(Some(&[]), &[], true).judge(Some(&text)).is_err());
    }

    #[test]
    fn any_text_is_judged(text in ".{0,60}", entry in ".{0,20}") {
        let _ = of(Some(&[&entry]), &[], false).judge(Some(&text));
        let _ = of(None, &["MIT"], false).judge(Some(&text));
    }
}
