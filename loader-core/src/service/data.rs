//! `quadriga.data`: extensions query data of the host, and see the fields that they are granted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::{Access, is_plain_name};
use quadriga_abi::{Bytes, Error, ErrorCode, Value, codec};
use serde::Deserialize;

use super::{Service, unknown_method};
use crate::route::suggest;
use crate::{
    Bridge, CallContext, DataComparison, DataFilter, DataOrder, DataPage, DataQuery, DataSource, Outcome,
};

/// The rows of a page that the extension does not say the number of, and the most.
const LIMIT: usize = 100;
const MOST: usize = 1000;

/// The most fields, filters and orders of a query, and bytes of a cursor.
const NAMED: usize = 100;
const CURSOR: usize = 1024;

/// Bytes of a page.
const PAGE: u64 = 4 << 20;

/// What stands for all fields where an access is looked at.
const ALL: &str = "*";

/// The service: sources by name.
#[derive(Default)]
pub(crate) struct Data {
    pub(crate) sources: HashMap<String, Arc<dyn DataSource>>,
}

/// The second argument of `query`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    fields: Option<Vec<String>>,
    r#where: Option<Vec<(String, DataComparison, Value)>>,
    order: Option<Vec<(String, Way)>>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Way {
    Asc,
    Desc,
}

impl Service for Data {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let begin = || {
            if method != "query" {
                return Err(unknown_method("data", method, &["query"]));
            }
            let (name, mut query) = read(&arguments).map_err(|why| {
                let message = format!("quadriga.data/query: the arguments: {why}");
                Error::new(ErrorCode::InvalidArguments, message)
            })?;
            // Before it is told whether there is such a source or field.
            let named = query.fields.iter().flatten().chain(query.filters.iter().map(|it| &it.field));
            let named: BTreeSet<&String> = named.chain(query.order.iter().map(|it| &it.field)).collect();
            for field in named {
                caller.check(parent, &Access::Data { source: &name, field })?;
            }
            if query.fields.is_none() {
                query.fields = fields(caller, parent, &name)?;
            }
            let source = self.sources.get(&name).cloned().ok_or_else(|| self.unknown(&name))?;
            Ok::<_, Error>((source, name, query))
        };
        let (source, name, query) = match begin() {
            Ok(begun) => begun,
            Err(error) => return Outcome::from(error),
        };
        let (caller, parent) = (caller.clone(), *parent);
        Outcome::Pending(Box::pin(async move {
            let asked = tokio::task::spawn_blocking(move || {
                let page = source.query(&query);
                (query, page)
            });
            let panicked = |_| Error::new(ErrorCode::Internal, "the source of the data panicked");
            let (query, page) = asked.await.map_err(panicked)?;
            // What was taken back meanwhile is not told any more.
            match &query.fields {
                None => caller.check(&parent, &Access::Data { source: &name, field: ALL })?,
                Some(fields) => fields
                    .iter()
                    .try_for_each(|field| caller.check(&parent, &Access::Data { source: &name, field }))?,
            }
            cut(page?, &query, &name)
        }))
    }
}

impl Data {
    fn unknown(&self, name: &str) -> Error {
        let mut names: Vec<&str> = self.sources.keys().map(String::as_str).collect();
        names.sort_unstable();
        let error = Error::new(ErrorCode::InvalidArguments, format!("the host has no data {name}"));
        error.with_hint(suggest(name, &names, "it has"))
    }
}

fn read(arguments: &[u8]) -> Result<(String, DataQuery), String> {
    let (name, given) = match codec::from_arguments::<(String,)>(arguments) {
        Ok((name,)) => (name, None),
        Err(_) => {
            codec::from_arguments::<(String, Option<Given>)>(arguments).map_err(|error| error.to_string())?
        }
    };
    let Given { fields, r#where: filters, order, limit, cursor } = given.unwrap_or_default();
    let (filters, order) = (filters.unwrap_or_default(), order.unwrap_or_default());
    let limit = limit.unwrap_or(LIMIT);
    let named = fields.iter().flatten().chain(filters.iter().map(|(field, ..)| field));
    let named: Vec<&String> = named.chain(order.iter().map(|(field, _)| field)).collect();
    if !is_plain_name(&name) {
        return Err("this is no name of a source".to_owned());
    }
    if named.len() > NAMED {
        return Err(format!("{} fields, conditions and orders are more than {NAMED}", named.len()));
    }
    if let Some(wrong) = named.iter().find(|field| !is_plain_name(field)) {
        let shown: String = wrong.chars().take(50).collect();
        return Err(format!("{shown:?} is no name of a field"));
    }
    if !(1..=MOST).contains(&limit) {
        return Err(format!("limit is a number from 1 to {MOST}, not {limit}"));
    }
    if cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR) {
        return Err(format!("a cursor has up to {CURSOR} bytes"));
    }
    let filters = filters.into_iter().map(|(field, is, value)| DataFilter { field, is, value }).collect();
    let order = order.into_iter().map(|(field, way)| DataOrder { field, descending: way == Way::Desc });
    Ok((name, DataQuery { fields, filters, order: order.collect(), limit, cursor }))
}

/// The fields of a source that an extension may see: `None` for all of them.
fn fields(caller: &Bridge, parent: &CallContext, source: &str) -> Result<Option<Vec<String>>, Error> {
    let permissions = caller.here()?.1.permissions();
    let mut names = BTreeSet::new();
    for data in permissions.data.iter().filter(|data| data.source() == source) {
        match data.fields() {
            Some(fields) => names.extend(fields.iter().cloned()),
            None => {
                caller.check(parent, &Access::Data { source, field: ALL })?;
                return Ok(None);
            }
        }
    }
    if names.is_empty() {
        // It says no, and why.
        caller.check(parent, &Access::Data { source, field: ALL })?;
    }
    for field in &names {
        caller.check(parent, &Access::Data { source, field })?;
    }
    Ok(Some(names.into_iter().collect()))
}

/// The page without what is not to be seen, encoded.
fn cut(mut page: DataPage, query: &DataQuery, name: &str) -> Result<Bytes, Error> {
    if page.rows.len() > query.limit {
        let message = format!("the host's data {name} gave {} rows for {}", page.rows.len(), query.limit);
        return Err(Error::new(ErrorCode::Internal, message));
    }
    if let Some(fields) = &query.fields {
        page.rows.iter_mut().for_each(|row| row.retain(|field, _| fields.contains(field)));
    }
    let bytes = codec::to_bytes(&page).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    if bytes.len() as u64 > PAGE {
        let [size, most] = [bytes.len() as u64, PAGE].map(ByteSize);
        let error =
            Error::new(ErrorCode::MessageTooLarge, format!("the page takes {size}, more than {most}"));
        return Err(error.with_hint("ask for fewer rows or fields"));
    }
    Ok(bytes.into())
}
