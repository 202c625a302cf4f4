//! A library as an SDK of another time would make it: what it says of its contract is in `CLAIM`,
//! which tests overwrite in a copy.

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RVec};
use quadriga_abi::Value;
use quadriga_abi::vtable::{ExtensionModule, ExtensionModuleRef, HostCall, Outcome, needs};

/// The protocol, then the features.
static CLAIM: [u8; 32] = *b"claim: 0.1.0 host-calls         ";

#[expect(unsafe_code, reason = "abi_stable's own macro is of an older edition")]
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
static HEADER: LibHeader =
    // SAFETY: `construct` makes an `ExtensionModuleRef`.
    unsafe { LibHeader::from_constructor::<ExtensionModuleRef>(construct, CheckTypeLayout::Yes) };

extern "C" fn construct() -> RootModuleResult {
    abi_stable::library::__call_root_module_loader(|| {
        ExtensionModule { describe, call, needs }.leak_into_prefix()
    })
}

extern "C" fn describe() -> RVec<u8> {
    let claim = String::from_utf8_lossy(std::hint::black_box(&CLAIM)).into_owned();
    let mut words = claim.split_whitespace().skip(1).map(text);
    let protocol = words.next().unwrap_or(Value::Nil);
    let method = Value::Map(vec![(text("name"), text("nil"))]);
    let fields = [
        ("protocol", protocol),
        ("sdk", text("by hand")),
        ("features", Value::List(words.collect())),
        ("methods", Value::List(vec![method])),
    ];
    let map = Value::Map(fields.map(|(name, value)| (text(name), value)).into());
    map.to_bytes().unwrap_or_default().into()
}

extern "C" fn call(_method: u32, _arguments: RSlice<'_, u8>, call: HostCall) {
    call.finish(Outcome::Reply, vec![0xc0]);
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
