//! The APIs of a host over HTTP: what the host itself offers there, and what extensions add.
//!
//! [`Http`] makes an [`axum::Router`] that a host serves as it likes: beside routes of its own, with
//! TLS, behind a proxy. `POST /API/FUNCTION` calls a function, and `GET /openapi.json` describes all of
//! them (OpenAPI 3.1.0, <https://spec.openapis.org/oas/v3.1.0>), each for what the caller may use.

mod answer;
mod auth;
mod call;
mod openapi;

use std::sync::Arc;
use std::time::Duration;

use auth::Who;
pub use auth::{Anybody, Authenticate, Bearer, Caller};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use quadriga_core::Dispatcher;

/// What serves the APIs of a host.
///
/// ```
/// use quadriga_core::{Dispatcher, Provided};
/// use quadriga_http::{Bearer, Http};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let host = Dispatcher::builder().build()?;
/// let plans = Provided::new("app.plan").expect("an id").function("list", |(): ()| Ok(["first"]));
/// host.provide(plans.open("plan"))?;
/// // Who sends this token may call all functions of `plan`.
/// let callers = Bearer::default().token("reports", "a long random text", &["plan.*"]);
/// let router = Http::new(host, callers).router();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # if false {
/// axum::serve(listener, router).await?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use = "it serves nothing before `router`"]
pub struct Http {
    host: Dispatcher,
    callers: Box<dyn Authenticate>,
    body: usize,
    timeout: Duration,
    title: String,
    version: String,
}

impl Http {
    /// Serves all APIs that are open in a host, to those whom `callers` lets in.
    pub fn new(host: Dispatcher, callers: impl Authenticate) -> Self {
        let (title, version) = ("Quadriga".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self {
            host,
            callers: Box::new(callers),
            body: 1 << 20,
            timeout: Duration::from_secs(30),
            title,
            version,
        }
    }

    /// The largest body of a request, in bytes; 1 MiB if it is not said. A larger one is answered by
    /// 413.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// How long a call may take, 30 seconds if it is not said. One that takes longer is ended, and
    /// answered by 504.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The title and version in the OpenAPI document.
    pub fn title(mut self, title: impl Into<String>, version: impl Into<String>) -> Self {
        (self.title, self.version) = (title.into(), version.into());
        self
    }

    /// The routes `POST /{api}/{function}` and `GET /openapi.json`, to be merged or nested into others.
    pub fn router(self) -> Router {
        let (body, state) = (self.body, Arc::new(self));
        Router::new()
            .route("/openapi.json", get(describe))
            .route("/{api}/{function}", post(call::call))
            .fallback(answer::nowhere)
            .method_not_allowed_fallback(answer::no_method)
            .layer(DefaultBodyLimit::max(body))
            .layer(middleware::from_fn_with_state(Arc::clone(&state), identify))
            .with_state(state)
    }
}

/// Lets nobody further whom the host does not know: also not to be told what there is.
async fn identify(State(http): State<Arc<Http>>, mut request: Request, next: Next) -> Response {
    match http.callers.authenticate(request.headers()) {
        Some(caller) => {
            request.extensions_mut().insert(Who(Arc::new(caller)));
            next.run(request).await
        }
        None => answer::unknown_caller(),
    }
}

async fn describe(State(http): State<Arc<Http>>, who: axum::Extension<Who>) -> Response {
    let functions = http.host.apis().into_iter().filter(|it| it.allowed);
    let functions: Vec<_> = functions.filter(|it| who.0.0.may(&it.api, &it.function.name)).collect();
    Json(openapi::document(&http.title, &http.version, &functions)).into_response()
}
