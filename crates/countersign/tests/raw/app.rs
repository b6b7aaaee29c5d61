//! An embedder's HTTP app that counts what reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use countersign::Services;

/// Requests that the app saw.
#[derive(Clone, Default)]
pub struct Reached(Arc<AtomicUsize>);

impl Reached {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// `/free/echo` sends back what is sent to it, `/free/silent` reads nothing and never answers, both uncounted.
    /// Other paths are answered 200.
    pub fn app(&self) -> Services {
        let counted = self.0.clone();
        let count = from_fn(move |request: Request, next: Next| {
            counted.fetch_add(usize::from(!request.uri().path().starts_with("/free/")), Ordering::SeqCst);
            next.run(request)
        });
        let silent = || async { std::future::pending::<Body>().await };
        let app = Router::new()
            .route("/free/echo", get(|| async { "nothing was sent" }).post(|body: String| async move { body }))
            .route("/free/silent", get(silent).post(silent))
            .fallback(|| async { "anything" })
            .layer(count);
        Services::builder().http(app).build()
    }
}
