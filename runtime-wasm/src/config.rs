//! How the engine is set up.

use std::time::Duration;

use quadriga_abi::limits::Limit;
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::ThreadClock;
use wasmtime::component::Linker;
use wasmtime::{
    Cache, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::guest::Guest;
use crate::{host_call, http, wasi};

/// What this runtime keeps to. Each tick a guest steps aside, and the time that it used is looked at.
pub(crate) const LIMITS: &[Limit] = match ThreadClock::EXISTS {
    true => &[Limit::CallTimeout, Limit::CpuTime, Limit::Memory, Limit::OutputRate],
    false => &[Limit::CallTimeout, Limit::Memory, Limit::OutputRate],
};

/// How often a running guest is asked whether it should go on, and makes way for other work.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// How long a guest may go on when its call must end, to see that and clean up.
pub(crate) const GRACE: Duration = Duration::from_millis(25);

/// How deep a guest may recurse.
const GUEST_STACK: usize = 512 << 10;

/// A guest's stack also carries the host functions that it calls. Calls to other extensions are
/// not among them: they run on the stack of whoever polls (see [`crate::host_call`]).
const STACK: usize = GUEST_STACK + (512 << 10);

/// How many instances the pool has room for, all extensions together, each with a stack. What is not
/// used costs addresses, and two entries in the kernel's list of a process's memory for each stack:
/// with four more for each instance that is there, 10,000 of them stay below the 65,530 entries that
/// a process may have by default.
const MANY: u32 = 10_500;

/// The same for a process that has few addresses, or loads one extension.
const FEW: u32 = 1000;

/// What all extensions of one runtime share, with the place where compiled code is kept.
pub(crate) fn engine(cache: Option<Cache>, for_one: bool) -> Result<(Engine, Linker<Guest>), Error> {
    let with = |instances| Engine::new(&config(instances, cache.clone()));
    let most = if for_one { FEW } else { MANY };
    // A process with very few addresses gets memory as it needs it.
    let engine = with(Some(most)).or_else(|_| with(Some(FEW))).or_else(|_| with(None));
    let engine = engine.map_err(|error| broken(&error))?;
    let mut linker = Linker::new(&engine);
    wasi::link(&mut linker)
        .and_then(|()| http::link(&mut linker))
        .and_then(|()| host_call::link(&mut linker))
        .map_err(|error| broken(&error))?;
    Ok((engine, linker))
}

fn config(instances: Option<u32>, cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .cache(cache);
    if let Some(instances) = instances {
        let mut pool = PoolingAllocationConfig::new();
        // Generous, because what a component does not use costs addresses, not memory: those of
        // other languages bring a whole interpreter.
        pool.total_component_instances(instances)
            .total_core_instances(instances * 8)
            .total_memories(instances)
            .total_tables(instances * 2)
            .total_stacks(instances)
            .table_elements(100_000)
            .max_tables_per_module(4);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn broken(error: &wasmtime::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("wasmtime could not be set up: {error:#}"))
}
