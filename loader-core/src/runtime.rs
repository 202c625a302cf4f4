use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use quadriga_abi::limits::{Limit, Limits};
use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, Isolation, RuntimeKind};

use crate::{BoxFuture, Bridge, Instance, Language, MemoryPool};

/// An engine that can run extensions of one kind.
///
/// A host registers each runtime once, when it builds its dispatcher. From then on the dispatcher
/// calls [`Runtime::load`] for each extension of that kind, several at once perhaps, and drops the
/// runtime after the last of its instances has been shut down.
pub trait Runtime: Send + Sync + 'static {
    /// The kind that manifests ask for.
    fn kind(&self) -> RuntimeKind;

    /// Name and version of the engine, for people.
    fn engine(&self) -> String {
        self.kind().to_string()
    }

    /// Whether its instances run `concurrency` calls at a time by themselves. Of any other, those who
    /// start processes start so many.
    fn is_concurrent(&self) -> bool {
        false
    }

    /// What this runtime can keep to. The dispatcher refuses what goes beyond before it loads.
    fn support(&self) -> Support;

    /// The languages that it runs as they are written, for
    /// [`Dispatcher::execute`](crate::Dispatcher::execute). None where source is compiled first.
    fn languages(&self) -> &'static [Language] {
        &[]
    }

    /// Makes what loads start from, if this runtime has such a thing and it is not there yet. Polled
    /// where loads are; a host need not ask for it.
    fn warm_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Does what of a load can be done once for several processes, and returns it as a file that
    /// nobody can write: for [`Unit::prepared`] of a load by the same runtime of the same release in
    /// another process. `None` if there is nothing of the kind. Polled where loads are.
    ///
    /// # Errors
    /// Those that the load would have.
    fn prepare(&self, unit: &Unit) -> BoxFuture<'_, Result<Option<Arc<File>>, Error>> {
        let _ = unit;
        Box::pin(async { Ok(None) })
    }

    /// Tells it of the memory that all extensions of its host may use together, if the host's policy
    /// says that: once, before anything is loaded. The dispatcher samples and alerts by itself; this
    /// is for what can hold extensions to it.
    fn share_memory(&self, _pool: &Arc<MemoryPool>) {}

    /// Loads one extension and runs its top-level code, until it can take calls.
    ///
    /// Polled on the dispatcher's own tokio runtime: work that blocks belongs into
    /// `tokio::task::spawn_blocking`. It must give up by [`Unit::deadline`], whatever the
    /// extension does, if the engine can be interrupted at all, and leave nothing behind when it
    /// fails or its future is dropped.
    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>>;
}

/// An engine that was started in a process with one thread, whose children find it started: for
/// those who start a process per extension.
///
/// Each fork comes between [`before_fork`](Self::before_fork) and one of the other two, on the
/// thread that started the engine. Nothing here may start a thread in the parent, or read what
/// depends on an extension.
pub trait Warm {
    /// A fork comes next.
    fn before_fork(&mut self);

    /// After the fork, where the next one will come from; also if it failed.
    fn in_parent(&mut self);

    /// After the fork, in the child, once it is confined and has its own environment: from now on
    /// it is as if the engine had been started here.
    ///
    /// # Errors
    /// If the engine cannot go on in the child, which then ends.
    fn in_child(&mut self) -> Result<(), Error>;
}

/// What a runtime can keep to.
#[derive(Debug, Clone, Copy)]
pub struct Support {
    /// How far it keeps an extension from the host.
    pub isolation: Isolation,
    /// The limits it enforces, beside those that the dispatcher does itself: load-timeout,
    /// message-size, queue-depth and call-depth. With `call-timeout` it says that it can interrupt
    /// calls, and with `output-rate` that all that is printed goes through [`Bridge::log`].
    pub limits: &'static [Limit],
    /// The permissions it mediates, by their names in the manifest, beside `call` and those of the
    /// services of the host ([`Service`](crate::Service)).
    pub permissions: &'static [&'static str],
}

/// One extension, ready to be loaded: checked, resolved, with what it may do and use.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Its folder, absolute, without symbolic links.
    pub root: PathBuf,
    /// The file to load: absolute, without symbolic links, inside `root`.
    pub entry: PathBuf,
    /// What it may use up: its manifest cut by the host's policy.
    pub limits: Limits,
    /// What it may do: its manifest cut by the grant.
    pub permissions: Permissions,
    /// When the load must be over.
    pub deadline: Instant,
    /// What [`Runtime::prepare`] gave for it in the process of the host. It is trusted.
    pub prepared: Option<Arc<File>>,
}

impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn kind(&self) -> RuntimeKind {
        (**self).kind()
    }

    fn engine(&self) -> String {
        (**self).engine()
    }

    fn support(&self) -> Support {
        (**self).support()
    }

    fn languages(&self) -> &'static [Language] {
        (**self).languages()
    }

    fn is_concurrent(&self) -> bool {
        (**self).is_concurrent()
    }

    fn share_memory(&self, pool: &Arc<MemoryPool>) {
        (**self).share_memory(pool);
    }

    fn warm_up(&self) -> BoxFuture<'_, ()> {
        (**self).warm_up()
    }

    fn prepare(&self, unit: &Unit) -> BoxFuture<'_, Result<Option<Arc<File>>, Error>> {
        (**self).prepare(unit)
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        (**self).load(unit, bridge)
    }
}
