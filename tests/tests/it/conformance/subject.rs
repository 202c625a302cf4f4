//! How each runtime loads the guests of the suite.

use std::path::PathBuf;

use quadriga::abi::{Bytes, Error, Isolation, codec};
use quadriga::{CallOptions, Dispatcher, LoadOptions, Policy};
use quadriga_conformance::Language;
use quadriga_tests::{granted, guest, repository, with};

use super::mocked::Mock;

/// No arguments.
pub(super) const NONE: Bytes = Bytes::from_static(b"\x90");

/// A runtime with a guest of each case, whose id is `<case>.<name>`.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Whose literals and exceptions hold.
    pub(super) language: Language,
    /// Whether a guest that listens to nobody can be ended.
    pub(super) interruptible: bool,
    /// Whether calls of one extension can compute at the same time.
    pub(super) parallel: bool,
    /// Where it runs, if not where its runtime puts it by itself.
    pub(super) isolation: Option<Isolation>,
}

#[cfg(any(feature = "js-v8", feature = "js-quickjs"))]
pub(super) const JS: Subject = Subject {
    name: "js",
    language: Language::JavaScript,
    interruptible: true,
    parallel: false,
    isolation: None,
};
#[cfg(feature = "python")]
pub(super) const PYTHON: Subject = Subject {
    name: "python",
    language: Language::Python,
    interruptible: true,
    parallel: true,
    isolation: None,
};
#[cfg(feature = "wasm")]
pub(super) const WASM: Subject =
    Subject { name: "wasm", language: Language::Rust, interruptible: true, parallel: true, isolation: None };
#[cfg(feature = "native")]
pub(super) const NATIVE: Subject = Subject {
    name: "native",
    language: Language::Rust,
    interruptible: false,
    parallel: true,
    isolation: None,
};
pub(super) const MOCK: Subject =
    Subject { name: "mock", language: Language::Rust, interruptible: true, parallel: true, isolation: None };

impl Subject {
    /// The same in worker processes.
    #[cfg(feature = "process")]
    pub(super) const fn in_workers(self) -> Self {
        Self { isolation: Some(Isolation::Process), ..self }
    }

    pub(super) fn options(&self) -> LoadOptions {
        LoadOptions { isolation: self.isolation, ..granted() }
    }

    /// The id of one of its guests.
    pub(super) fn guest(&self, case: &str) -> String {
        format!("{case}.{}", self.name)
    }

    pub(super) fn id(&self) -> String {
        self.guest("conformance")
    }

    /// The package of one of its guests.
    pub(super) fn package(&self, case: &str) -> PathBuf {
        if self.name == MOCK.name {
            return repository().join("tests/fixtures/mock").join(case);
        }
        guest(case, self.name)
    }

    pub(super) async fn load(&self, host: &Dispatcher, case: &str) {
        host.load(self.package(case), self.options()).await.expect(self.name);
        self.check(host, case);
    }

    /// That it runs where it should.
    fn check(&self, host: &Dispatcher, case: &str) {
        let reached = host.status(&self.guest(case)).unwrap().isolation;
        assert!(self.isolation.is_none_or(|wanted| wanted == reached), "{} runs {reached}", self.name);
    }

    /// One of its guests with room for two calls of the host at once, where that is limited.
    pub(super) async fn load_with_room(&self, host: &Dispatcher, case: &str) {
        if !self.parallel {
            // In worker processes it would have room for two that run at once.
            return self.load(host, case).await;
        }
        let package = with(&self.package(case), "");
        let manifest = package.path().join("quadriga.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace("[runtime]", "[runtime]\nconcurrency = 2")).unwrap();
        host.load(package.path(), self.options()).await.expect(self.name);
        self.check(host, case);
    }

    /// A host with one of its guests alone.
    pub(super) async fn host_with(&self, case: &str) -> Dispatcher {
        let host = host();
        self.load(&host, case).await;
        host
    }

    /// A host with the conformance guest alone.
    pub(super) async fn alone(&self) -> Dispatcher {
        self.host_with("conformance").await
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
    host_of(Policy { minimum_isolation: Isolation::None, ..Policy::default() })
}

pub(super) fn host_of(policy: Policy) -> Dispatcher {
    quadriga::builder().policy(policy).runtime(Mock).build().unwrap()
}

/// Text as an argument.
pub(super) fn text(text: &str) -> Vec<u8> {
    codec::to_bytes(text).unwrap()
}
