//! How each runtime loads the conformance guest.

use std::sync::Arc;

use quadriga::abi::{Bytes, Error, ErrorCode, Isolation, Value, codec};
use quadriga::{Call, CallOptions, Dispatcher, MockRuntime, Outcome, Policy};
use quadriga_conformance::{Language, Table};
use quadriga_tests::{granted, guest};

/// A runtime with a conformance guest, whose id is `conformance.<name>`.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Whose literals and exceptions hold.
    pub(super) language: Language,
}

#[cfg(any(feature = "js-v8", feature = "js-quickjs"))]
pub(super) const JS: Subject = Subject { name: "js", language: Language::JavaScript };
#[cfg(feature = "python")]
pub(super) const PYTHON: Subject = Subject { name: "python", language: Language::Python };
#[cfg(feature = "wasm")]
pub(super) const WASM: Subject = Subject { name: "wasm", language: Language::Rust };
#[cfg(feature = "native")]
pub(super) const NATIVE: Subject = Subject { name: "native", language: Language::Rust };
pub(super) const MOCK: Subject = Subject { name: "mock", language: Language::Rust };

impl Subject {
    pub(super) fn id(&self) -> String {
        format!("conformance.{}", self.name)
    }

    pub(super) async fn load(&self, host: &Dispatcher) {
        if self.name != MOCK.name {
            host.load(guest("conformance", self.name), granted()).await.expect(self.name);
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let manifest = "[extension]\nid = 'conformance.mock'\nversion = '0.1.0'\n\
                        [runtime]\nkind = 'mock'\nentry = 'mock.txt'\n\
                        [permissions]\ncall = ['*']\n";
        std::fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
        std::fs::write(dir.path().join("mock.txt"), "").unwrap();
        host.load(dir.path(), granted()).await.unwrap();
    }

    /// A host with this guest alone.
    pub(super) async fn alone(&self) -> Dispatcher {
        let host = host();
        self.load(&host).await;
        host
    }

    /// Calls a method of the guest with arguments that are encoded already, and returns the bytes.
    pub(super) async fn call(
        &self,
        host: &Dispatcher,
        method: &str,
        arguments: &[&[u8]],
    ) -> Result<Bytes, Error> {
        // A list of up to fifteen begins with its length in one byte.
        let mut payload = vec![0x90 | u8::try_from(arguments.len()).unwrap()];
        payload.extend(arguments.concat());
        host.call(&self.id(), method, payload, CallOptions::default()).await
    }
}

/// A host with every runtime of this build, and a mock.
pub(super) fn host() -> Dispatcher {
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    quadriga::builder().policy(policy).runtime(mock()).build().unwrap()
}

/// Text as an argument.
pub(super) fn text(text: &str) -> Vec<u8> {
    codec::to_bytes(text).unwrap()
}

/// The conformance guest, written against the traits of loader-core alone.
fn mock() -> MockRuntime {
    let table = Arc::new(Table::read().unwrap());
    let [for_matches, for_send] = [Arc::clone(&table), Arc::clone(&table)];
    MockRuntime::new()
        .method("make", move |_, call| answer(&call, |(name,): (String,)| make(&table, &name)))
        .method("matches", move |_, call| {
            answer(&call, |(name, value): (String, Value)| {
                codec::to_bytes(&(make(&for_matches, &name)? == value.to_bytes().map_err(no_place)?))
                    .map_err(no_place)
            })
        })
        .method("echo", |_, call| answer(&call, |(value,): (Value,)| value.to_bytes().map_err(no_place)))
        .method("send", move |bridge, call| {
            let parts = codec::from_arguments::<(String, String, String)>(&call.envelope.payload);
            let made = parts.map_err(unfit).and_then(|(extension, method, name)| {
                Ok((extension, method, [&[0x91], &make(&for_send, &name)?[..]].concat()))
            });
            match made {
                Ok((extension, method, payload)) => {
                    bridge.call(&call.context(), &extension, &method, payload.into())
                }
                Err(error) => error.into(),
            }
        })
        .method("relay", |bridge, call| {
            let parts = codec::from_arguments::<(String, String, Value)>(&call.envelope.payload);
            let (extension, method, value) = match parts {
                Ok(parts) => parts,
                Err(error) => return unfit(error).into(),
            };
            let arguments = codec::arguments(&(value,)).unwrap();
            bridge.call(&call.context(), &extension, &method, arguments.into())
        })
}

fn answer<A: for<'de> serde::Deserialize<'de>>(
    call: &Call,
    run: impl FnOnce(A) -> Result<Vec<u8>, Error>,
) -> Outcome {
    let arguments = codec::from_arguments(&call.envelope.payload).map_err(unfit);
    Outcome::Ready(arguments.and_then(run).map(Bytes::from))
}

/// The bytes of a case; one that is refused in Rust is made to be refused here.
fn make(table: &Table, name: &str) -> Result<Vec<u8>, Error> {
    let values = table.value.iter().map(|case| (&case.name, &case.bytes));
    let mut all = values.chain(table.taken.iter().map(|case| (&case.name, &case.bytes)));
    if let Some((_, bytes)) = all.find(|(known, _)| *known == name) {
        return Ok(bytes.0.clone());
    }
    let encoded = match name {
        "int_above_64_bits" => codec::to_bytes(&u128::MAX),
        "int_below_64_bits" => codec::to_bytes(&i128::MIN),
        _ => codec::to_bytes(&(0..129).fold(Value::Nil, |inner, _| Value::List(vec![inner]))),
    };
    encoded.map_err(no_place)
}

fn no_place(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidValue, error.to_string())
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArguments, error.to_string())
}
