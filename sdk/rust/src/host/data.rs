//! Data of the host, of which the extension sees the fields that the permission `data` names.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Result, call};
use quadriga_abi::Value;

/// Which rows of a source, and what of them.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::host::data::{Is, Query};
/// #[derive(serde::Deserialize)]
/// struct Customer {
///     name: String,
/// }
/// let mut query = Query::new("customers").fields(["name"]).filter("city", Is::Equal, "Paris")?.limit(50);
/// loop {
///     let page = query.page::<Customer>()?;
///     page.rows.iter().for_each(|customer| println!("{}", customer.name));
///     let Some(next) = page.next else { break };
///     query = query.cursor(next);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before the page is read"]
pub struct Query {
    source: String,
    options: Options,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Options {
    fields: Option<Vec<String>>,
    #[serde(rename = "where")]
    filters: Vec<(String, &'static str, Value)>,
    order: Vec<(String, &'static str)>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Is {
    Equal,
    Below,
    BelowOrEqual,
    Above,
    AboveOrEqual,
}

/// Some rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Page<T> {
    /// Each with the fields that were asked for, as far as it has them.
    pub rows: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl Query {
    /// All rows of a source, with all fields that were granted.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), options: Options::default() }
    }

    /// Only these fields.
    pub fn fields<F: Into<String>>(mut self, fields: impl IntoIterator<Item = F>) -> Self {
        self.options.fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }

    /// Only the rows for which this holds, beside what was said before. Fails if the value cannot be sent.
    #[track_caller]
    pub fn filter(mut self, field: impl Into<String>, is: Is, value: impl Serialize) -> Result<Self> {
        let operator = match is {
            Is::Equal => "=",
            Is::Below => "<",
            Is::BelowOrEqual => "<=",
            Is::Above => ">",
            Is::AboveOrEqual => ">=",
        };
        match Value::of(&value) {
            Ok(value) => self.options.filters.push((field.into(), operator, value)),
            Err(error) => return Err(crate::Error::new(format!("the value cannot be sent: {error}"))),
        }
        Ok(self)
    }

    /// In the order of a field, then of those that are named later.
    pub fn order_by(mut self, field: impl Into<String>) -> Self {
        self.options.order.push((field.into(), "asc"));
        self
    }

    /// The same the other way round.
    pub fn order_by_descending(mut self, field: impl Into<String>) -> Self {
        self.options.order.push((field.into(), "desc"));
        self
    }

    /// So many rows in a page, rather than 100; 1000 at most.
    pub fn limit(mut self, limit: usize) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// From where the page before ended.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.options.cursor = Some(cursor.into());
        self
    }

    /// Reads a page. Fails with `permission_denied` if a field is named that was not granted, and with
    /// `message_too_large` if the page is.
    #[track_caller]
    pub fn page<T: DeserializeOwned>(&self) -> Result<Page<T>> {
        call("quadriga.data", "query", (&self.source, &self.options))
    }
}
