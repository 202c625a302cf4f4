use serde_json::Value as Json;

use super::{Comparison, Keywords, Misfit, Sent};

static ANY: Json = Json::Bool(true);

/// The items of a list by their places.
struct Items<'a> {
    first: &'a [Json],
    rest: &'a Json,
    least: usize,
    most: usize,
}

impl<'a> Items<'a> {
    fn of(keywords: &'a Keywords) -> Self {
        let count = |key| keywords.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        let first = keywords.get("prefixItems").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let rest = keywords.get("items").unwrap_or(&ANY);
        let listed = if *rest == Json::Bool(false) { first.len() } else { usize::MAX };
        let most = count("maxItems").unwrap_or(usize::MAX).min(listed);
        Self { first, rest, least: count("minItems").unwrap_or(0), most }
    }

    fn at(&self, place: usize) -> &'a Json {
        self.first.get(place).unwrap_or(self.rest)
    }
}

impl<'a> Comparison<'a> {
    /// Whether lists that are sent meet one keyword of what is taken.
    pub(super) fn list(&mut self, sent: Sent<'a>, wanted: &'a Keywords, key: &str) -> Result<bool, Misfit> {
        let (sent_items, taken) = (Items::of(sent.keywords), Items::of(wanted));
        match key {
            "minItems" => Ok(sent_items.least >= taken.least),
            "maxItems" => Ok(sent_items.most <= taken.most),
            "uniqueItems" => {
                let unique = Some(&Json::Bool(true));
                Ok(wanted.get(key) != unique || sent.keywords.get(key) == unique || sent_items.most <= 1)
            }
            // Both come at once, at the first of them.
            "items" if wanted.contains_key("prefixItems") => Ok(true),
            _ => {
                if sent_items.most > taken.most {
                    return Ok(false);
                }
                let places = sent_items.first.len().max(taken.first.len());
                for place in 0..places.min(sent_items.most) {
                    let step = self.step(wanted, place);
                    self.inside(step, sent_items.at(place), taken.at(place))?;
                }
                if sent_items.most > places {
                    self.inside("[]".to_owned(), sent_items.rest, taken.rest)?;
                }
                Ok(true)
            }
        }
    }

    /// The name of a parameter, or the place in a list.
    fn step(&self, wanted: &Keywords, place: usize) -> String {
        let title = wanted.get("prefixItems").and_then(|items| items.get(place)?.get("title")?.as_str());
        match title.filter(|_| self.path.is_empty()) {
            Some(name) => name.to_owned(),
            None => format!("[{place}]"),
        }
    }
}
