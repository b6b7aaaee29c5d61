//! The admin socket: for root and for the daemon's own user on this host.

use std::os::fd::AsRawFd;
use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::serve::IncomingStream;
use axum::{Extension, Router};
use countersign_node::Node;
use countersign_node::datadir::file;
use tokio::net::UnixListener;

use crate::ServeError;
use crate::access::{Access, Admin, Asker, Checked};
use crate::problem::{AdminError, new_request, numbered};
use crate::routes::{Port, Row, Terms, router};

/// The user at the other end, as the kernel says.
#[derive(Clone, Copy)]
struct Uid(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Uid {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|cred| cred.uid()))
    }
}

/// Serves the admin API on the socket in the data directory.
pub(crate) fn spawn(node: &Node) -> Result<(), ServeError> {
    let data = &node.local.data;
    let path = data.file(file::SOCKET);
    let listener = bind(data.path(), &path).map_err(|source| ServeError::Socket { path, source })?;
    let app: Router = router(&Admin::of(node), &Socket).layer(from_fn(check_uid));
    let stop = node.tasks.stopping();
    node.tasks.spawn_finishing(async move {
        let service = app.into_make_service_with_connect_info::<Uid>();
        let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "admin socket ended");
        }
    });
    Ok(())
}

/// Binds through the directory's descriptor: a socket's path is limited to 107 bytes, a data directory's is not.
fn bind(directory: &Path, path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = std::fs::File::open(directory)?;
    let short = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), file::SOCKET);
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Serves everything to the operator of this host, without any rule: a user that may read the data directory
/// holds the keys of the member. A command that only a voter may run refuses by itself.
struct Socket;

impl Port for Socket {
    fn serves(&self, _: &Access) -> bool {
        true
    }

    fn checked(&self, row: Row, handler: MethodRouter) -> MethodRouter {
        handler.layer(from_fn_with_state(row, let_in))
    }
}

async fn let_in(
    State(row): State<Row>,
    Extension(LetIn { uid }): Extension<LetIn>,
    mut request: Request,
    next: Next,
) -> Response {
    let number = match new_request() {
        Ok(number) => number,
        Err(error) => return error.into_response(),
    };
    let Terms { access, .. } = row.terms(request.method());
    request.extensions_mut().insert(Checked::new(Asker::operator(&row.admin, uid, number), access));
    numbered(next.run(request).await, number)
}

/// A user of this host who may use the socket.
#[derive(Debug, Clone, Copy)]
struct LetIn {
    uid: u32,
}

async fn check_uid(ConnectInfo(Uid(uid)): ConnectInfo<Uid>, mut request: Request, next: Next) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match uid {
        Some(uid) if uid == 0 || uid == own => {
            request.extensions_mut().insert(LetIn { uid });
            next.run(request).await
        }
        _ => AdminError::new(
            StatusCode::FORBIDDEN,
            "uid",
            "only root and the daemon's own user may use this socket",
            "run the command as that user, or use --server with an admin certificate",
        )
        .into_response(),
    }
}
