//! The dispatcher: it loads extensions through the runtimes that a host registers, routes calls to
//! them and between them, counts, and unloads. It names no language and holds no engine.

mod api;
mod bridge;
mod broadcast;
mod builder;
mod call;
mod call_id;
mod choice;
mod clock;
mod config;
mod contract;
mod control;
mod data;
mod deadline;
mod detached;
mod dispatcher;
mod event;
mod execute;
mod fit;
mod folder;
mod health;
#[cfg(feature = "home")]
pub mod home;
mod hook;
mod instance;
mod items;
mod kv;
mod lifecycle;
mod limits;
mod load;
mod manifest;
mod metrics;
mod mock;
mod monitor;
mod net;
#[cfg(feature = "otlp")]
mod otlp;
mod policy;
mod program;
mod provided;
mod recycle;
mod retry;
mod route;
mod runtime;
mod schedule;
mod service;
mod sleep;
mod state;
mod stream;
mod supervise;
#[cfg(feature = "home")]
mod switch;
mod total;
mod wait;
mod ward;

pub use api::ApiStatus;
pub use bridge::{Bridge, LogLevel, Uplink};
pub use broadcast::{Answer, BroadcastFilter, BroadcastOptions};
pub use builder::Builder;
pub use call::CallOptions;
pub use clock::ThreadClock;
pub use config::{Configuration, Origin, Setting, Settings, settings_from_environment, settings_from_file};
pub use data::{DataComparison, DataFilter, DataOrder, DataPage, DataQuery, DataSource};
pub use dispatcher::Dispatcher;
pub use event::{DeadLetter, Event, EventQuota, EventStore, Events, KeptEvent, Letters, SubscriptionStatus};
pub use execute::{Executed, Language, Snippet};
pub use folder::TemporaryFolder;
pub use health::{Checked, Health, Liveness};
pub use hook::{
    Account, Conflict, Did, Finished, HookContext, HookField, HookPoint, HookPolicy, HookStatus, HookWork,
    Hooked, InHooks, Overruled, Step, Stopped,
};
pub use instance::{BoxFuture, Call, CallContext, Instance, Layer, Outcome, SpanRef, Usage};
pub use items::Items;
pub use kv::{KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore, MemoryKv, check_kv_store};
pub use lifecycle::Pause;
pub use load::LoadOptions;
pub use metrics::{Bucket, ExtensionMetrics, MethodMetrics, Metrics, PROMETHEUS_TYPE, prometheus};
pub use mock::MockRuntime;
pub use net::{Connection, Insecure};
#[cfg(feature = "otlp")]
pub use otlp::{OtlpConfig, OtlpExporter};
pub use policy::{Grant, Policy};
pub use program::{PROGRAM_FOLDERS, find_program, may_start, paths_of_program};
pub use provided::{Arguments, Provided};
pub use quadriga_abi as abi;
pub use recycle::Recycle;
pub use route::{State, Status};
pub use runtime::{Runtime, Support, Unit, Warm};
pub use schedule::{JobRecord, JobStatus};
pub use secrecy::SecretString;
pub use service::{Ended, Launch, Launcher, Service, beside_calls};
pub use state::RESTORE;
pub use stream::{Emit, Feed, ITEM_OVERHEAD, Input, Output, Streams, Taken, Tap, WINDOW};
pub use supervise::{Recovery, Supervision};
pub use total::{MemoryPool, TotalMemory};
pub use wait::block_on;
pub use ward::{
    Action, Activity, Alert, AlertRule, Communication, Counter, Decision, DecisionFilter, Effect, Failure,
    Monitor, Reason, Rule, Sample, Subject, Tally, Trigger, Verdict,
};
