//! Copies of a member's data directory, and what their holder can do with them.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use countersign_api::cluster::enrollment_server::{Enrollment, EnrollmentServer};
use countersign_api::cluster::{EnrollReply, EnrollRequest, ReturnReply, ReturnRequest, ViewReply, ViewRequest};
use countersign_core::codec;
use countersign_core::id::{Generation, NodeId};
use countersign_core::key::SecretKey;
use countersign_core::secret::Secret;
use countersign_core::time::UnixMillis;
use countersign_core::trust::attestation::{Attestation, AttestedVoter, Signature, SignedAttestation};
use countersign_core::trust::member::Evicted;
use countersign_core::trust::view::View;
use countersign_net::{
    Acceptor, AcceptorLimits, Credential, Dialer, Endpoint, RefusalRecord, Refusals, SystemClock, Trust,
};
use countersign_pki::key::KeyPair;
use countersign_pki::pem::certificates_from_pem;
use tempfile::TempDir;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::support::{Node, Plain};

/// Everything in `from`, as it is now.
pub fn copy(from: &Path) -> TempDir {
    fn tree(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let (entry, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
            if entry.is_dir() {
                std::fs::DirBuilder::new().mode(0o700).create(&to).unwrap();
                tree(&entry, &to);
            } else if entry.is_file() {
                std::fs::copy(&entry, &to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    tree(from, to.path());
    to
}

/// The keys and the certificate in a data directory, in the hands of an attacker who runs no member.
pub struct Ghost {
    pub node: NodeId,
    pub identity: SecretKey,
    pub endpoint: Endpoint,
}

struct Unheard;

impl Refusals for Unheard {
    fn record(&self, _: RefusalRecord) {}
}

impl Ghost {
    /// From the keys in `data`, with the view of `living`.
    pub fn of(data: &Path, living: &Node) -> Self {
        let read = |name: &str| std::fs::read_to_string(data.join(name)).ok();
        let seed = data_encoding::HEXLOWER.decode(read("keys/identity.key").unwrap().as_bytes()).unwrap();
        let (key, chain) = match read("keys/renewed-leaf.pem") {
            Some(both) => (both.clone(), both),
            None => (read("keys/leaf.key").unwrap(), read("leaf.pem").unwrap()),
        };
        let chain = certificates_from_pem(&chain).unwrap();
        let key = KeyPair::from_pem(&key).unwrap();
        let credential = Credential::new(chain.iter().map(|der| der.to_vec()), &key).unwrap();
        let member: serde_json::Value = serde_json::from_str(&read("member.json").unwrap()).unwrap();
        let trust = Trust::of_view(living.member().view(), Some(Arc::new(credential)), UnixMillis(0)).unwrap();
        Self {
            node: NodeId(member["node"].as_u64().unwrap()),
            identity: SecretKey::from_seed(Secret::new(seed.try_into().unwrap())),
            endpoint: Endpoint::new(trust, SystemClock, Arc::new(Unheard)),
        }
    }

    /// What the member shows.
    pub fn credential(&self) -> Arc<Credential> {
        self.endpoint.trust().load().credential.clone().unwrap()
    }

    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.endpoint.clone())
    }
}

/// An attacker with a member's keys, who tells each caller that the caller was evicted, without proof.
pub struct Liar {
    /// How often it was asked for proof.
    pub asked: tokio::sync::watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    /// In the place of the member that `data` is of.
    pub async fn serve(data: &Path, living: &Node) -> Self {
        let ghost = Ghost::of(data, living);
        let mut view = View::clone(&living.member().view());
        let address = view.members[&ghost.node].addresses[0].to_string();
        let others: Vec<NodeId> = view.members.scan().keys().copied().filter(|id| *id != ghost.node).collect();
        for id in &others {
            let gone = view.members.remove(id).unwrap();
            let (identity, generation) = (gone.keys.identity, view.generation);
            let evicted = Evicted { name: gone.name, mapped: None, identity, at: UnixMillis(0), generation };
            view.evicted.insert(*id, evicted);
        }
        let before = Arc::clone(&view.attestation);
        let voter = AttestedVoter { identity: ghost.identity.public(), ..before.voters[&ghost.node] };
        let attestation = Arc::new(Attestation {
            number: before.number + 1,
            generation: Generation(before.generation.0 + 1_000_000),
            previous: before.digest(),
            voters: BTreeMap::from([(ghost.node, voter)]),
            evicted: others.into_iter().collect(),
            ..Attestation::clone(&before)
        });
        let signature = Signature(ghost.identity.sign(&attestation.transcript()));
        let signed = SignedAttestation { attestation, signatures: BTreeMap::from([(ghost.node, signature)]) };
        let credential = ghost.endpoint.trust().load().credential.clone();
        let trust = Trust::of_view(Arc::new(view), credential, UnixMillis(0)).unwrap();
        let endpoint = Endpoint::new(trust, SystemClock, Arc::new(Unheard));
        let bound = Acceptor::bind(address.parse().unwrap(), endpoint, AcceptorLimits::default()).await.unwrap();
        let enrollments = bound.routes().enrollments(16);
        let (count, asked) = tokio::sync::watch::channel(0);
        let shows = Shows { attestation: codec::encode(&signed).unwrap(), count };
        let task = tokio::spawn(async move {
            let incoming = ReceiverStream::new(enrollments).map(|stream| Ok::<_, std::io::Error>(Plain(stream)));
            let server = tonic::transport::Server::builder().add_service(EnrollmentServer::new(shows));
            let accepting = async { match bound.run().await {} };
            tokio::join!(async { server.serve_with_incoming(incoming).await.unwrap() }, accepting);
        });
        Self { asked, task }
    }
}

struct Shows {
    attestation: Vec<u8>,
    count: tokio::sync::watch::Sender<usize>,
}

#[tonic::async_trait]
impl Enrollment for Shows {
    async fn view(&self, _: Request<ViewRequest>) -> Result<Response<ViewReply>, Status> {
        self.count.send_modify(|count| *count += 1);
        Ok(Response::new(ViewReply { attestations: vec![self.attestation.clone().into()], ..ViewReply::default() }))
    }

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn r#return(&self, _: Request<ReturnRequest>) -> Result<Response<ReturnReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }
}
