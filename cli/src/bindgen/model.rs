//! A contract as a programming language needs it: named types and functions.

use quadriga::abi::Method;
use quadriga::abi::contract::{BYTES, Contract, INT_KEY, TIMESTAMP, definition};
use serde_json::{Map, Value as Json};

use super::names::{Names, pascal};

/// How deep schemas are followed; what is below is anything.
const DEEPEST: usize = 32;

/// What a client is written from.
pub(super) struct Client {
    pub(super) extension: String,
    pub(super) version: String,
    pub(super) types: Vec<Named>,
    pub(super) functions: Vec<Function>,
}

/// A type with a name of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A map with these properties.
    Object(Vec<Field>),
    /// One of these texts.
    Texts(Vec<String>),
    /// Another name for a type.
    Alias(Type),
}

/// A property or a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) ty: Type,
    pub(super) optional: bool,
}

pub(super) struct Function {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) parameters: Vec<Field>,
    /// Of what any number may follow the parameters.
    pub(super) rest: Option<Type>,
    /// The result, or one item of it if it streams.
    pub(super) returns: Type,
    pub(super) streams: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Any,
    Nil,
    Bool,
    /// With the least and the most, where they are known.
    Int(Option<i128>, Option<i128>),
    Number,
    Text,
    Bytes,
    Timestamp,
    Literals(Vec<Json>),
    List(Box<Self>),
    /// The items, how many there are at least, and what may follow.
    Tuple(Vec<Self>, usize, Option<Box<Self>>),
    /// Whether the keys are ints, and the values.
    Map(bool, Box<Self>),
    Union(Vec<Self>),
    Named(String),
}

impl Client {
    pub(super) fn of(contract: &Contract) -> Self {
        let mut reader = Reader { types: Vec::new(), names: Names::default() };
        let functions = contract.methods.iter().map(|method| reader.function(method)).collect();
        let plain = |c: &char| c.is_ascii_alphanumeric() || ".+-".contains(*c);
        Self {
            extension: contract.extension.to_string(),
            version: contract.version.chars().filter(plain).collect(),
            types: reader.types,
            functions,
        }
    }
}

impl Type {
    /// The type without nil, if nil is part of it.
    pub(super) fn without_nil(&self) -> Option<Self> {
        let Self::Union(arms) = self else { return None };
        let mut rest: Vec<_> = arms.iter().filter(|arm| **arm != Self::Nil).cloned().collect();
        match rest.len() {
            n if n == arms.len() => None,
            1 => rest.pop(),
            _ => Some(Self::Union(rest)),
        }
    }

    /// The names that it holds at once, not behind a list or a map.
    pub(super) fn holds(&self) -> Vec<&str> {
        match self {
            Self::Named(name) => vec![name],
            Self::Union(parts) | Self::Tuple(parts, _, _) => parts.iter().flat_map(Self::holds).collect(),
            _ => Vec::new(),
        }
    }
}

/// Collects the types of all methods.
struct Reader {
    types: Vec<Named>,
    names: Names,
}

/// One schema that is being read.
struct Source<'a> {
    root: &'a Json,
    /// Definitions of this schema that have a name in the client already.
    known: Vec<(String, String)>,
    /// Whether it is of results.
    gives: bool,
}

impl Reader {
    fn function(&mut self, method: &Method) -> Function {
        let prefix = pascal(&method.name);
        let (parameters, rest) = match &method.input {
            Some(input) => self.parameters(input, method, &prefix),
            None if method.parameters.is_empty() => (Vec::new(), Some(Type::Any)),
            None => self.untyped(method),
        };
        let returns = method.output.as_ref().map_or(Type::Any, |output| {
            let mut source = Source { root: output, known: Vec::new(), gives: true };
            self.read(&mut source, output, &format!("{prefix}Result"), 0)
        });
        Function {
            name: method.name.clone(),
            doc: method.doc.clone(),
            parameters,
            rest,
            returns,
            streams: method.streams,
        }
    }

    fn untyped(&self, method: &Method) -> (Vec<Field>, Option<Type>) {
        let is_rest = |name: &str| name.starts_with('*') || name.starts_with("...");
        let fields = method.parameters.iter().filter(|parameter| !is_rest(&parameter.name));
        let fields = fields.map(|parameter| Field {
            name: parameter.name.clone(),
            doc: String::new(),
            ty: Type::Any,
            optional: parameter.optional,
        });
        let rest = method.parameters.iter().any(|parameter| is_rest(&parameter.name));
        (fields.collect(), rest.then_some(Type::Any))
    }

    fn parameters(&mut self, input: &Json, method: &Method, prefix: &str) -> (Vec<Field>, Option<Type>) {
        let mut source = Source { root: input, known: Vec::new(), gives: false };
        let least = input.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        let items = input.get("prefixItems").and_then(Json::as_array);
        let fields = items.into_iter().flatten().zip(0..).map(|(item, index): (_, u64)| {
            let known = usize::try_from(index).ok().and_then(|index| method.parameters.get(index));
            let title = item.get("title").and_then(Json::as_str);
            let name = title.or(known.map(|known| known.name.as_str())).unwrap_or("argument").to_owned();
            let ty = self.read(&mut source, item, &format!("{prefix}{}", pascal(&name)), 0);
            Field { name, doc: doc(item), ty, optional: index >= least }
        });
        let fields = fields.collect();
        let closed = input.get("maxItems").is_some() || input.get("items") == Some(&Json::Bool(false));
        let rest = (!closed).then(|| match input.get("items") {
            Some(items) => self.read(&mut source, items, &format!("{prefix}Item"), 0),
            None => Type::Any,
        });
        (fields, rest)
    }

    fn read(&mut self, source: &mut Source<'_>, schema: &Json, name: &str, depth: usize) -> Type {
        let Json::Object(keywords) = schema else { return Type::Any };
        if depth > DEEPEST {
            return Type::Any;
        }
        if let Some(Json::String(reference)) = keywords.get("$ref") {
            return self.reference(source, reference, depth);
        }
        if let Some(value) = keywords.get("const") {
            return literals(vec![value.clone()]);
        }
        if let Some(Json::Array(values)) = keywords.get("enum") {
            return literals(values.clone());
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Json::Array(arms)) = keywords.get(key) {
                let many = arms.len() > 2;
                let arms = arms.iter().enumerate().map(|(index, arm)| {
                    let name = if many { format!("{name}{}", index + 1) } else { name.to_owned() };
                    self.read(source, arm, &name, depth + 1)
                });
                return union(arms.collect());
            }
        }
        if let Some(Json::Array(parts)) = keywords.get("allOf") {
            return match merged(source.root, parts, depth) {
                Some(whole) => self.object(source, &whole, name, depth),
                None => Type::Any,
            };
        }
        match keywords.get("type") {
            Some(Json::String(ty)) => self.one(source, ty, keywords, name, depth),
            Some(Json::Array(types)) => {
                let types = types.iter().filter_map(Json::as_str);
                union(types.map(|ty| self.one(source, ty, keywords, name, depth)).collect())
            }
            _ => Type::Any,
        }
    }

    /// What a definition is called in the client. Each schema brings its own, often the same.
    fn reference(&mut self, source: &mut Source<'_>, reference: &str, depth: usize) -> Type {
        if let Some((_, name)) = source.known.iter().find(|(known, _)| known == reference) {
            return Type::Named(name.clone());
        }
        let Some(schema) = definition(source.root, reference) else { return Type::Any };
        let wanted = pascal(reference.rsplit('/').next().unwrap_or_default());
        // Read under its own name first: that is how the same definition was read before.
        let before = (self.types.len(), self.names.clone());
        source.known.push((reference.to_owned(), wanted.clone()));
        let kind = self.kind(source, schema, &wanted, depth + 1);
        let read = Named { name: wanted.clone(), doc: doc(schema), kind };
        if self.types.contains(&read) {
            return Type::Named(wanted);
        }
        let suffixed = if source.gives { format!("{wanted}Result") } else { format!("{wanted}Argument") };
        let name = if self.names.is_free(&wanted) { wanted.clone() } else { self.names.unique(&suffixed) };
        if name == wanted {
            self.names.take(&name);
            self.types.push(read);
            return Type::Named(name);
        }
        // Another type has the name: read again, so that it refers to itself by its own.
        (self.types.len() > before.0).then(|| self.types.truncate(before.0));
        self.names = before.1;
        self.names.take(&name);
        source.known.truncate(source.known.iter().position(|(known, _)| known == reference).unwrap_or(0));
        source.known.push((reference.to_owned(), name.clone()));
        let kind = self.kind(source, schema, &name, depth + 1);
        self.types.push(Named { name: name.clone(), doc: doc(schema), kind });
        Type::Named(name)
    }

    fn kind(&mut self, source: &mut Source<'_>, schema: &Json, name: &str, depth: usize) -> Kind {
        let whole = match schema.get("allOf") {
            Some(Json::Array(parts)) => merged(source.root, parts, depth),
            _ => schema.as_object().filter(|keywords| keywords.contains_key("properties")).cloned(),
        };
        if let Some(whole) = whole.filter(is_object) {
            return Kind::Object(self.fields(source, &whole, name, depth));
        }
        match self.read(source, schema, &format!("{name}Value"), depth) {
            Type::Literals(values) if values.iter().all(Json::is_string) => {
                Kind::Texts(values.iter().filter_map(Json::as_str).map(str::to_owned).collect())
            }
            ty => Kind::Alias(ty),
        }
    }

    fn one(
        &mut self,
        source: &mut Source<'_>,
        ty: &str,
        keywords: &Map<String, Json>,
        name: &str,
        depth: usize,
    ) -> Type {
        match (ty, keywords.get("format").and_then(Json::as_str)) {
            ("null", _) => Type::Nil,
            ("boolean", _) => Type::Bool,
            ("integer", format) => int(keywords, format),
            ("number", _) => Type::Number,
            ("string", Some(BYTES)) => Type::Bytes,
            ("string", Some(TIMESTAMP)) => Type::Timestamp,
            ("string", _) => Type::Text,
            ("array", _) => self.list(source, keywords, name, depth),
            ("object", _) => self.object(source, keywords, name, depth),
            _ => Type::Any,
        }
    }

    fn list(
        &mut self,
        source: &mut Source<'_>,
        keywords: &Map<String, Json>,
        name: &str,
        depth: usize,
    ) -> Type {
        let item = format!("{name}Item");
        let more = |reader: &mut Self, source: &mut Source<'_>| match keywords.get("items") {
            Some(Json::Bool(false)) => None,
            Some(items) => Some(Box::new(reader.read(source, items, &item, depth + 1))),
            None => Some(Box::new(Type::Any)),
        };
        let Some(Json::Array(items)) = keywords.get("prefixItems") else {
            return Type::List(more(self, source).unwrap_or_else(|| Box::new(Type::Any)));
        };
        let first = items
            .iter()
            .enumerate()
            .map(|(index, schema)| self.read(source, schema, &format!("{name}{}", index + 1), depth + 1));
        let first: Vec<_> = first.collect();
        let least = keywords.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        let least = usize::try_from(least).unwrap_or(usize::MAX).min(first.len());
        Type::Tuple(first, least, more(self, source))
    }

    fn object(
        &mut self,
        source: &mut Source<'_>,
        keywords: &Map<String, Json>,
        name: &str,
        depth: usize,
    ) -> Type {
        if keywords
            .get("properties")
            .and_then(Json::as_object)
            .is_some_and(|properties| !properties.is_empty())
        {
            let name = self.names.unique(name);
            self.names.take(&name);
            let kind = Kind::Object(self.fields(source, keywords, &name, depth));
            self.types.push(Named { name: name.clone(), doc: doc_of(keywords), kind });
            return Type::Named(name);
        }
        let value = match keywords.get("additionalProperties") {
            Some(schema) => self.read(source, schema, &format!("{name}Value"), depth + 1),
            None => Type::Any,
        };
        let ints = keywords.get("propertyNames").and_then(|names| names.get("format"));
        Type::Map(ints.is_some_and(|format| format == INT_KEY), Box::new(value))
    }

    fn fields(
        &mut self,
        source: &mut Source<'_>,
        keywords: &Map<String, Json>,
        name: &str,
        depth: usize,
    ) -> Vec<Field> {
        let required: Vec<&Json> =
            keywords.get("required").and_then(Json::as_array).into_iter().flatten().collect();
        let properties = keywords.get("properties").and_then(Json::as_object).into_iter().flatten();
        let fields = properties.map(|(property, schema)| Field {
            name: property.clone(),
            doc: doc(schema),
            ty: self.read(source, schema, &format!("{name}{}", pascal(property)), depth + 1),
            optional: !required.iter().any(|required| *required == property),
        });
        fields.collect()
    }
}

/// The parts of an intersection of maps as one map.
fn merged(root: &Json, parts: &[Json], depth: usize) -> Option<Map<String, Json>> {
    if depth > DEEPEST {
        return None;
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = quadriga::abi::contract::at(root, part);
        let keywords = match part.get("allOf").and_then(Json::as_array) {
            Some(inner) => merged(root, inner, depth + 1)?,
            None => part.as_object().filter(|keywords| is_object(keywords))?.clone(),
        };
        let own = keywords.get("properties").and_then(Json::as_object);
        properties.extend(own.into_iter().flatten().map(|(name, schema)| (name.clone(), schema.clone())));
        required.extend(keywords.get("required").and_then(Json::as_array).into_iter().flatten().cloned());
    }
    let whole = [("type", "object".into()), ("properties", properties.into()), ("required", required.into())];
    Some(whole.into_iter().map(|(key, value): (_, Json)| (key.to_owned(), value)).collect())
}

fn is_object(keywords: &Map<String, Json>) -> bool {
    keywords.get("type").is_some_and(|ty| ty == "object")
}

fn doc(schema: &Json) -> String {
    schema.as_object().map(doc_of).unwrap_or_default()
}

fn doc_of(keywords: &Map<String, Json>) -> String {
    keywords.get("description").and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn literals(values: Vec<Json>) -> Type {
    let simple = values.iter().all(|value| !value.is_array() && !value.is_object());
    if simple { Type::Literals(values) } else { Type::Any }
}

fn int(keywords: &Map<String, Json>, format: Option<&str>) -> Type {
    let number = |key| keywords.get(key).and_then(Json::as_i64).map(i128::from);
    let bounds = match format {
        Some("int8") => (Some(i8::MIN.into()), Some(i8::MAX.into())),
        Some("int16") => (Some(i16::MIN.into()), Some(i16::MAX.into())),
        Some("int32") => (Some(i32::MIN.into()), Some(i32::MAX.into())),
        Some("uint32") => (Some(0), Some(u32::MAX.into())),
        Some("uint64" | "uint") => (Some(0), Some(u64::MAX.into())),
        Some("int64" | "int") => (Some(i64::MIN.into()), Some(i64::MAX.into())),
        _ => (None, None),
    };
    Type::Int(number("minimum").or(bounds.0), number("maximum").or(bounds.1))
}

fn union(arms: Vec<Type>) -> Type {
    let mut flat: Vec<Type> = Vec::new();
    for arm in arms {
        match arm {
            Type::Union(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    let mut unique: Vec<Type> = Vec::new();
    for arm in flat {
        if !unique.contains(&arm) {
            unique.push(arm);
        }
    }
    match unique.len() {
        1 => unique.remove(0),
        _ if unique.contains(&Type::Any) => Type::Any,
        _ => Type::Union(unique),
    }
}
