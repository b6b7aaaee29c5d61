//! A voter looks for a joiner before it has it admitted, or has a member looked for that asks by another.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::dial_back::{ANSWER_LEN, Challenge, is_answered, may_dial};
use countersign_core::enroll::dial_budget::{DialAccount, DialBudget};
use countersign_core::id::NodeId;
use countersign_core::limits::{DIAL_BACK_ADDRESSES_MAX, DIAL_BACK_MILLIS, DIAL_BACKS_IN_FLIGHT_MAX};
use countersign_core::locked::Locked;
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
use crate::identity::keys::random;
use crate::identity::local::Local;
use crate::trust::machine::SharedState;

/// How long a voter looks, and how long "not found" takes.
pub(super) const PATIENCE: Duration = Duration::from_millis(DIAL_BACK_MILLIS);

/// Looks for joiners, as a voter, within a budget.
pub(crate) struct HostWitness {
    local: Arc<Local>,
    state: SharedState,
    budget: Locked<DialBudget>,
    places: Semaphore,
}

impl HostWitness {
    pub(crate) fn new(local: Arc<Local>, state: SharedState) -> Self {
        Self { local, state, budget: Locked::default(), places: Semaphore::new(DIAL_BACKS_IN_FLIGHT_MAX) }
    }
}

/// The request because of which a joiner is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// The joiner itself, connected from there.
    Joiner(IpAddr),
    /// The member that it asked, which does not vote.
    Sponsor(NodeId),
}

impl HostWitness {
    /// Looks for the joiner that made `request`, as a voter. None where this member cannot tell: it does not vote, or
    /// would refuse the request by what it knows.
    pub(crate) async fn witness(&self, request: &EnrollmentRequest, asker: Asker) -> Option<Witness> {
        let (view, wanted) = {
            let state = self.state.read();
            let wanted = state.hosts_to_prove(request).ok()?;
            (Arc::clone(state.view()?), wanted)
        };
        if view.members.get(&self.local.node).is_none_or(|here| here.suffrage != Suffrage::Voter) {
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
        Some(Witness { by: self.local.node, hosts })
    }

    /// Those of `addresses` at which the joiner was found. Unless it was found at all of them, this takes its whole
    /// time.
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
        let place = self.places.try_acquire();
        let charge = || {
            let mut budget = self.budget.lock();
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
            tracing::debug!(
                token = %request.token,
                "a joiner is not looked for: too many are, or were within a minute"
            );
        }
        if found.len() < wanted {
            // why: how fast it was not found would tell what is there instead
            tokio::time::sleep_until(deadline).await;
        }
        found
    }
}

/// Whether the joiner answers wherever this address leads. A name that leads to several hosts is the joiner's only if
/// it is at all of them: it may be shared with others.
async fn is_found(view: &View, request: &EnrollmentRequest, address: &Address, source: Option<IpAddr>) -> bool {
    let Some(targets) = targets(view, None, address, source).await else { return false };
    for target in targets {
        if !answers(request, address, target).await {
            return false;
        }
    }
    true
}

/// Where to dial for `address`; none where it leads nowhere, to too many hosts, or to one that may not be dialed for
/// it.
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

#[cfg(test)]
mod tests {
    use countersign_core::enroll::dial_back::DialBack;
    use countersign_core::id::{AuthorityId, ClusterId, KeyId, RequestId, StoreId, TokenId};
    use countersign_core::key::{Endorsement, SecretKey};
    use countersign_core::limits::DIAL_BACKS_PER_TOKEN_MINUTE_MAX;
    use countersign_core::name::Name;
    use countersign_core::secret::Secret;
    use countersign_core::time::BootMillis;
    use countersign_core::trust::member::MemberKeys;
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::founded;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const TOKEN: TokenId = TokenId([5; 8]);

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(Secret::new([seed; 32]))
    }

    fn request() -> EnrollmentRequest {
        let cluster = ClusterId([1; 16]);
        EnrollmentRequest {
            cluster,
            pin: AuthorityId([2; 32]),
            token: TOKEN,
            request: RequestId([1; 16]),
            name: Name::parse("n2").unwrap(),
            addresses: vec![],
            leaf_key: KeyId([3; 32]),
            foreign: None,
            endorsement: Endorsement::sign(&key(1), cluster, KeyId([3; 32]), 0),
            keys: MemberKeys { identity: key(1).public(), sealing: [1; 32], ucan: key(3).public() },
            store: StoreId([2; 16]),
            feature_level: 1,
            sponsor_leaf: [3; 32],
            exporter: [4; 32],
            signature: [0; 64],
        }
    }

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = Address { host: Host::Ip(HERE), port: listener.local_addr().unwrap().port() };
        (listener, address)
    }

    fn back(address: &Address) -> DialBack {
        DialBack { pin: AuthorityId([2; 32]), token: TOKEN, addresses: vec![address.clone()] }
    }

    /// Whether the joiner was found, and how long that took.
    async fn looked(member: &HostWitness, address: &Address, source: Option<IpAddr>) -> (bool, Duration) {
        let (view, begun) = (member.local.view(), Instant::now());
        let accounts = [DialAccount::Token(TOKEN)];
        let found = member.found_at(&view, &request(), vec![address.clone()], source, &accounts).await;
        (found == [address.clone()], begun.elapsed())
    }

    /// Answers each question with these bytes.
    async fn says(listener: &TcpListener, bytes: &[u8]) -> std::convert::Infallible {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.write_all(bytes).await;
        }
    }

    #[tokio::test]
    async fn dial_used_as_a_port_scanner_tells_nothing_by_answer_or_time() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &running.witness;
        let (free, closed) = listener().await;
        drop(free);
        let (_silent, silent) = listener().await;
        let (talks, talking) = listener().await;
        let (web, https) = listener().await;
        let (other, another) = listener().await;
        let (not_its, not_it) = (back(&another), key(9));
        let answers = async {
            tokio::select! {
                never = says(&talks, b"220 mail.example ESMTP\r\n") => match never {},
                never = says(&web, &[b'x'; 256]) => match never {},
                never = crate::hosts::answer(&other, &not_its, &not_it) => match never {},
            }
        };
        let here = Some(HERE);
        let looks = async {
            tokio::join!(
                looked(member, &closed, here),
                looked(member, &silent, here),
                looked(member, &talking, here),
                looked(member, &https, here),
                looked(member, &another, here),
                looked(member, &silent, None),
            )
        };
        let seen = tokio::select! { seen = looks => seen, never = answers => never };
        for (what, (found, took)) in [
            ("a closed port", seen.0),
            ("one that is silent", seen.1),
            ("one that talks and closes", seen.2),
            ("one that says too much", seen.3),
            ("a joiner with another key", seen.4),
            ("one that may not be dialed", seen.5),
        ] {
            assert!(!found && took >= PATIENCE, "{what}: found {found} after {took:?}");
        }
        running.shutdown().await;
    }

    #[tokio::test]
    async fn joiner_is_found_where_it_answers_until_its_token_is_used_up() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &running.witness;
        let (mine, address) = listener().await;
        let (back, identity) = (back(&address), key(1));
        let look = async {
            assert!(looked(member, &address, Some(HERE)).await.0);
            {
                let mut budget = member.budget.lock();
                // Used up an hour from now: no time that passes here pays it back.
                let then = BootMillis(boot_now().0 + 3_600_000);
                assert!(budget.charge(&[DialAccount::Token(TOKEN)], DIAL_BACKS_PER_TOKEN_MINUTE_MAX as usize, then));
            }
            let (found, took) = looked(member, &address, Some(HERE)).await;
            assert!(!found && took >= PATIENCE, "used up: {took:?}");
        };
        tokio::select! {
            () = look => {}
            never = crate::hosts::answer(&mine, &back, &identity) => match never {},
        }
        running.shutdown().await;
    }

    #[tokio::test]
    async fn what_may_not_be_dialed_gets_no_connection() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &running.witness;
        let (listener, address) = listener().await;
        let named = Address::parse(&format!("localhost:{}", address.port)).unwrap();
        tokio::select! {
            _ = async { tokio::join!(looked(member, &address, None), looked(member, &named, None)) } => {}
            _ = listener.accept() => panic!("dialed"),
        }
        running.shutdown().await;
    }

    #[tokio::test]
    async fn full_house_looks_for_no_further_member() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let member = &running.witness;
        let places = u32::try_from(DIAL_BACKS_IN_FLIGHT_MAX).unwrap();
        let (listener, address) = listener().await;
        let taken = member.places.try_acquire_many(places).unwrap();
        tokio::select! {
            looked = looked(member, &address, Some(HERE)) => assert!(!looked.0 && looked.1 >= PATIENCE),
            _ = listener.accept() => panic!("dialed"),
        }
        drop(taken);
        tokio::select! {
            _ = looked(member, &address, Some(HERE)) => panic!("not dialed"),
            accepted = listener.accept() => drop(accepted.unwrap()),
        }
        running.shutdown().await;
    }
}
