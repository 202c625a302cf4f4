//! A library with an `abi_stable` root module that is not the one of Quadriga's extensions: other
//! fields, of another crate. Hosts must find out before they call anything in it.

use abi_stable::StableAbi;
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::package_version_strings;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;

/// Somebody else's root module.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = OtherModuleRef, prefix_fields = OtherModulePrefix)))]
#[sabi(missing_field(panic))]
pub struct OtherModule {
    /// Adds one.
    #[sabi(last_prefix_field)]
    pub next: extern "C" fn(u64) -> u64,
}

impl RootModule for OtherModuleRef {
    abi_stable::declare_root_module_statics! {OtherModuleRef}
    const BASE_NAME: &'static str = "other";
    const NAME: &'static str = "other";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

#[expect(unsafe_code, reason = "abi_stable's own macro is of an older edition")]
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
static HEADER: LibHeader =
    // SAFETY: `construct` makes an `OtherModuleRef`.
    unsafe { LibHeader::from_constructor::<OtherModuleRef>(construct, CheckTypeLayout::Yes) };

/// A copy of the library in which a test writes `no` in place of `go` is stuck when it is loaded.
static LOAD: [u8; 16] = *b"constructor: go!";

/// Runs before anyone can look at what the library is.
#[expect(unsafe_code, reason = "the section of functions that the system's loader calls")]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = stall;

extern "C" fn stall() {
    if std::hint::black_box(&LOAD).ends_with(b"no!") {
        // Longer than the host waits, but not for ever.
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
}

extern "C" fn construct() -> RootModuleResult {
    abi_stable::library::__call_root_module_loader(|| OtherModule { next }.leak_into_prefix())
}

extern "C" fn next(n: u64) -> u64 {
    n + 1
}
