//! A program with a client's certificate, calling the example's service on members.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use countersign_api::admin::{CertificateIssued, CertificateRequest, Status};
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_core::name::Address;
use countersign_core::principal::TrustDomain;
use countersign_net::{ClientDialer, Credential, DialError, ServerStream, SystemClock};
use countersign_pki::csr::{create_csr, csr_pem};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::admin::AdminClient;

/// Why a call or a connection failed, in words that are the same for the same reason.
pub(crate) struct Failed {
    pub(crate) kind: String,
}

/// A client's certificate, and what it trusts.
#[derive(Clone)]
pub(crate) struct Caller {
    client: ClientDialer,
}

/// One connection to one member.
pub(crate) struct Connection(WhoamiClient<Channel>);

impl Caller {
    /// With a certificate that the member behind this socket issues.
    pub(crate) async fn issue(socket: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate(KeyAlgorithm::default())?;
        let csr = csr_pem(&create_csr(&key)?);
        let wanted = CertificateRequest { role: format!("client/{name}"), ttl_secs: Some(3600), csr };
        let mut admin = AdminClient::connect(socket).await?;
        let issued: CertificateIssued = admin.post("/v1/certificates", &wanted).await?;
        let status: Status = admin.get("/v1/status").await?;
        Self::of(&issued.chain, &issued.authority, &key, TrustDomain::parse(&status.trust_domain)?)
    }

    /// With the files that `countersign cert issue` wrote.
    pub(crate) fn load(chain: &Path, key: &Path, authority: &Path) -> Result<Self> {
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()));
        let (chain, authority) = (read(chain)?, read(authority)?);
        let key = read(key)?;
        let id = countersign_pki::credential::Credential::from_pem(&chain, &key)?.spiffe_id()?;
        Self::of(&chain, &authority, &KeyPair::from_pem(&key)?, TrustDomain::parse(id.trust_domain())?)
    }

    fn of(chain: &str, authority: &str, key: &KeyPair, domain: TrustDomain) -> Result<Self> {
        let chain = certificates_from_pem(chain)?;
        let authority = certificates_from_pem(authority)?;
        let authority = authority.first().context("no authority")?;
        let credential = Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), key)?);
        let bundle = Arc::new(Bundle::new([authority.as_ref()]).map_err(|error| anyhow!("authority: {error}"))?);
        let client = ClientDialer::new(bundle, domain, credential, Arc::new(SystemClock));
        Ok(Self { client })
    }

    pub(crate) async fn dial(&self, address: &Address) -> Result<ServerStream, DialError> {
        self.client.dial(address).await
    }

    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, Failed> {
        let stream = self.dial(address).await;
        let stream = stream.map_err(|error| Failed { kind: format!("not connected: {}", error.cause) })?;
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| std::io::Error::other("the connection was closed")) }
        });
        let endpoint = Endpoint::try_from(format!("https://{address}"));
        let endpoint = endpoint.map_err(|error| Failed { kind: format!("no address: {error}") })?;
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Connection(WhoamiClient::new(channel)))
    }
}

impl Connection {
    pub(crate) async fn ask(&mut self) -> Result<(), Failed> {
        let answer = self.0.whoami(WhoamiRequest {}).await;
        answer.map(drop).map_err(|status| Failed { kind: format!("{:?}: {}", status.code(), status.message()) })
    }
}
