use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::fields::{EntryPath, VersionReq};
use crate::Method;

/// `[contract]`: how far the extension's own contract is kept to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Contract {
    /// Which values the host compares with the schemas of the methods. A host may demand more.
    pub check: Check,
    /// What callers may rely on, by method.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, MethodContract>,
}

/// `[contract.methods.NAME]`: what callers of a method may rely on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MethodContract {
    /// Whether to call it twice does what calling it once does. The host then calls it again if
    /// the instance ends during a call.
    pub idempotent: bool,
}

/// Which values are compared with the schemas of the methods, at each call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// None.
    #[default]
    None,
    /// What callers pass.
    Arguments,
    /// What the extension returns.
    Results,
    /// What callers pass and what the extension returns.
    Both,
}

/// What an extension needs of another: a range of versions, and perhaps methods with their shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// The versions that will do.
    pub version: VersionReq,
    /// A contract file in the package, as `quadriga inspect --contract` writes it: the methods in
    /// it are needed.
    pub contract: Option<EntryPath>,
    /// Methods that are needed, by name.
    pub methods: BTreeMap<String, NeededMethod>,
}

/// A method of another extension, as its caller uses it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NeededMethod {
    /// A JSON Schema (2020-12) of the arguments that the caller passes: an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// A JSON Schema (2020-12) of the results that the caller can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

/// The table form of a [`Dependency`].
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DependencyTable")]
struct Table {
    /// The versions that will do.
    version: VersionReq,
    /// A contract file in the package: the methods in it are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contract: Option<EntryPath>,
    /// Methods that are needed, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    methods: BTreeMap<String, NeededMethod>,
}

impl Check {
    /// What either of two asks for.
    pub fn or(self, other: Self) -> Self {
        let either = |wants: fn(Self) -> bool| wants(self) || wants(other);
        match (either(Self::arguments), either(Self::results)) {
            (true, true) => Self::Both,
            (true, false) => Self::Arguments,
            (false, true) => Self::Results,
            (false, false) => Self::None,
        }
    }

    /// Whether arguments are compared.
    pub fn arguments(self) -> bool {
        matches!(self, Self::Arguments | Self::Both)
    }

    /// Whether results are compared.
    pub fn results(self) -> bool {
        matches!(self, Self::Results | Self::Both)
    }
}

impl NeededMethod {
    /// As a method of a contract.
    pub fn named(&self, name: &str) -> Method {
        Method { input: self.input.clone(), output: self.output.clone(), ..Method::named(name) }
    }
}

impl Dependency {
    /// A dependency on a version alone.
    pub fn on(version: VersionReq) -> Self {
        Self { version, contract: None, methods: BTreeMap::new() }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)
    }
}

impl Serialize for Dependency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { version, contract, methods } = self.clone();
        if contract.is_none() && methods.is_empty() {
            return version.serialize(serializer);
        }
        Table { version, contract, methods }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Dependency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Dependency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a range of versions, or a table with `version`, `contract` and `methods`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Dependency, E> {
                VersionReq::try_from(text.to_owned()).map(Dependency::on).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dependency, A::Error> {
                let Table { version, contract, methods } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Dependency { version, contract, methods })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Dependency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dependency".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, table) = (generator.subschema_for::<VersionReq>(), generator.subschema_for::<Table>());
        json_schema!({ "anyOf": [text, table] })
    }
}
