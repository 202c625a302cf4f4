//! Generated from the contract.

wasmtime::component::bindgen!({
    path: "../abi/wit/since-v0.1",
    world: "extension",
    imports: {
        "quadriga:extension/host.call": async,
        "quadriga:extension/host.emit": async,
        "quadriga:extension/host.next": async,
        "quadriga:extension/host.wait": async,
        "quadriga:extension/host.[constructor]channel": trappable,
        "quadriga:extension/host.[method]channel.read": async,
        "quadriga:extension/host.[method]channel.write": async,
    },
    with: { "quadriga:extension/host.channel": crate::stream::Channel },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});
