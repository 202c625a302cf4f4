//! What an SPDX expression leaves to choose from, and whether some choice is permitted.

use std::collections::BTreeSet;

use spdx::flags::IS_DEPRECATED;
use spdx::identifiers::LICENSES;
use spdx::{Expression, LicenseItem, LicenseReq, ParseMode};

use super::LicensePolicy;

/// As package managers write expressions: deprecated names, `GPL-2.0+` and `MIT/Apache-2.0` are known.
/// Names that only resemble one of the list are not.
const MODE: ParseMode = ParseMode {
    allow_slash_as_or_operator: true,
    allow_imprecise_license_names: false,
    allow_postfix_plus_on_gpl: true,
    allow_deprecated: true,
    allow_unknown: false,
};

/// What is longer is no expression that anybody wrote, in bytes.
const LONGEST: usize = 4096;

/// A licence of one version, with or without an exception.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    name: String,
    exception: Option<String>,
}

/// A policy, ready to be asked.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    policy: &'a LicensePolicy,
    allow: Option<BTreeSet<Choice>>,
    deny: BTreeSet<Choice>,
}

impl<'a> Rules<'a> {
    /// Fails with the first entry that is no licence.
    pub(super) fn of(policy: &'a LicensePolicy) -> Result<Self, &'a str> {
        let choices = |list: &'a BTreeSet<String>| -> Result<BTreeSet<Choice>, &'a str> {
            let each = list.iter().map(|text| entry(text).ok_or(text.as_str()));
            Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        Ok(Self {
            policy,
            allow: policy.allow.as_ref().map(choices).transpose()?,
            deny: choices(&policy.deny)?,
        })
    }

    /// Whether some choice that a licence leaves is permitted, or why not.
    pub(super) fn judge(&self, license: Option<&str>) -> Result<(), String> {
        let unknown = |why: &str| match self.policy.unknown {
            true => Ok(()),
            false => Err(format!("{why}, and what is unknown is denied")),
        };
        let Some(text) = license else { return unknown("it says nothing of a licence") };
        let Some(expression) = parse(text) else { return unknown("that is no SPDX expression") };
        expression.evaluate_with_failures(|requirement| self.permits(requirement)).map_err(|failures| {
            let mut why: Vec<String> = failures.iter().map(|it| self.why(&it.req)).collect();
            why.dedup();
            why.join(", and ")
        })
    }

    fn permits(&self, requirement: &LicenseReq) -> bool {
        let listed = |it: &Choice| self.allow.as_ref().is_none_or(|allow| allow.contains(it));
        choices(requirement).iter().any(|it| !self.denies(it) && listed(it))
    }

    /// What is denied is denied with whatever exception.
    fn denies(&self, choice: &Choice) -> bool {
        let whole = || Choice { exception: None, ..choice.clone() };
        self.deny.contains(choice) || choice.exception.is_some() && self.deny.contains(&whole())
    }

    fn why(&self, requirement: &LicenseReq) -> String {
        match choices(requirement).iter().all(|it| self.denies(it)) {
            true => format!("{requirement} is denied"),
            false => format!("{requirement} is not among the licences that are allowed"),
        }
    }
}

fn parse(text: &str) -> Option<Expression> {
    (text.len() <= LONGEST).then(|| Expression::parse_mode(text, MODE).ok()).flatten()
}

/// What an entry of a policy covers: one licence, with an exception or without.
fn entry(text: &str) -> Option<BTreeSet<Choice>> {
    // `Apache-2.0+` means the same here as in an expression; `A OR B` means nothing.
    let expression = parse(text)?;
    let mut all = expression.requirements();
    let one = all.next().filter(|_| all.next().is_none())?;
    Some(choices(&one.req))
}

/// The names of the list that an entry should have, to suggest one.
pub(super) fn names() -> Vec<&'static str> {
    LICENSES.iter().filter(|it| it.flags & IS_DEPRECATED == 0).map(|it| it.name).collect()
}

/// The licences that a requirement leaves to choose from. `+` and `-or-later` leave later versions.
fn choices(requirement: &LicenseReq) -> BTreeSet<Choice> {
    let exception = requirement.addition.as_ref().map(ToString::to_string);
    let choice = |name: String| Choice { name, exception: exception.clone() };
    let (id, or_later) = match &requirement.license {
        LicenseItem::Other(other) => return [choice(other.to_string())].into(),
        LicenseItem::Spdx { id, or_later } => (*id, *or_later),
    };
    // Deprecated names of a licence with an exception.
    if let Some((name, exception)) = id.name.split_once("-with-") {
        return [Choice { name: of_version(name), exception: Some(exception.to_owned()) }].into();
    }
    let stem = stem(id.name);
    if !or_later && !id.name.ends_with("-or-later") && !id.name.ends_with('+') {
        return [choice(of_version(stem))].into();
    }
    let each = LICENSES.iter().map(|it| self::stem(it.name)).filter(|it| is_same_or_later(it, stem));
    each.map(|it| choice(of_version(it))).collect()
}

/// The name of a licence and its version, without what GNU's say of other versions.
fn stem(name: &str) -> &str {
    let ends = ["-only", "-or-later", "+"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The one name for that version alone: `GPL-2.0` is a deprecated one for `GPL-2.0-only`.
fn of_version(stem: &str) -> String {
    let only = format!("{stem}-only");
    if spdx::license_id(&only).is_some() { only } else { stem.to_owned() }
}

/// Whether one licence is another one, or a later version of it.
fn is_same_or_later(one: &str, other: &str) -> bool {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (one.split('-').collect(), other.split('-').collect());
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(ours, theirs)| {
            ours == theirs || version(ours).zip(version(theirs)).is_some_and(|(ours, theirs)| ours > theirs)
        })
}

/// `2.0`, and not the 2 of `BSD-2-Clause`.
fn version(text: &str) -> Option<Vec<u32>> {
    text.contains('.').then(|| text.split('.').map(|part| part.parse().ok()).collect()).flatten()
}
