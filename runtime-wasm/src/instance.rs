use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quadriga_abi::limits::Limits;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Description, Error, Kind};
use quadriga_core::{BoxFuture, Call, Instance, Outcome, Usage};

use crate::limits::NOTHING;
use crate::pool::Pool;

/// How long a shutdown waits for the calls that it has ended.
const GRACE: Duration = Duration::from_secs(1);

/// A loaded component: a pool of its instances.
pub(crate) struct WasmInstance {
    pub(crate) description: Description,
    pub(crate) pool: Arc<Pool>,
}

impl Instance for WasmInstance {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, mut call: Call) -> Outcome {
        let pool = Arc::clone(&self.pool);
        // A call made by an extension never waits for a place: the one that it would wait for may
        // be waiting for it. For an event nobody waits.
        if call.envelope.depth > 0 && call.envelope.kind != Kind::Event {
            return start(async move { pool.call(&mut call).await });
        }
        match Arc::clone(&pool.places).try_acquire_owned() {
            Ok(place) => start(async move {
                let _place = place;
                pool.call(&mut call).await
            }),
            Err(_) => start(queued(pool, call)),
        }
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, _call: u64) {
        // Each call knows its own deadline and caller; those that wait must look.
        self.pool.hub.look();
    }

    fn usage(&self) -> Usage {
        self.pool.usage()
    }

    fn permissions_changed(&self, permissions: &Permissions) -> bool {
        self.pool.permit(permissions)
    }

    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        self.pool.limit(limits);
        Ok(())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.pool.hub.unload();
            self.pool.idle.lock().clear();
            let gone = async {
                while self.pool.usage().instances > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // What does not end is past our reach, and was logged by its caller.
            let _ = tokio::time::timeout(GRACE, gone).await;
        })
    }
}

/// Waits for a place first.
async fn queued(pool: Arc<Pool>, mut call: Call) -> Result<Bytes, Error> {
    let watch = pool.watch(call.context(), NOTHING);
    let place = tokio::select! {
        place = Arc::clone(&pool.places).acquire_owned() => place,
        stop = watch.stopped() => return Err(stop.into()),
    };
    let _place = place;
    pool.call(&mut call).await
}

/// Runs a call until it first has to wait. Most never do.
fn start(call: impl Future<Output = Result<Bytes, Error>> + Send + 'static) -> Outcome {
    let mut call: BoxFuture<'static, _> = Box::pin(call);
    // Whoever gets the future polls it again: no wake-up is lost.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Outcome::Ready(result),
        Poll::Pending => Outcome::Pending(call),
    }
}
