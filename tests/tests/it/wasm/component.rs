//! Components written down instruction by instruction, for what no compiler would make.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A component of the contract's world with one method, `nil`.
pub(crate) struct Component {
    start: String,
    describe: String,
    protocol: String,
    feature: Option<String>,
}

impl Component {
    pub(crate) fn new() -> Self {
        Self {
            start: String::new(),
            describe: "i32.const 64".to_owned(),
            protocol: "0.1.0".to_owned(),
            feature: None,
        }
    }

    /// What runs when it is instantiated.
    pub(crate) fn start(mut self, code: &str) -> Self {
        self.start = code.to_owned();
        self
    }

    /// The body of `describe`: leaves the address of a description.
    pub(crate) fn describe(mut self, code: &str) -> Self {
        self.describe = code.to_owned();
        self
    }

    /// The protocol that it says it speaks.
    pub(crate) fn protocol(mut self, version: &str) -> Self {
        self.protocol = version.to_owned();
        self
    }

    /// A feature that it says it uses.
    pub(crate) fn feature(mut self, name: &str) -> Self {
        self.feature = Some(name.to_owned());
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let Self { start, describe, protocol, feature } = self;
        let features = feature.as_deref().unwrap_or_default();
        // At 64, the description: protocol, sdk, features, methods, each as pointer and length.
        // At 128, the method: name, doc, parameters, and no type that it returns.
        // At 192, the result of a call: ok, pointer, length.
        // At 208, the feature: pointer and length.
        let words = |words: &[usize]| -> String {
            words
                .iter()
                .flat_map(|word| (*word as u32).to_le_bytes())
                .map(|byte| format!("\\{byte:02x}"))
                .collect()
        };
        let text = format!(
            r#"(module
                (memory (export "memory") 1)
                (data (i32.const 16) "{protocol}")
                (data (i32.const 48) "nil\c0")
                (data (i32.const 64) "{description}")
                (data (i32.const 128) "{method}")
                (data (i32.const 192) "{result}")
                (data (i32.const 208) "{listed}")
                (data (i32.const 224) "{features}")
                (func $start {start})
                (start $start)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
                (func $describe (export "quadriga:extension/guest@0.1.0#describe") (result i32) {describe})
                (func (export "quadriga:extension/guest@0.1.0#call") (param i32 i32 i32 i32) (result i32)
                    i32.const 192))"#,
            description = words(&[16, protocol.len(), 0, 0, 208, feature.iter().len(), 128, 1]),
            method = words(&[48, 3, 0, 0, 0, 0, 0]),
            listed = words(&[224, features.len()]),
            result = words(&[0, 51, 1]),
        );
        let mut module = wat::parse_str(text).unwrap();
        let mut resolve = Resolve::default();
        let wit = quadriga_tests::repository().join("abi/wit/since-v0.1");
        let (package, _) = resolve.push_path(wit).unwrap();
        let world = resolve.select_world(&[package], Some("extension")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }
}
