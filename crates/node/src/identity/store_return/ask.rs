//! How a member that lost something asks the others, over connections on which it has only its identity key.

use std::sync::Arc;
use std::time::Duration;

use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ReturnReply, ReturnRequest};
use countersign_api::convert::{MessageError, refusal};
use countersign_core::codec::{self, CodecError};
use countersign_core::enroll::returning::{ReturnChannel, StoreReturn};
use countersign_core::key::SecretKey;
use countersign_core::member::recognition::History;
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_net::{
    Clock, Credential, DialError, RecognizedServer, SystemClock, Unrecognized, dial_enroll_mapped, dial_return,
};
use countersign_pki::key::KeyPair;
use countersign_raft::Binding;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use super::{StoreReturnError, Stores};
use crate::channel::channel_over;
use crate::identity::datadir::DataDir;
use crate::identity::keys::{self, Keys};
use crate::tasks::returning::{ReturnFailure, follow_all, next_chain};

/// How long a member looks for another that takes it back.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long one member may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(500);

/// Why one member did not take this node back.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It could not carry it out.
    #[error("the answer was: {}", .0.message())]
    Server(#[source] Box<Status>),
    /// Its answer cannot be read.
    #[error("the answer is malformed")]
    Message(#[from] MessageError),
    /// What it shows of the cluster is not believed.
    #[error("what it shows of the cluster is not believed")]
    Attestations(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is under no authority of the cluster.
    #[error("the server is not recognized")]
    Unrecognized(#[from] Unrecognized),
    /// The request cannot be encoded.
    #[error("request cannot be encoded")]
    Codec(#[from] CodecError),
    /// The cluster refused.
    #[error("refused: {0}")]
    Refused(#[source] Refused),
    /// It issued no certificate.
    #[error("no certificate was issued")]
    Certificate(#[source] Box<ReturnFailure>),
    /// The voters attest that this member was evicted.
    #[error("this node was evicted from its cluster")]
    Evicted,
    /// It did not answer in time.
    #[error("no answer within {} seconds", ANSWER_DEADLINE.as_secs())]
    Slow,
}

impl From<Status> for NotTaken {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

impl From<ReturnFailure> for NotTaken {
    fn from(failure: ReturnFailure) -> Self {
        match failure {
            ReturnFailure::Refused(why) => Self::Refused(why),
            other @ (ReturnFailure::Dial(_)
            | ReturnFailure::Server(_)
            | ReturnFailure::Message(_)
            | ReturnFailure::Follow(_)
            | ReturnFailure::Unrecognized(_)
            | ReturnFailure::Keys(_)
            | ReturnFailure::Csr(_)
            | ReturnFailure::Codec(_)
            | ReturnFailure::Credential(_)) => Self::Certificate(Box::new(other)),
        }
    }
}

impl NotTaken {
    /// The end of the attempt, if asking again or elsewhere would not change it.
    fn or_final(self) -> Result<Self, StoreReturnError> {
        match self {
            Self::Evicted => Err(StoreReturnError::Evicted),
            // Its last lease has to run out first; without a cluster the sponsor is only starting, and one that is
            // behind names another number than the leader does.
            Self::Refused(
                why @ (Refused::Alive { .. }
                | Refused::NoCluster
                | Refused::NoSuchNode(_)
                | Refused::RenewalOutOfOrder { .. }),
            ) => Ok(Self::Refused(why)),
            Self::Refused(why) => Err(StoreReturnError::Refused(why)),
            other @ (Self::Dial(_)
            | Self::Server(_)
            | Self::Message(_)
            | Self::Attestations(_)
            | Self::Unrecognized(_)
            | Self::Codec(_)
            | Self::Certificate(_)
            | Self::Slow) => Ok(other),
        }
    }
}

/// What a member that lost something asks for.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A place as a learner, with another store.
    Place(&'a Keys, Stores),
    /// Another certificate.
    Certificate { data: &'a DataDir, identity: &'a SecretKey, key: &'a KeyPair },
}

/// Asks one member after the other until one grants what is wanted.
pub(super) async fn ask_all(
    view: &View,
    before: Binding,
    wanted: Wanted<'_>,
    hints: &[Address],
) -> Result<(), StoreReturnError> {
    let deadline = Instant::now() + DEADLINE;
    let mut others: Vec<_> = view.members.scan().values().filter(|member| member.id != before.node).collect();
    others.sort_by_key(|member| member.suffrage != Suffrage::Voter);
    let known = others.into_iter().flat_map(|member| member.addresses.first().cloned());
    let addresses: Vec<Address> = hints.iter().cloned().chain(known).collect();
    let mut last = None;
    loop {
        for address in &addresses {
            let asking = async {
                match wanted {
                    Wanted::Place(keys, stores) => ask_for_place(keys, view, before, stores, address).await,
                    Wanted::Certificate { data, identity, key } => {
                        ask_for_certificate(data, identity, key, (view, before), address).await
                    }
                }
            };
            let asked = tokio::time::timeout(ANSWER_DEADLINE, asking).await.unwrap_or(Err(NotTaken::Slow));
            match asked.map_err(NotTaken::or_final) {
                Ok(()) => return Ok(()),
                Err(ended) => {
                    let passing = ended?;
                    tracing::info!(%address, reason = %crate::chain(&passing), "not taken back yet");
                    // A refusal tells more than that another member was not reached.
                    let telling =
                        matches!(passing, NotTaken::Refused(_)) || !matches!(last, Some(NotTaken::Refused(_)));
                    last = if telling { Some(passing) } else { last };
                }
            }
        }
        if Instant::now() + RETRY >= deadline {
            return Err(match last {
                None => StoreReturnError::Alone,
                Some(NotTaken::Refused(why)) => StoreReturnError::Refused(why),
                Some(other) => StoreReturnError::NotTaken(Box::new(other)),
            });
        }
        // why: nothing on this host tells when a lease of the cluster has run out, or when another member is up
        tokio::time::sleep(RETRY).await;
    }
}

/// Recognizes the member at `address` and asks it for another certificate, which is stored.
async fn ask_for_certificate(
    data: &DataDir,
    identity: &SecretKey,
    key: &KeyPair,
    (view, before): (&View, Binding),
    address: &Address,
) -> Result<(), NotTaken> {
    let (mut client, server) = recognized(view, before, address).await?;
    let (chain, number) = next_chain(&mut client, identity, (view, before.node), key, &server).await?;
    let credential = Credential::new(chain.iter().cloned(), key).map_err(ReturnFailure::from)?;
    server.check(&credential, before.node, SystemClock.now()).map_err(ReturnFailure::from)?;
    keys::store_leaf(data, key, &chain).map_err(ReturnFailure::from)?;
    tracing::info!(renewal = number, key = %key.id(), "another certificate, by the identity key");
    Ok(())
}

/// Recognizes the member at `address` by what the voters have signed since `view`, and asks it for a place.
async fn ask_for_place(
    keys: &Keys,
    view: &View,
    before: Binding,
    stores: Stores,
    address: &Address,
) -> Result<(), NotTaken> {
    let (mut client, channel) = match keys.leaf.foreign() {
        None => {
            let (client, server) = recognized(view, before, address).await?;
            (client, server.channel())
        }
        Some(foreign) => {
            let pin = view.active_authority().map(|(pin, _)| pin).ok_or(NotTaken::Refused(Refused::NoCluster))?;
            let stream = dial_enroll_mapped(address, pin, foreign.rules()).await?;
            let sponsor = stream.channel();
            let channel = ReturnChannel { leaf: sponsor.leaf, exporter: sponsor.exporter };
            (EnrollmentClient::new(channel_over(&endpoint(), stream)), channel)
        }
    };
    let ids = (stores.replaces, stores.store);
    let request = StoreReturn::sign(&keys.identity, (before.cluster, before.node), ids, channel);
    let asked = ReturnRequest { store: codec::encode(&request)?.into(), ..ReturnRequest::default() };
    let ReturnReply { refused, reason, .. } = client.r#return(asked).await?.into_inner();
    if refused.is_empty() { Ok(()) } else { Err(NotTaken::Refused(refusal(&refused, &reason)?)) }
}

async fn recognized(
    view: &View,
    before: Binding,
    address: &Address,
) -> Result<(EnrollmentClient<Channel>, RecognizedServer), NotTaken> {
    let mut history = History::from(Arc::clone(&view.attestation));
    let (client, unrecognized) = loop {
        let (stream, unrecognized) = dial_return(address).await?;
        let mut client = EnrollmentClient::new(channel_over(&endpoint(), stream));
        let all = follow_all(&mut client, &mut history).await;
        if all.map_err(|error| NotTaken::Attestations(Box::new(error)))? {
            break (client, unrecognized);
        }
    };
    let History { newest, evicted } = history;
    if evicted.contains(&before.node) {
        return Err(NotTaken::Evicted);
    }
    let server = unrecognized.recognize(before.cluster, &newest.authorities, &evicted)?;
    Ok((client, server))
}

fn endpoint() -> tonic::transport::Endpoint {
    tonic::transport::Endpoint::from_static("http://member").timeout(ANSWER_DEADLINE)
}
