//! A member of a cluster, as a program that embeds it sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign_admin::{GivenFiles, ServeError};
use countersign_control::{Control, Controls, Health};
use countersign_core::id::{NodeId, RequestId};
use countersign_core::lease::{Fresh, NoLease};
use countersign_core::name::Name;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::view::View;
use countersign_guard::Guard;
use countersign_net::Dialer;
use countersign_node::datadir::{MemberFile, file};
use countersign_node::{KeysError, Lifetimes, Node, Settings, Start, StartError as NodeError, Started, random};

use crate::services::Services;

/// Why a member did not start. Nothing is lost: the same command goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The member itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Its administration.
    #[error(transparent)]
    Admin(#[from] ServeError),
    /// Services are to be served, and the settings turn the client port off.
    #[error("services are given, and the client port that serves them is turned off")]
    NoClientPort,
}

/// A running member. Clones are the same member; it stops when [`Member::shutdown`] is called.
#[derive(Clone)]
pub struct Member {
    pub(crate) node: Node,
    controls: Controls,
    health: Health,
    given: GivenFiles,
}

/// A member that is put together and serves no caller yet: what its services need can be taken from it.
pub struct Opened {
    member: Member,
    settings: Settings,
}

impl Opened {
    /// The member, for services that ask it something.
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// Starts the member: it takes part in its cluster, and serves `services` to the principals that the rules allow.
    /// Each call carries a [`Caller`](crate::Caller) in its extensions. Whatever `services` are, clients renew their
    /// certificates here, and remote guards are told of the rules.
    ///
    /// # Errors
    /// [`StartError`]; the member is stopped then.
    pub async fn serve(self, services: Services) -> Result<Member, StartError> {
        let Self { mut member, settings } = self;
        let node = &member.node;
        let served = async {
            if services.any && settings.client_addr.is_none() {
                return Err(StartError::NoClientPort);
            }
            let given = countersign_admin::serve(node, &settings).await?;
            node.run(services.grpc, services.http)?;
            Ok(given)
        };
        match served.await {
            Ok(given) => {
                member.given = given;
                Ok(member)
            }
            Err(error) => {
                member.shutdown().await;
                Err(error)
            }
        }
    }
}

impl Member {
    /// Opens the member that `settings.data` holds; if it holds none, makes one as `start` says. On a directory that
    /// holds a member, `start` is ignored: a token never replaces a valid identity.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(settings: Settings, start: Start) -> Result<(Opened, Started), StartError> {
        let (node, started) = Node::open(&settings, start).await?;
        let (controls, health) = (Controls::of(&node), Health::of(&node));
        let given = GivenFiles::default();
        Ok((Opened { member: Self { node, controls, health, given }, settings }, started))
    }

    /// Opens a member and starts it without services of the embedder's own.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings, start: Start) -> Result<(Self, Started), StartError> {
        let (opened, started) = Self::open(settings, start).await?;
        Ok((opened.serve(Services::default()).await?, started))
    }

    /// Judges what `settings.data` holds as [`Member::open`] does, in the same order, and starts nothing. None if
    /// there is no such directory: it would be made.
    ///
    /// # Errors
    /// What a start would be refused for, as far as the directory is concerned.
    pub fn check(settings: &Settings, start: &Start) -> Result<Option<MemberFile>, StartError> {
        Ok(Node::check(settings, start)?)
    }

    /// This member's number.
    pub fn node(&self) -> NodeId {
        self.node.local.node
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.node.local.file.name
    }

    /// The trust view in force here.
    pub fn view(&self) -> Arc<View> {
        self.node.local.view()
    }

    /// What this member's cluster was founded with, as far as this member has applied.
    pub fn lifetimes(&self) -> Lifetimes {
        let state = self.node.state.read();
        Lifetimes { lease: state.lease().unwrap_or_default(), node_ttl_secs: state.node_ttl_secs() }
    }

    /// Where the cluster port is bound.
    pub fn cluster_addr(&self) -> Option<SocketAddr> {
        self.node.acceptor.local_addr().ok()
    }

    /// Where the client port is bound, if it is served.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.node.endpoints.client()
    }

    /// Where the HTTPS port is bound, if it is served.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.node.endpoints.https()
    }

    /// Proof that this member has heard lately what is revoked: taken after a request was received and before its
    /// effect begins. It cannot be kept: a task that was paused in between takes another, and is denied if its time is
    /// over.
    ///
    /// # Errors
    /// Without a lease this member serves no client.
    pub fn fresh(&self) -> Result<Fresh<'_>, NoLease> {
        self.node.lease.fresh()
    }

    /// Administers the cluster through this member, as an operator of its host does: the program that embeds a member
    /// may do all of it. Changes name the process's user as their author.
    ///
    /// What it changes has one number in the log and in the events: take another for the next task.
    ///
    /// # Errors
    /// The operating system gave no randomness to number the request.
    pub fn control(&self) -> Result<Control, KeysError> {
        let uid = rustix::process::getuid().as_raw();
        let request = RequestId(*random::<16>()?.expose());
        Ok(self.controls.author(Claim { actor: Actor::Operator { uid }, source: None, request }))
    }

    /// How this member and its cluster are.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Decides who may do what on this member, by the rules of its replicated state. For services of one's own; the
    /// guard has been asked already about each call that [`Opened::serve`] serves.
    pub const fn guard(&self) -> &Guard {
        &self.node.guard
    }

    /// Reads the files again that the settings name for the HTTPS port; without it, that happens with the next
    /// connection after a change. What cannot be used is told in the log, and replaces nothing. False if there are
    /// none.
    pub fn reload_files(&self) -> bool {
        self.given.reload()
    }

    /// Whether this member knows that it was evicted. It serves no caller then, and does not come back.
    pub fn is_evicted(&self) -> bool {
        self.node.own.is_evicted()
    }

    /// What dials as this member: for services that call other members.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.node.local.endpoint.clone())
    }

    /// Ends once the member has stopped by itself: its storage failed, and it must not go on.
    pub async fn failed(&self) -> countersign_raft::GroupStopped {
        let mut status = self.node.group.watch();
        loop {
            if let Err(stopped) = self.node.group.running() {
                return stopped;
            }
            if status.changed().await.is_err() {
                return countersign_raft::GroupStopped::Shutdown;
            }
        }
    }

    /// Hands leadership over, stops serving, and leaves everything stored.
    pub async fn shutdown(&self) {
        self.node.shutdown().await;
        let _ = self.node.local.data.remove(file::SOCKET);
    }

    /// The doors that only tests open.
    #[doc(hidden)]
    pub const fn node_for_testing(&self) -> &Node {
        &self.node
    }
}
