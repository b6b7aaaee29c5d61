//! Which names and addresses stand in the certificates of members, and on whose word.
//!
//! A certificate that holds `postgres.internal` lets its owner be taken for the database. So what a member advertises
//! is where it is dialed, and no more: a host stands in its certificate only if the join token names it, an admin added
//! it, or a voter found the member there. Loopback is no claim on a name and needs no proof.

use serde::{Deserialize, Serialize};

use super::member::{Member, Suffrage};
use super::outcome::{Limited, Refused};
use super::view::View;
use crate::id::NodeId;
use crate::limits::ADDRESSES_MAX;
use crate::name::{Address, Host};
use crate::principal::Role;

/// Why a certificate of a member may hold a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HostProof {
    /// A voter found the member there, on an address that the member advertises.
    Voter(NodeId),
    /// The join token that admitted the member names it. It counts while the member advertises it.
    Token,
    /// The member founded the cluster with it. It counts while the member advertises it.
    Founder,
    /// An admin added it. It counts whether the member advertises it or not.
    Admin,
}

impl core::fmt::Display for HostProof {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Voter(by) => write!(f, "reached by node {by}"),
            Self::Token => f.write_str("join token"),
            Self::Founder => f.write_str("founder"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// The hosts that one certificate holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafHosts {
    /// Those of this member alone, in order. On loopback several members share one.
    pub own: Vec<Host>,
    /// Those that all members share, in order: the cluster's `client_names` when it was issued.
    pub shared: Vec<Host>,
}

impl LeafHosts {
    /// All of them, as the certificate holds them.
    pub fn all(&self) -> Vec<Host> {
        let mut all = [self.own.as_slice(), self.shared.as_slice()].concat();
        all.sort();
        all.dedup();
        all
    }

    /// Whether the certificate holds `host`.
    pub fn contains(&self, host: &Host) -> bool {
        self.own.contains(host) || self.shared.contains(host)
    }
}

/// What one member says that it observed: at these hosts it found the member that a command is about. Only a voter's
/// word counts, and the leader lets no member speak in the name of another ([`super::author::permit`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Who observed it.
    pub by: NodeId,
    /// Where the member was found; nothing, if it was looked for and not found.
    pub hosts: Vec<Host>,
}

impl View {
    /// The hosts that a certificate of `member` holds if it is issued now.
    pub fn leaf_hosts(&self, member: &Member) -> LeafHosts {
        let advertised = member.addresses.iter().map(|address| &address.host);
        let advertised = advertised.filter(|host| host.is_loopback() || member.proved.contains_key(host));
        let added = member.proved.iter().filter(|(_, proof)| **proof == HostProof::Admin).map(|(host, _)| host);
        let mut own: Vec<Host> = advertised.chain(added).cloned().collect();
        own.sort();
        own.dedup();
        LeafHosts { own, shared: self.client_names.iter().cloned().collect() }
    }

    /// Whether `host` may become that of the member `except`, or of a newcomer. A host belongs to one member or broker,
    /// whatever the port: a client that dials a host believes any certificate that holds it. On loopback many share a
    /// host.
    pub(crate) fn check_host_free(&self, except: Option<NodeId>, host: &Host) -> Result<(), Refused> {
        if host.is_loopback() {
            return Ok(());
        }
        if self.client_names.contains(host) {
            return Err(Refused::HostShared(host.clone()));
        }
        if let Some(member) = self.members.with_host(host).find(|m| Some(m.id) != except) {
            return Err(Refused::HostTaken { host: host.clone(), by: Role::Node(member.id) });
        }
        self.check_no_broker(host)
    }

    pub(super) fn check_no_broker(&self, host: &Host) -> Result<(), Refused> {
        let Host::Dns(name) = host else { return Ok(()) };
        let broker = Role::Broker(name.clone());
        if self.principals.contains_key(&broker) {
            return Err(Refused::HostTaken { host: host.clone(), by: broker });
        }
        Ok(())
    }

    /// Where the word of `witness` may count: at hosts that are advertised, if it is a voter's.
    pub(super) fn witnessed<'a>(
        &self,
        witness: &'a Witness,
        advertised: &'a [Address],
    ) -> impl Iterator<Item = &'a Host> {
        let votes = self.members.get(&witness.by).is_some_and(|m| m.suffrage == Suffrage::Voter);
        let advertised = move |host: &&Host| votes && advertised.iter().any(|address| address.host == **host);
        witness.hosts.iter().take(ADDRESSES_MAX).filter(advertised)
    }
}

/// Whether a member is reached at a host, its certificate holds it, or an admin gave it to the member: for itself, not
/// as one of the names that all members share.
pub(super) fn holds_alone(member: &Member, host: &Host) -> bool {
    let next = member.renewed.as_ref().is_some_and(|renewed| renewed.hosts.own.contains(host));
    let added = member.proved.get(host) == Some(&HostProof::Admin);
    next || added || member.hosts.own.contains(host) || member.addresses.iter().any(|a| a.host == *host)
}

/// Whether there are at most `count_max` hosts of at most `len_max` bytes together.
pub(super) fn check_limit(what: Limited, hosts: &[&Host], count_max: usize, len_max: usize) -> Result<(), Refused> {
    if hosts.len() > count_max {
        return Err(Refused::Limit { what, max: count_max as u64 });
    }
    if hosts.iter().map(|host| host.to_string().len()).sum::<usize>() > len_max {
        return Err(Refused::Limit { what, max: len_max as u64 });
    }
    Ok(())
}
