//! Who calls, and what they may.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use quadriga_abi::permission::TopicPattern;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Tells who sends a request.
pub trait Authenticate: Send + Sync + 'static {
    /// Who sends it, by its headers; `None` for a stranger, who is answered by 401. Called before
    /// anything else of the request is looked at.
    fn authenticate(&self, headers: &HeaderMap) -> Option<Caller>;
}

/// Somebody who may call functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A name for the log.
    pub name: String,
    /// The functions that they may call: `plan.list`, `plan.*`, `*`.
    pub functions: Vec<TopicPattern>,
}

impl Caller {
    pub(crate) fn may(&self, api: &str, function: &str) -> bool {
        let name = format!("{api}.{function}");
        self.functions.iter().any(|pattern| pattern.allows(&name))
    }
}

/// The caller, as a request carries it through the router.
#[derive(Clone)]
pub(crate) struct Who(pub(crate) Arc<Caller>);

/// Lets everybody call everything: for what something else protects, such as a proxy that
/// authenticates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anybody;

impl Authenticate for Anybody {
    fn authenticate(&self, _: &HeaderMap) -> Option<Caller> {
        Some(Caller { name: "anybody".to_owned(), functions: vec![TopicPattern("*".to_owned())] })
    }
}

/// Callers who send a token: `Authorization: Bearer TOKEN` (RFC 6750). Only digests of the tokens are
/// kept, and comparing takes as long whichever fits.
#[derive(Clone, Default)]
pub struct Bearer {
    callers: Vec<([u8; 32], Caller)>,
}

impl Bearer {
    /// A further token, with a name for who has it, and the functions that they may call:
    /// `plan.list`, `plan.*`, `*`. A token should have 128 random bits or more.
    #[must_use]
    pub fn token(mut self, name: &str, token: &str, functions: &[&str]) -> Self {
        let functions = functions.iter().map(|it| TopicPattern((*it).to_owned())).collect();
        self.callers.push((Sha256::digest(token).into(), Caller { name: name.to_owned(), functions }));
        self
    }
}

impl Authenticate for Bearer {
    fn authenticate(&self, headers: &HeaderMap) -> Option<Caller> {
        let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token.trim_start_matches(' ')).into();
        // All are looked at, so that the time tells nothing.
        let (mut place, mut found) = (0_u64, Choice::from(0));
        for (number, (known, _)) in (0..).zip(&self.callers) {
            let same = known.ct_eq(&digest);
            place.conditional_assign(&number, same);
            found |= same;
        }
        let place = usize::try_from(place).ok()?;
        bool::from(found).then(|| self.callers[place].1.clone())
    }
}
