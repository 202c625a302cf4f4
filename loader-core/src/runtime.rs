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
/// Each fork comes between [`before_fork`](Self::before_fork) and one of
/// [`in_parent`](Self::in_parent) and [`in_child`](Self::in_child), on the thread that started the
/// engine. Nothing here may start a thread in the parent, or read what depends on an extension.
pub trait Warm {
    /// A fork comes next.
    fn before_fork(&mut self);

    /// After the fork, where the next one will come from; also if it failed.
    fn in_parent(&mut self);

    /// After the fork, in a child that waits for its extension and is not confined yet, and before
    /// [`in_child`](Self::in_child): does once what the start of an extension does and leaves no
    /// trace of it, so that the memory it needs is the child's own by then. It starts no thread.
    fn rehearse(&mut self) {}

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::{Dispatcher, LoadOptions, MockRuntime, Policy};

    /// Answers otherwise than a runtime that leaves all to the defaults.
    struct Odd {
        inner: MockRuntime,
        told: AtomicU32,
        warmed: AtomicU32,
    }

    static LANGUAGES: [Language; 1] = [Language { names: &["odd"], file: "a", entry: "b", wrapper: "" }];

    impl Runtime for Odd {
        fn kind(&self) -> RuntimeKind {
            RuntimeKind::new("odd")
        }

        fn engine(&self) -> String {
            "Odd 1".to_owned()
        }

        fn is_concurrent(&self) -> bool {
            true
        }

        fn support(&self) -> Support {
            Support { isolation: Isolation::InProcess, limits: &[Limit::Memory], permissions: &["env"] }
        }

        fn languages(&self) -> &'static [Language] {
            &LANGUAGES
        }

        fn warm_up(&self) -> BoxFuture<'_, ()> {
            self.warmed.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {})
        }

        fn prepare(&self, _: &Unit) -> BoxFuture<'_, Result<Option<Arc<File>>, Error>> {
            Box::pin(async { Ok(tempfile::tempfile().ok().map(Arc::new)) })
        }

        fn share_memory(&self, _: &Arc<MemoryPool>) {
            self.told.fetch_add(1, Ordering::Relaxed);
        }

        fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
            assert!(unit.prepared.is_some(), "it was prepared by the same");
            self.inner.load(unit, bridge)
        }
    }

    /// Prepares what it loads, as those do that run it elsewhere.
    struct Preparing(Arc<Odd>);

    impl Runtime for Preparing {
        fn kind(&self) -> RuntimeKind {
            self.0.kind()
        }

        fn support(&self) -> Support {
            self.0.support()
        }

        fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
            Box::pin(async move {
                let prepared = Runtime::prepare(&self.0, &unit).await?;
                Runtime::load(&self.0, Unit { prepared, ..unit }, bridge).await
            })
        }
    }

    #[tokio::test]
    async fn a_shared_runtime_answers_as_the_one_that_is_shared() {
        let inner = MockRuntime::new().echo("echo");
        let odd = Arc::new(Odd { inner, told: AtomicU32::new(0), warmed: AtomicU32::new(0) });
        let shared: &dyn Runtime = &odd;
        assert_eq!((shared.kind().as_str(), shared.engine().as_str()), ("odd", "Odd 1"));
        assert!(shared.is_concurrent());
        let Support { isolation, limits, permissions } = shared.support();
        assert_eq!(
            (isolation, limits, permissions),
            (Isolation::InProcess, &[Limit::Memory][..], &["env"][..])
        );
        assert_eq!(shared.languages()[0].names, ["odd"]);
        shared.warm_up().await;
        shared.share_memory(&MemoryPool::new(1));
        assert_eq!((odd.warmed.load(Ordering::Relaxed), odd.told.load(Ordering::Relaxed)), (1, 1));

        let folder = tempfile::tempdir().unwrap();
        let manifest =
            "[extension]\nid = 'a.b'\nversion = '1.0.0'\n[runtime]\nkind = 'odd'\nentry = 'main'\n";
        std::fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
        std::fs::write(folder.path().join("main"), "").unwrap();
        let policy = Policy { load_timeout: Duration::from_secs(10), ..Policy::default() };
        let host = Dispatcher::builder().runtime(Preparing(odd)).policy(policy).build().unwrap();
        host.load(folder.path(), LoadOptions::default()).await.unwrap();
        assert_eq!(host.status("a.b").unwrap().methods[0].name, "echo");
    }

    /// One that is left out would fall back to the default.
    #[test]
    fn each_method_is_passed_on() {
        let source = include_str!("runtime.rs");
        let methods = |begin: &str| {
            let rest = source.split_once(begin).unwrap().1;
            rest.split_once("\n}\n").unwrap().0.matches("\n    fn ").count()
        };
        let all = methods("pub trait Runtime");
        assert!(all >= 9);
        assert_eq!(methods("Runtime for Arc<R>"), all);
    }
}
