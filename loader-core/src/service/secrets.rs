//! `quadriga.secrets`: texts that the host keeps for its extensions, and that nothing of ours shows.

use std::sync::Arc;

use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, codec};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Service, unknown_method};
use crate::{Bridge, CallContext, Outcome};

/// The most bytes in the name of a secret.
const NAME: usize = 256;

/// Finds a secret by its name.
type Find = dyn Fn(&str) -> Result<Option<SecretString>, Error> + Send + Sync;

/// The service.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) find: Option<Arc<Find>>,
}

impl Service for Secrets {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let begin = || {
            if method != "get" {
                return Err(unknown_method("secrets", method, &["get"]));
            }
            let name = name(&arguments)?;
            caller.check(parent, &Access::Secret(&name))?;
            Ok(name)
        };
        let name = match begin() {
            Ok(name) => name,
            Err(error) => return error.into(),
        };
        let unknown = |name: &str| {
            let error = Error::new(ErrorCode::UnknownSecret, format!("the host has no secret {name}"));
            error.with_hint("the extension may read it, but the host does not give it")
        };
        let Some(find) = self.find.clone() else {
            return unknown(&name).into();
        };
        // Wherever the host has it from, the guest's thread does not wait for it.
        Outcome::Pending(Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || find(&name)?.ok_or_else(|| unknown(&name))).await;
            let panicked = |_| Err(Error::new(ErrorCode::Internal, "the source of the secrets panicked"));
            let secret = found.unwrap_or_else(panicked)?;
            // What goes wrong with it is not said with it.
            let failed = |_| Error::new(ErrorCode::Internal, "the secret cannot be sent");
            codec::to_bytes(secret.expose_secret()).map(Bytes::from).map_err(failed)
        }))
    }
}

/// What an extension gives as a name goes into logs and records.
fn name(arguments: &[u8]) -> Result<String, Error> {
    let wrong = |why: String| {
        Error::new(ErrorCode::InvalidArguments, format!("quadriga.secrets/get: the arguments: {why}"))
    };
    let (name,): (String,) = codec::from_arguments(arguments).map_err(|error| wrong(error.to_string()))?;
    if (1..=NAME).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    Err(wrong(format!("a name has 1 to {NAME} bytes, and no control characters")))
}
