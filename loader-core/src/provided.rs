mod typed;

use std::sync::Arc;
use std::time::Instant;

use quadriga_abi::limits::Limits;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{
    Bytes, Description, Error, ErrorCode, ExtensionId, Isolation, Method, NameError, RuntimeKind, codec,
};
use semver::Version;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use typed::Arguments;

use crate::dispatcher::Core;
use crate::hook::within;
use crate::load::taken;
use crate::service::not_a_service;
use crate::ward::Ward;
use crate::{BoxFuture, Call, CallContext, Grant, Instance, Outcome, Support, Usage};

type Function = Box<dyn Fn(&CallContext, Bytes) -> Result<Bytes, Error> + Send + Sync>;

/// Functions of the host that extensions call like those of any other extension.
///
/// ```
/// use quadriga_core::Provided;
/// let clock = Provided::new("app.math")?.function("add", |(a, b): (i64, i64)| Ok(a + b));
/// # Ok::<(), quadriga_core::abi::NameError>(())
/// ```
pub struct Provided {
    id: ExtensionId,
    pub(crate) api: Option<Arc<str>>,
    version: Option<Version>,
    description: Description,
    functions: Vec<Function>,
}

impl Provided {
    /// Starts with no functions under an id that extensions call.
    ///
    /// # Errors
    /// If the id is malformed.
    pub fn new(id: &str) -> Result<Self, NameError> {
        let sdk = concat!("quadriga-core ", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            id: ExtensionId::new(id)?,
            api: None,
            version: None,
            description: Description::new(sdk, Vec::new()),
            functions: Vec::new(),
        })
    }

    /// Adds a function. It runs on the thread of its caller and takes a tuple of arguments. Nothing is known
    /// of it but its name: see [`Provided::typed`].
    pub fn function<A: DeserializeOwned, R: Serialize>(
        self,
        name: &str,
        function: impl Fn(A) -> Result<R, Error> + Send + Sync + 'static,
    ) -> Self {
        let called = format!("{}/{name}", self.id);
        self.raw(name, move |_, arguments| {
            let arguments = codec::from_arguments(&arguments).map_err(|error| {
                Error::new(ErrorCode::InvalidArguments, format!("{called}: the arguments: {error}"))
            })?;
            encoded(&called, &function(arguments)?)
        })
    }

    /// Adds a function that takes and returns MessagePack.
    pub fn raw(
        mut self,
        name: &str,
        function: impl Fn(&CallContext, Bytes) -> Result<Bytes, Error> + Send + Sync + 'static,
    ) -> Self {
        self.description.methods.push(Method::named(name));
        self.functions.push(Box::new(function));
        self
    }

    /// Lets extensions add functions, under the name that the API has in their manifests
    /// (`[api.NAME.FUNCTION]`). They are called like the host's own, through the same id, by the host and by
    /// extensions; what the host itself offers cannot be replaced.
    ///
    /// ```
    /// use quadriga_core::Provided;
    /// let plan = Provided::new("app.plan")?.function("list", |()| Ok(["first"])).open("plan");
    /// # Ok::<(), quadriga_core::abi::NameError>(())
    /// ```
    pub fn open(mut self, api: &str) -> Self {
        self.api = Some(Arc::from(api));
        self
    }

    /// The version of the API that it is opened as. Functions that extensions add for other ones are
    /// `api_conflict`; those that say no version fit all, and where the API has none only those do.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn id(&self) -> &ExtensionId {
        &self.id
    }
}

/// The result of a function.
fn encoded<R: Serialize>(called: &str, result: &R) -> Result<Bytes, Error> {
    codec::to_bytes(result)
        .map(Bytes::from)
        .map_err(|error| Error::new(ErrorCode::InvalidValue, format!("{called}: the result: {error}")))
}

impl Core {
    pub(crate) fn provide(self: &Arc<Self>, functions: Provided) -> Result<(), Error> {
        let id = functions.id().clone();
        not_a_service(&id, ErrorCode::InvalidArguments)?;
        let reserved = self.reserve(&id)?;
        if self.routes.load().contains_key(&reserved.id) {
            return Err(taken(&id));
        }
        let (kind, api) = (RuntimeKind::new("host"), functions.api.clone());
        let version_of_api = functions.version.clone();
        let instance: Arc<dyn Instance> = Arc::new(functions);
        let support = Support { isolation: Isolation::None, limits: &[], permissions: &[] };
        let version = semver::Version::new(0, 0, 0);
        let ward = Ward::new(id, Grant::Nothing, false, &self.trail);
        let reach = self.reach(&ward, None, Permissions::default(), None);
        let limits = Limits::default();
        let mut slot = self.slot(reach, kind, version, support, instance, limits, None, Instant::now())?;
        if let (Some(api), Some(slot)) = (api, Arc::get_mut(&mut slot)) {
            self.apis.open(&api, version_of_api, slot)?;
            slot.api = Some(api);
        }
        self.insert(&slot);
        Ok(())
    }
}

impl Instance for Provided {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, call: Call) -> Outcome {
        let context = call.context();
        Outcome::Ready(match self.functions.get(call.method) {
            Some(function) => within(context, || function(&context, call.envelope.payload)),
            None => Err(Error::new(ErrorCode::Internal, "no such function")),
        })
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, _call: u64) {}

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
