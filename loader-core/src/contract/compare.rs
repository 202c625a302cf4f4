//! Whether every value of one schema is a value of another.
//!
//! It is sound and simple: what it accepts fits, and what it cannot decide it refuses, naming the
//! keyword. Two readings make it useful. A map that names its properties is taken to hold no
//! others, unless it says what others look like: so a provider may take more than a consumer
//! knows. And `oneOf` is read as `anyOf`.

use std::collections::HashSet;

use quadriga_abi::contract::{BYTES, TIMESTAMP, definition, shape};
use serde_json::{Map, Value as Json};

use super::check::first_misfit;

mod list;
mod map;

/// How many pairs of schemas are compared before it gives up.
const MOST_STEPS: usize = 20_000;

/// How deep schemas are followed.
const DEEPEST: usize = 100;

/// Where a value that one side may send is none that the other takes.
#[derive(Debug, PartialEq)]
pub(super) struct Misfit {
    /// Property names and places, outermost first.
    pub(super) path: String,
    /// What is sent there.
    pub(super) sent: String,
    /// What is taken there.
    pub(super) taken: String,
    /// Why it was refused although it may fit.
    pub(super) undecided: Option<String>,
}

/// Compares two whole schemas.
pub(super) fn fits(sent: &Json, taken: &Json) -> Result<(), Misfit> {
    let roots = Roots { sent, taken };
    Comparison { roots, assumed: HashSet::new(), steps: 0, path: Vec::new() }.fits(sent, taken)
}

#[derive(Clone, Copy)]
struct Roots<'a> {
    sent: &'a Json,
    taken: &'a Json,
}

struct Comparison<'a> {
    roots: Roots<'a>,
    /// Pairs, by their addresses, that are being compared further out: recursive schemas fit if
    /// nothing else speaks against it.
    assumed: HashSet<(usize, usize, Option<&'a str>)>,
    steps: usize,
    path: Vec<String>,
}

type Keywords = Map<String, Json>;

/// A schema that is an object, as one of the types that it allows. `None` is any of them.
#[derive(Clone, Copy)]
struct Sent<'a> {
    keywords: &'a Keywords,
    ty: Option<&'a str>,
}

impl<'a> Comparison<'a> {
    fn fits(&mut self, sent: &'a Json, taken: &'a Json) -> Result<(), Misfit> {
        self.steps += 1;
        if self.steps > MOST_STEPS || self.path.len() > DEEPEST {
            return Err(self.undecided(sent, taken, "the schemas are too large"));
        }
        match (sent, taken) {
            (Json::Bool(false), _) | (_, Json::Bool(true)) => return Ok(()),
            (_, Json::Object(keywords)) if keywords.keys().all(|key| is_annotation(key)) => return Ok(()),
            (_, Json::Object(_)) => {}
            _ => return Err(self.misfit(sent, taken)),
        }
        let pair = (address(sent), address(taken), None);
        if !self.assumed.insert(pair) {
            return Ok(());
        }
        let fits = self.alternatives(sent, taken);
        self.assumed.remove(&pair);
        fits
    }

    /// Takes apart what is sent: each value, branch or type of it must fit.
    fn alternatives(&mut self, sent: &'a Json, taken: &'a Json) -> Result<(), Misfit> {
        let Json::Object(keywords) = sent else {
            // `true`: anything.
            return Err(self.misfit(sent, taken));
        };
        if let Some(Json::String(reference)) = keywords.get("$ref") {
            let Some(target) = definition(self.roots.sent, reference) else {
                return Err(self.undecided(sent, taken, "`$ref` refers to nothing"));
            };
            let first = self.fits(target, taken);
            let alone = keywords.keys().all(|key| key == "$ref" || is_annotation(key));
            return if alone || first.is_ok() { first } else { self.types(keywords, sent, taken) };
        }
        if let Some(values) = values(keywords) {
            let wrong = first_misfit(self.roots.taken, taken, &values);
            return wrong
                .map_or(Ok(()), |value| Err(Misfit { sent: value.to_string(), ..self.misfit(sent, taken) }));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Json::Array(branches)) = keywords.get(key) {
                let each = branches.iter().try_for_each(|branch| self.fits(branch, taken));
                return if each.is_err() && keywords.contains_key("type") {
                    self.types(keywords, sent, taken)
                } else {
                    each
                };
            }
        }
        if let Some(Json::Array(parts)) = keywords.get("allOf")
            && parts.iter().any(|part| self.fits(part, taken).is_ok())
        {
            return Ok(());
        }
        self.types(keywords, sent, taken)
    }

    fn types(&mut self, keywords: &'a Keywords, sent: &'a Json, taken: &'a Json) -> Result<(), Misfit> {
        match keywords.get("type") {
            Some(Json::Array(types)) => types
                .iter()
                .filter_map(Json::as_str)
                .try_for_each(|ty| self.one(Sent { keywords, ty: Some(ty) }, sent, taken)),
            ty => self.one(Sent { keywords, ty: ty.and_then(Json::as_str) }, sent, taken),
        }
    }

    /// Whether what is sent meets each keyword of what is taken.
    fn one(&mut self, sent: Sent<'a>, whole: &'a Json, taken: &'a Json) -> Result<(), Misfit> {
        self.steps += 1;
        let wanted = match taken {
            Json::Bool(true) => return Ok(()),
            Json::Object(wanted) if self.steps <= MOST_STEPS => wanted,
            _ => return Err(self.misfit(whole, taken)),
        };
        // In an order that no feature of serde_json changes, for errors are about the first.
        let mut keys: Vec<_> = wanted.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in keys {
            let fits = match key.as_str() {
                key if is_annotation(key) => true,
                "$ref" => {
                    match value.as_str().and_then(|reference| definition(self.roots.taken, reference)) {
                        Some(target) => {
                            self.through(sent, whole, target)?;
                            true
                        }
                        None => return Err(self.undecided(whole, taken, "`$ref` refers to nothing")),
                    }
                }
                "allOf" => {
                    value
                        .as_array()
                        .into_iter()
                        .flatten()
                        .try_for_each(|part| self.one(sent, whole, part))?;
                    true
                }
                "anyOf" | "oneOf" => {
                    self.any(sent, whole, taken, value)?;
                    true
                }
                "const" => sent.all_values().is_some_and(|all| all.iter().all(|one| one == value)),
                "enum" => sent.all_values().is_some_and(|all| {
                    all.iter().all(|one| value.as_array().is_some_and(|values| values.contains(one)))
                }),
                "type" => sent.ty.is_some_and(|ty| is_type(ty, value)) && sent.format_fits(wanted),
                "format" => sent.format_fits(wanted),
                "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" => {
                    !sent.may_be(&["integer", "number"]) || sent.is_within(key, value)
                }
                "minLength" => !sent.may_be(&["string"]) || sent.at_least(key, value),
                "maxLength" => !sent.may_be(&["string"]) || sent.at_most(key, value),
                "pattern" => !sent.may_be(&["string"]) || sent.keywords.get(key) == Some(value),
                "multipleOf" => !sent.may_be(&["integer", "number"]) || sent.keywords.get(key) == Some(value),
                "prefixItems" | "items" | "minItems" | "maxItems" | "uniqueItems" => {
                    !sent.may_be(&["array"]) || self.list(sent, wanted, key)?
                }
                "properties"
                | "required"
                | "additionalProperties"
                | "propertyNames"
                | "minProperties"
                | "maxProperties" => !sent.may_be(&["object"]) || self.map(sent, wanted, key)?,
                _ if sent.keywords.get(key) == Some(value) && !refers(value) => true,
                _ => return Err(self.undecided(whole, taken, &format!("`{key}` cannot be compared"))),
            };
            if !fits {
                return Err(self.misfit_of(sent, whole, taken));
            }
        }
        Ok(())
    }

    /// Follows a reference of what is taken, which may come back to itself.
    fn through(&mut self, sent: Sent<'a>, whole: &'a Json, target: &'a Json) -> Result<(), Misfit> {
        let pair = (address(sent.keywords), address(target), sent.ty);
        if !self.assumed.insert(pair) {
            return Ok(());
        }
        let fits = self.one(sent, whole, target);
        self.assumed.remove(&pair);
        fits
    }

    /// One of the branches must take all of what is sent. Which one was meant, if it is none, is
    /// the one in which the comparison came furthest.
    fn any(
        &mut self,
        sent: Sent<'a>,
        whole: &'a Json,
        taken: &'a Json,
        branches: &'a Json,
    ) -> Result<(), Misfit> {
        let here = self.path.concat().len();
        let mut furthest: Option<Misfit> = None;
        for branch in branches.as_array().into_iter().flatten() {
            match self.one(sent, whole, branch) {
                Ok(()) => return Ok(()),
                Err(misfit) if furthest.as_ref().is_none_or(|other| misfit.path.len() > other.path.len()) => {
                    furthest = Some(misfit);
                }
                Err(_) => {}
            }
        }
        Err(furthest
            .filter(|misfit| misfit.path.len() > here)
            .unwrap_or_else(|| self.misfit_of(sent, whole, taken)))
    }

    /// Compares something inside, under a step of the path.
    fn inside(&mut self, step: String, sent: &'a Json, taken: &'a Json) -> Result<(), Misfit> {
        self.path.push(step);
        let fits = self.fits(sent, taken);
        self.path.pop();
        fits
    }

    fn misfit(&self, sent: &Json, taken: &Json) -> Misfit {
        Misfit {
            path: self.path.concat(),
            sent: shape(self.roots.sent, sent),
            taken: shape(self.roots.taken, taken),
            undecided: None,
        }
    }

    /// Names the one type of several that does not fit.
    fn misfit_of(&self, sent: Sent<'_>, whole: &Json, taken: &Json) -> Misfit {
        let mut misfit = self.misfit(whole, taken);
        if let (Some(ty), Some(Json::Array(_))) = (sent.ty, sent.keywords.get("type")) {
            let mut one = sent.keywords.clone();
            one.insert("type".to_owned(), ty.into());
            misfit.sent = shape(self.roots.sent, &Json::Object(one));
        }
        misfit
    }

    fn undecided(&self, sent: &Json, taken: &Json, why: &str) -> Misfit {
        Misfit { undecided: Some(why.to_owned()), ..self.misfit(sent, taken) }
    }
}

impl Sent<'_> {
    fn may_be(self, types: &[&str]) -> bool {
        self.ty.is_none_or(|ty| types.contains(&ty))
    }

    fn number(self, key: &str) -> Option<f64> {
        self.keywords.get(key).and_then(Json::as_f64)
    }

    /// The values of a type that has only so many.
    fn all_values(self) -> Option<Vec<Json>> {
        match self.ty {
            Some("null") => Some(vec![Json::Null]),
            Some("boolean") => Some(vec![true.into(), false.into()]),
            _ => None,
        }
    }

    fn format_fits(self, wanted: &Keywords) -> bool {
        let format = |keywords: &Keywords| keywords.get("format").and_then(Json::as_str).map(str::to_owned);
        let (ours, theirs) = (format(self.keywords), format(wanted));
        let is_value = |format: &Option<String>| matches!(format.as_deref(), Some(BYTES | TIMESTAMP));
        // Formats of numbers, such as `int64`, only describe: their bounds say the rest.
        !self.may_be(&["string"]) || ours == theirs || (theirs.is_none() && !is_value(&ours))
    }

    fn is_within(self, key: &str, bound: &Json) -> bool {
        let Some(bound) = bound.as_f64() else { return false };
        let (least, above) = (self.number("minimum"), self.number("exclusiveMinimum"));
        let (most, below) = (self.number("maximum"), self.number("exclusiveMaximum"));
        match key {
            "minimum" => least.is_some_and(|n| n >= bound) || above.is_some_and(|n| n >= bound),
            "exclusiveMinimum" => least.is_some_and(|n| n > bound) || above.is_some_and(|n| n >= bound),
            "maximum" => most.is_some_and(|n| n <= bound) || below.is_some_and(|n| n <= bound),
            _ => most.is_some_and(|n| n < bound) || below.is_some_and(|n| n <= bound),
        }
    }

    fn at_least(self, key: &str, bound: &Json) -> bool {
        bound.as_f64().is_some_and(|bound| bound <= self.number(key).unwrap_or(0.0))
    }

    fn at_most(self, key: &str, bound: &Json) -> bool {
        bound.as_f64().zip(self.number(key)).is_some_and(|(bound, ours)| ours <= bound)
    }
}

fn address<T>(of: &T) -> usize {
    std::ptr::from_ref(of) as usize
}

fn is_type(ty: &str, wanted: &Json) -> bool {
    let one = |wanted: &Json| wanted == ty || (ty == "integer" && wanted == "number");
    wanted.as_array().map_or_else(|| one(wanted), |types| types.iter().any(one))
}

/// The only values that a schema takes, if it lists them.
fn values(keywords: &Keywords) -> Option<Vec<&Json>> {
    match (keywords.get("const"), keywords.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Json::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

/// Keywords that refuse nothing.
fn is_annotation(key: &str) -> bool {
    const WORDS: [&str; 14] = [
        "$defs",
        "$schema",
        "$id",
        "$comment",
        "$anchor",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
    ];
    WORDS.contains(&key) || key.starts_with("x-")
}

fn refers(schema: &Json) -> bool {
    match schema {
        Json::Object(keywords) => keywords.iter().any(|(key, value)| key == "$ref" || refers(value)),
        Json::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
