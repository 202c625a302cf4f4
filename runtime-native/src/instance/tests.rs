//! Calls that end in other ways than a Rust guest of ours would end them.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RVec};
use quadriga_abi::vtable::{ExtensionModule, HostCall, Outcome, needs};
use quadriga_abi::{Bytes, Description, Error, ErrorCode, Isolation, Method, RuntimeKind};
use quadriga_core::{
    BoxFuture, Bridge, CallOptions, Dispatcher, Grant, Instance, LoadOptions, Policy, Runtime, Support, Unit,
};

use super::NativeInstance;
use crate::library::Library;

const METHODS: [&str; 5] = ["later", "dropped", "dropped_later", "twice", "never"];

extern "C" fn describe() -> RVec<u8> {
    RVec::new()
}

extern "C" fn call(method: u32, arguments: RSlice<'_, u8>, call: HostCall) {
    let reply = arguments[1..].to_vec();
    match METHODS[method as usize] {
        "later" => {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                call.finish(Outcome::Reply, reply);
            });
        }
        "dropped_later" => {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                drop(call);
            });
        }
        "twice" => {
            call.finish(Outcome::Reply, reply);
            call.finish(Outcome::Error, Vec::new());
        }
        "never" => std::mem::forget(call),
        _ => {}
    }
}

/// Loads the module above, whatever the manifest's entry is.
struct InThisProcess;

impl Runtime for InThisProcess {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("native")
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::None, limits: &[], permissions: &[] }
    }

    fn load(&self, _: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        let module = ExtensionModule { describe, call, needs }.leak_into_prefix();
        let description = Description::new("test", METHODS.map(Method::named).to_vec());
        let instance = NativeInstance::new(Library::of(module), description, bridge);
        Box::pin(async move { Ok(Arc::new(instance) as Arc<dyn Instance>) })
    }
}

fn host() -> Dispatcher {
    let folder = tempfile::tempdir().unwrap();
    let manifest =
        "[extension]\nid = \"t.t\"\nversion = \"0.1.0\"\n[runtime]\nkind = \"native\"\nentry = \"x\"\n";
    std::fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
    std::fs::write(folder.path().join("x"), "").unwrap();
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    let host = Dispatcher::builder().runtime(InThisProcess).policy(policy).build().unwrap();
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    quadriga_core::block_on(host.load(folder.path(), options)).unwrap();
    host
}

fn answer(host: &Dispatcher, method: &str, options: CallOptions) -> Result<Bytes, Error> {
    quadriga_core::block_on(host.call("t.t", method, vec![0x91, 0x07], options))
}

#[test]
fn calls_may_end_later_and_elsewhere() {
    let host = host();
    assert_eq!(answer(&host, "later", CallOptions::default()).unwrap(), [7][..]);
    assert_eq!(answer(&host, "twice", CallOptions::default()).unwrap(), [7][..]);
}

#[test]
fn calls_without_a_result_fail() {
    let host = host();
    for method in ["dropped", "dropped_later"] {
        let error = answer(&host, method, CallOptions::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{method}: {error}");
    }
}

#[test]
fn calls_that_are_kept_for_ever_end_at_their_deadline() {
    let host = host();
    let start = Instant::now();
    let error =
        answer(&host, "never", CallOptions::default().timeout(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(answer(&host, "later", CallOptions::default()).unwrap(), [7][..]);
}
