//! A voter looks for a joiner before it has it admitted, or has a member looked for that asks by another.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::dial_back::{ANSWER_LEN, Challenge, is_answered, may_dial};
use countersign_core::enroll::dial_budget::{DialAccount, DialBudget};
use countersign_core::id::NodeId;
use countersign_core::limits::{DIAL_BACK_ADDRESSES_MAX, DIAL_BACK_MILLIS, DIAL_BACKS_IN_FLIGHT_MAX};
use countersign_core::name::{Address, Host};
use countersign_core::trust::hosts::Witness;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::view::View;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::boot::boot_now;
use crate::keys::random;
use crate::member::Inner;

/// How long a voter looks, and how long "not found" takes.
pub(super) const PATIENCE: Duration = Duration::from_millis(DIAL_BACK_MILLIS);

/// What this member may spend on looking for joiners.
pub(crate) struct DialBacks {
    budget: Mutex<DialBudget>,
    places: Semaphore,
}

impl Default for DialBacks {
    fn default() -> Self {
        Self { budget: Mutex::default(), places: Semaphore::new(DIAL_BACKS_IN_FLIGHT_MAX) }
    }
}

/// Because of whom a joiner is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// The joiner itself, connected from there.
    Joiner(IpAddr),
    /// The member that it asked, which does not vote.
    Sponsor(NodeId),
}

impl Inner {
    /// Looks for the joiner that made `request`, as a voter. None where this member cannot tell: it does not vote, or would
    /// refuse the request by what it knows.
    pub(crate) async fn witness(&self, request: &EnrollmentRequest, asker: Asker) -> Option<Witness> {
        let (view, wanted) = {
            let state = self.state.read();
            let wanted = state.hosts_to_prove(request).ok()?;
            (Arc::clone(state.view()?), wanted)
        };
        if view.members.get(&self.node).is_none_or(|here| here.suffrage != Suffrage::Voter) {
            return None;
        }
        let (source, account) = match asker {
            Asker::Joiner(ip) => (Some(ip.to_canonical()), DialAccount::of_source(ip)),
            Asker::Sponsor(node) => (None, DialAccount::Member(node)),
        };
        let from_there = |address: &Address| source.is_some_and(|ip| address.host == Host::Ip(ip));
        let (seen, rest): (Vec<Address>, Vec<Address>) = wanted.into_iter().partition(from_there);
        let accounts = [DialAccount::Token(request.token), account];
        let found = self.found_at(&view, request, rest, source, &accounts).await;
        let hosts = seen.into_iter().chain(found).map(|address| address.host).collect();
        Some(Witness { by: self.node, hosts })
    }

    /// Those of `addresses` at which the joiner was found. Unless it was found at all of them, this takes its whole time.
    async fn found_at(
        &self,
        view: &Arc<View>,
        request: &EnrollmentRequest,
        addresses: Vec<Address>,
        source: Option<IpAddr>,
        accounts: &[DialAccount],
    ) -> Vec<Address> {
        let (wanted, deadline) = (addresses.len(), Instant::now() + PATIENCE);
        if wanted == 0 {
            return vec![];
        }
        let place = self.dial_backs.places.try_acquire();
        let charge = || {
            let mut budget = self.dial_backs.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.charge(accounts, wanted, boot_now())
        };
        let mut found = Vec::new();
        if place.is_ok() && charge() {
            let request = Arc::new(request.clone());
            let mut looking = JoinSet::new();
            for address in addresses {
                let (view, request) = (Arc::clone(view), Arc::clone(&request));
                looking.spawn(tokio::time::timeout_at(deadline, async move {
                    is_found(&view, &request, &address, source).await.then_some(address)
                }));
            }
            while let Some(looked) = looking.join_next().await {
                found.extend(looked.ok().and_then(Result::ok).flatten());
            }
        } else {
            tracing::debug!(token = %request.token, "a joiner is not looked for: too many are, or were within a minute");
        }
        if found.len() < wanted {
            // why: how fast it was not found would tell what is there instead
            tokio::time::sleep_until(deadline).await;
        }
        found
    }
}

/// Whether the joiner answers wherever this address leads. A name that leads to several hosts is the joiner's only if it is
/// at all of them: it may be shared with others.
async fn is_found(view: &View, request: &EnrollmentRequest, address: &Address, source: Option<IpAddr>) -> bool {
    let Some(targets) = targets(view, None, address, source).await else { return false };
    for target in targets {
        if !answers(request, address, target).await {
            return false;
        }
    }
    true
}

/// Where to dial for `address`; none where it leads nowhere, to too many hosts, or to one that may not be dialed for it.
pub(super) async fn targets(
    view: &View,
    node: Option<NodeId>,
    address: &Address,
    source: Option<IpAddr>,
) -> Option<Vec<SocketAddr>> {
    let mut targets: Vec<SocketAddr> = match &address.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, address.port)],
        Host::Dns(name) => lookup_host((name.as_str(), address.port)).await.ok()?.collect(),
    };
    targets.sort();
    targets.dedup();
    let may = |target: &SocketAddr| may_dial(view, node, target.ip(), source);
    let fit = !targets.is_empty() && targets.len() <= DIAL_BACK_ADDRESSES_MAX && targets.iter().all(may);
    fit.then_some(targets)
}

async fn answers(request: &EnrollmentRequest, address: &Address, target: SocketAddr) -> bool {
    let Ok(nonce) = random::<32>() else { return false };
    let nonce = *nonce.expose();
    let asked = async {
        let mut socket = TcpStream::connect(target).await?;
        socket.write_all(&Challenge::new(nonce, address).encode()).await?;
        let mut answer = [0; ANSWER_LEN];
        socket.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked.await.is_ok_and(|answer| is_answered(request, address, &nonce, &answer))
}
