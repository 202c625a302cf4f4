//! Data of the host that extensions may query.

use std::collections::BTreeMap;

use quadriga_abi::{Error, Value};
use serde::{Deserialize, Serialize};

/// A table or collection of the host's, or anything else with rows, that extensions read and never change.
///
/// It knows nothing of permissions. Whoever asks may see every field that a query names: the dispatcher has
/// looked at that before, and takes out of the rows what is not to be seen. It is asked on threads where it may
/// wait, from many at once.
///
/// ```
/// use quadriga_core::{DataPage, DataQuery, DataSource, Dispatcher, abi};
///
/// /// The files of a folder.
/// struct Files(std::path::PathBuf);
///
/// impl DataSource for Files {
///     fn query(&self, query: &DataQuery) -> Result<DataPage, abi::Error> {
///         let failed = |error: std::io::Error| abi::Error::new(abi::ErrorCode::Internal, error.to_string());
///         let names = std::fs::read_dir(&self.0).map_err(failed)?.flatten();
///         let row = |file: std::fs::DirEntry| {
///             let name = file.file_name().to_string_lossy().into_owned();
///             [("name".to_owned(), abi::Value::Text(name))].into()
///         };
///         Ok(DataPage { rows: names.take(query.limit).map(row).collect(), next: None })
///     }
/// }
/// let builder = Dispatcher::builder().source("files", Files(".".into()));
/// ```
pub trait DataSource: Send + Sync + 'static {
    /// The rows for which all filters hold, in the order that is asked for: a page of them.
    ///
    /// # Errors
    /// If the source fails, or cannot do what the query asks for; the extension gets it as it is.
    fn query(&self, query: &DataQuery) -> Result<DataPage, Error>;
}

/// Which rows, and what of them.
#[derive(Debug, Clone, PartialEq)]
pub struct DataQuery {
    /// The fields that are wanted; `None` for all. What else is in the rows does not reach the extension.
    pub fields: Option<Vec<String>>,
    /// What holds for a row, all of it.
    pub filters: Vec<DataFilter>,
    /// The order: by the first field, where that is the same by the next one, and then as the source likes.
    pub order: Vec<DataOrder>,
    /// The most rows of a page: 1 to 1000.
    pub limit: usize,
    /// Where the page begins: the `next` of the one before, if the extension did not make it up. Up to 1024
    /// bytes.
    pub cursor: Option<String>,
}

/// What holds for a field.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFilter {
    /// The field.
    pub field: String,
    /// How it is compared with the value.
    pub is: DataComparison,
    /// The value, as the extension gave it.
    pub value: Value,
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DataComparison {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    BelowOrEqual,
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AboveOrEqual,
}

/// A field that rows are in the order of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOrder {
    /// The field.
    pub field: String,
    /// Whether the largest come first.
    pub descending: bool,
}

/// Some rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DataPage {
    /// Fields by their names. There are no more of them than the limit: what is beyond it is an error.
    pub rows: Vec<BTreeMap<String, Value>>,
    /// Where the next page begins, if there is one. The extension sees it, so it says nothing that is not to
    /// be seen.
    pub next: Option<String>,
}
