use serde::{Deserialize, Serialize};

use crate::{Feature, PROTOCOL, ProtocolVersion};

/// What an extension says of itself when it is loaded: the payload of its `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The contract it was built for.
    pub protocol: ProtocolVersion,
    /// Name and version of the SDK that built it, or of the engine that read it.
    pub sdk: String,
    /// The parts of the contract that it uses.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// What can be called, in the order of the source.
    pub methods: Vec<Method>,
}

/// A method that an extension exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// The name to call it by.
    pub name: String,
    /// The author's own words about it; empty if there are none.
    #[serde(default)]
    pub doc: String,
    /// Its parameters in order, where the language tells.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// The type it returns, in the author's language, where the language tells. Of a method that
    /// streams, the type of the items.
    #[serde(default)]
    pub returns: Option<String>,
    /// Whether its result is a stream of items.
    #[serde(default)]
    pub streams: bool,
    /// A JSON Schema (2020-12) of the list of arguments, where the language tells.
    /// docs/contracts.md says how each value is written in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Value>,
    /// A JSON Schema (2020-12) of the result, or of the items of a method that streams, where the
    /// language tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

/// A parameter of a [`Method`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name in the source.
    pub name: String,
    /// Its type in the author's language, where the language tells.
    #[serde(default)]
    pub ty: Option<String>,
    /// Whether a caller may leave it out.
    #[serde(default)]
    pub optional: bool,
}

impl Description {
    /// A description by this build's contract.
    pub fn new(sdk: impl Into<String>, methods: Vec<Method>) -> Self {
        Self { protocol: PROTOCOL, sdk: sdk.into(), features: vec![Feature::HostCalls], methods }
    }
}

impl Method {
    /// A method of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            doc: String::new(),
            parameters: Vec::new(),
            returns: None,
            streams: false,
            input: None,
            output: None,
        }
    }
}
