//! Generated from the contract.

wasmtime::component::bindgen!({
    path: "../abi/wit/since-v0.1",
    world: "extension",
    imports: { "quadriga:extension/host.call": async },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});
