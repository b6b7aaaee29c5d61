//! Services of a program that embeds a member or a remote guard.

#[cfg(feature = "tonic-014")]
use core::convert::Infallible;

use axum::Router;
#[cfg(feature = "tonic-014")]
use axum::{http::Request, response::IntoResponse};
use tonic::service::Routes;
#[cfg(feature = "tonic-014")]
use tonic::{body::Body, server::NamedService};
#[cfg(feature = "tonic-014")]
use tower::Service;

/// What is served to principals besides what each member serves by itself. Every call is decided by a rule before it
/// reaches a service: gRPC as a `write` of the `service` `package.Service/Method`; HTTP as a `read` (GET, HEAD,
/// OPTIONS), `delete` or `write` of the `service` that is its path. `grpc.health.v1` is served beside them, to every
/// principal.
#[derive(Default)]
pub struct Services {
    pub(crate) grpc: Routes,
    pub(crate) http: Option<Router>,
    /// Whether any was added.
    pub(crate) any: bool,
}

impl Services {
    /// Begins with no services.
    pub fn builder() -> ServicesBuilder {
        ServicesBuilder::default()
    }
}

/// Collects services.
#[derive(Default)]
pub struct ServicesBuilder(Services);

impl ServicesBuilder {
    /// Adds a gRPC service.
    #[cfg(feature = "tonic-014")]
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.0.any = true;
        self.0.grpc = self.0.grpc.add_service(service);
        self
    }

    /// Adds gRPC calls that a router of the embedder's own answers, with paths such as `/package.Service/Method`.
    #[cfg(feature = "axum-08")]
    #[must_use]
    pub fn grpc_router(mut self, router: Router) -> Self {
        self.0.any = true;
        self.0.grpc = Routes::from(self.0.grpc.into_axum_router().merge(router));
        self
    }

    /// Adds HTTP routes.
    #[cfg(feature = "axum-08")]
    #[must_use]
    pub fn http(mut self, app: Router) -> Self {
        self.0.any = true;
        self.0.http = Some(self.0.http.unwrap_or_default().merge(app));
        self
    }

    /// What was added.
    pub fn build(self) -> Services {
        self.0
    }
}
