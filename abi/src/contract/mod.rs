//! What an extension promises to its callers: its methods, with the shapes of what they take and
//! give. The shapes are JSON Schema 2020-12 with a few conventions, the same from every language:
//!
//! - bytes are `{"type": "string", "format": "bytes"}`, a timestamp is
//!   `{"type": "string", "format": "timestamp"}`;
//! - `integer` is an int, never a float that happens to be whole; `number` is either;
//! - a map whose keys are ints has `"propertyNames": {"format": "int"}`;
//! - the arguments are an `array` with an item for each parameter in `prefixItems`, which has the
//!   parameter's name as its `title`; `minItems` says how many a caller must pass.
//!
//! docs/contracts.md says it for authors.

mod shape;
#[cfg(feature = "schema")]
mod types;

use serde::{Deserialize, Serialize};
pub use shape::{at, definition, shape};
#[cfg(feature = "schema")]
pub use types::FunctionSchemas;

use crate::{ExtensionId, Method};

/// The `format` of bytes.
pub const BYTES: &str = "bytes";

/// The `format` of a timestamp.
pub const TIMESTAMP: &str = "timestamp";

/// The `format` of the property names of a map with ints for keys.
pub const INT_KEY: &str = "int";

/// What an extension promises, or what one needs of another: a file that tools write and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// The extension that it was taken from.
    pub extension: ExtensionId,
    /// The extension's version then.
    pub version: String,
    /// The methods, in the order of the source.
    pub methods: Vec<Method>,
}

impl Contract {
    /// Reads the text of a contract file.
    ///
    /// # Errors
    /// Says where it is no contract.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("it is no contract: {error}"))
    }

    /// A method of this contract.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }
}

impl Method {
    /// Its name, parameters and result on one line: by the schemas where there are any, and
    /// otherwise in the words of the author's language.
    pub fn signature(&self) -> String {
        let items = self.input.as_ref().and_then(|input| input.get("prefixItems")?.as_array());
        let parameters = self.parameters.iter().enumerate().map(|(index, parameter)| {
            let schema = self.input.as_ref().zip(items.and_then(|items| items.get(index)));
            let ty = match schema {
                Some((_, item)) if shape::is_any(item) => parameter.ty.clone(),
                Some((root, item)) => Some(shape(root, item)),
                None => parameter.ty.clone(),
            };
            let ty = ty.map(|ty| format!(": {ty}")).unwrap_or_default();
            format!("{}{}{ty}", parameter.name, if parameter.optional { "?" } else { "" })
        });
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let returns = self.output.as_ref().map(|output| shape(output, output)).or(self.returns.clone());
        let stream = if self.streams { "stream of " } else { "" };
        let returns = returns.map(|ty| format!(" -> {stream}{ty}")).unwrap_or_default();
        format!("{}({parameters}){returns}", self.name)
    }
}

#[cfg(test)]
mod tests;
