use quadriga_abi::contract::shape;
use serde_json::Value as Json;

use super::{Comparison, Keywords, Misfit, Sent};

static ANY: Json = Json::Bool(true);

impl<'a> Comparison<'a> {
    /// Whether maps that are sent meet one keyword of what is taken.
    pub(super) fn map(&mut self, sent: Sent<'a>, wanted: &'a Keywords, key: &str) -> Result<bool, Misfit> {
        match key {
            "required" => {
                let names = |keywords: &'a Keywords| keywords.get("required").and_then(Json::as_array);
                let sent_names = names(sent.keywords).map_or(&[][..], Vec::as_slice);
                let Some(missing) =
                    names(wanted).into_iter().flatten().find(|name| !sent_names.contains(name))
                else {
                    return Ok(true);
                };
                let name = missing.as_str().unwrap_or_default();
                let taken = property(wanted, name).unwrap_or(&ANY);
                let mut misfit = self.misfit(&ANY, taken);
                misfit.path.push_str(&format!(".{name}"));
                misfit.sent = match property(sent.keywords, name) {
                    Some(schema) => format!("{} or nothing", shape(self.roots.sent, schema)),
                    None => "nothing".to_owned(),
                };
                Err(misfit)
            }
            "properties" => {
                let properties = wanted.get("properties").and_then(Json::as_object);
                for (name, taken) in properties.into_iter().flatten() {
                    if let Some(sent) = sent_property(sent.keywords, name) {
                        self.inside(format!(".{name}"), sent, taken)?;
                    }
                }
                Ok(true)
            }
            "additionalProperties" => {
                let taken = wanted.get(key).unwrap_or(&ANY);
                let properties = sent.keywords.get("properties").and_then(Json::as_object);
                for (name, sent) in properties.into_iter().flatten() {
                    if property(wanted, name).is_none() {
                        self.inside(format!(".{name}"), sent, taken)?;
                    }
                }
                match others(sent.keywords) {
                    Some(others) => self.inside("[]".to_owned(), others, taken).map(|()| true),
                    None => Ok(true),
                }
            }
            "propertyNames" => Ok(sent.keywords.get(key) == wanted.get(key)),
            "minProperties" => {
                let required = sent.keywords.get("required").and_then(Json::as_array).map_or(0, Vec::len);
                let least = wanted.get(key).and_then(Json::as_u64).unwrap_or(u64::MAX);
                Ok(required as u64 >= least || wanted.get(key).is_some_and(|bound| sent.at_least(key, bound)))
            }
            _ => Ok(wanted.get(key).is_some_and(|bound| sent.at_most(key, bound))),
        }
    }
}

fn property<'a>(keywords: &'a Keywords, name: &str) -> Option<&'a Json> {
    keywords.get("properties")?.get(name)
}

/// What is sent under a name, if something may be.
fn sent_property<'a>(keywords: &'a Keywords, name: &str) -> Option<&'a Json> {
    property(keywords, name).or_else(|| others(keywords))
}

/// What is sent under names that are not listed. A map that lists names is taken to hold no
/// others, unless it says what they look like.
fn others(keywords: &Keywords) -> Option<&Json> {
    match keywords.get("additionalProperties") {
        Some(Json::Bool(false)) => None,
        None | Some(Json::Bool(true)) if keywords.contains_key("properties") => None,
        None => Some(&ANY),
        Some(schema) => Some(schema),
    }
}
