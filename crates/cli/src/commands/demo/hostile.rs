//! Callers that should not get in, and one that may: each dials a node with what it has.

use std::sync::Arc;

use anyhow::Context;
use countersign::{channel_over, channel_to};
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_api::cluster::{RaftRequest, WhoamiRequest};
use countersign_core::codec;
use countersign_core::name::Address;
use countersign_core::principal::TrustDomain;
use countersign_net::hostile::dial_unchecked;
use countersign_net::{Alpn, ClientDialer, Credential, DialError, SystemClock};
use countersign_pki::key::KeyPair;
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;
use countersign_raft::{RaftRpc, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// A certificate chain and its key, as files hold them, and the authority to expect on the other side.
pub(super) struct Holder {
    credential: Arc<Credential>,
    authority: Arc<Bundle>,
    domain: TrustDomain,
}

impl Holder {
    pub(super) fn new(chain: &str, key: &str, authority: &str, domain: &str) -> anyhow::Result<Self> {
        let chain = certificates_from_pem(chain).context("chain is not PEM")?;
        let authority = certificates_from_pem(authority).context("authority is not PEM")?;
        let key = KeyPair::from_pem(key).context("key cannot be read")?;
        Ok(Self {
            credential: Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), &key)?),
            authority: Arc::new(Bundle::new(authority.iter().map(|der| der.as_ref()))?),
            domain: TrustDomain::parse(domain)?,
        })
    }

    /// Connects to a client port as an honest client does; the connection is kept, never dialed again.
    pub(super) async fn connect(&self, address: &str) -> anyhow::Result<Whoami> {
        let address = parse(address);
        let clock = Arc::new(SystemClock);
        let dialer =
            ClientDialer::new(Arc::clone(&self.authority), self.domain.clone(), Arc::clone(&self.credential), clock);
        let stream = dialer.dial(&address).await?;
        Ok(Whoami(WhoamiClient::new(channel_to(&address, stream)?)))
    }

    /// Shows this certificate to the cluster port, which asks for a member's.
    pub(super) async fn pass_for_a_member(&self, address: &str) -> Result<(), Box<DialError>> {
        dial_unchecked(&parse(address), Alpn::Peer, Some(&self.credential)).await.map(drop).map_err(Box::new)
    }

    /// Shows this certificate to a client port, whatever server that is. Returns what the server made of it.
    pub(super) async fn pass_for_a_client(&self, address: &str) -> Result<(), String> {
        call_unchecked(address, Some(&self.credential)).await
    }

    /// As a member, claims to lead the trust group with a heartbeat of a far term. Returns what it was told.
    pub(super) async fn claim_to_lead_as(&self, me: u64, address: &str) -> anyhow::Result<Result<(), String>> {
        // The fields of an append request, in their order: a committed vote for itself; no entries, nothing committed.
        let heartbeat = (((1_000_u64, me), true), None::<u8>, Vec::<u8>::new(), None::<u8>);
        self.say(address, RaftRpc::Append, codec::encode(&heartbeat)?).await
    }

    /// As a member, asks another one for its vote in the name of `candidate`. Returns what it was told.
    pub(super) async fn ask_for_a_vote_as(&self, candidate: u64, address: &str) -> anyhow::Result<Result<(), String>> {
        // The fields of a vote request, in their order: term and candidate, not committed; an empty log.
        let vote = (((1_000_u64, candidate), false), None::<u8>);
        self.say(address, RaftRpc::Vote, codec::encode(&vote)?).await
    }

    async fn say(&self, address: &str, kind: RaftRpc, body: Vec<u8>) -> anyhow::Result<Result<(), String>> {
        let stream = dial_unchecked(&parse(address), Alpn::Peer, Some(&self.credential)).await?;
        let request = RaftRequest { group: 0, kind: codec::encode(&kind)?.into(), body: body.into() };
        let reply = match RaftClient::new(over(stream)).call(request).await {
            Ok(reply) => reply.into_inner(),
            // Refused for who it is, before what it says is read.
            Err(status) if status.code() == Code::PermissionDenied => return Ok(Err(status.message().to_owned())),
            Err(status) => return Err(status.into()),
        };
        if reply.refused.is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(codec::decode::<Refusal>(&reply.refused)?.to_string()))
    }
}

/// Dials a cluster port without any certificate.
pub(super) async fn come_empty_handed(address: &str) -> Result<(), Box<DialError>> {
    dial_unchecked(&parse(address), Alpn::Peer, None).await.map(drop).map_err(Box::new)
}

/// Dials a client port without any certificate.
pub(super) async fn call_empty_handed(address: &str) -> Result<(), String> {
    call_unchecked(address, None).await
}

/// In TLS 1.3, a client is told with the first answer that its certificate is refused.
async fn call_unchecked(address: &str, credential: Option<&Credential>) -> Result<(), String> {
    let address = parse(address);
    let told = |error: &dyn std::error::Error| {
        let causes = core::iter::successors(Some(error), |error| error.source());
        causes.last().unwrap_or(error).to_string()
    };
    let stream = dial_unchecked(&address, Alpn::Client, credential).await.map_err(|error| told(&error))?;
    let channel = channel_to(&address, stream).map_err(|error| told(&error))?;
    WhoamiClient::new(channel).whoami(WhoamiRequest {}).await.map(drop).map_err(|status| told(&status))
}

fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Channel {
    channel_over(&Endpoint::from_static("http://cluster"), stream)
}

fn parse(address: &str) -> Address {
    let nowhere = || Address { host: countersign_core::name::Host::Ip([127, 0, 0, 1].into()), port: 1 };
    Address::parse(address).unwrap_or_else(|_| nowhere())
}

/// An open connection that asks who it is.
pub(super) struct Whoami(WhoamiClient<Channel>);

impl Whoami {
    pub(super) async fn ask(&mut self) -> Result<String, tonic::Status> {
        Ok(self.0.whoami(WhoamiRequest {}).await?.into_inner().principal)
    }
}
