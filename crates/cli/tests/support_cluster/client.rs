//! A client with a certificate of the cluster, calling from this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::{ClientDialer, REFUSAL, chain, channel_to};
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_core::name::Address;
use countersign_core::principal::TrustDomain;
use countersign_net::{Credential, SystemClock};
use countersign_pki::key::KeyPair;
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::Node;

pub struct Client {
    pub runtime: Runtime,
    dialer: ClientDialer,
}

/// One connection, kept: it is never dialed again.
pub struct Open {
    whoami: WhoamiClient<Channel>,
}

impl Client {
    /// Has a certificate issued in `role` (`--client`, `--broker`, `--admin`).
    pub fn issue(node: &Node, out: &Path, name: &str) -> Self {
        node.ask(&["cert", "issue", "--client", name, "--out", out.to_str().unwrap()]).ok();
        let read = |file: String| std::fs::read_to_string(out.join(file)).unwrap();
        let domain = node.status()["trust_domain"].as_str().unwrap().to_owned();
        let pem = read(format!("{name}.pem"));
        Self::new(&pem, &read(format!("{name}.key")), &pem, &domain)
    }

    /// The holder of these files.
    pub fn new(chain: &str, key: &str, trusted: &str, domain: &str) -> Self {
        let chain = certificates_from_pem(chain).unwrap();
        let key = KeyPair::from_pem(key).unwrap();
        let credential = Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), &key).unwrap());
        let trusted = certificates_from_pem(trusted).unwrap();
        let bundle = Arc::new(Bundle::new(trusted.last().map(|der| der.as_ref())).unwrap());
        let domain = TrustDomain::parse(domain).unwrap();
        let dialer = ClientDialer::new(bundle, domain, credential, Arc::new(SystemClock));
        Self { runtime: Runtime::new().unwrap(), dialer }
    }

    /// Connects to a client port. An error if the member refuses this client.
    pub fn connect(&self, address: &str) -> Result<Open, tonic::Status> {
        let address = Address::parse(address).unwrap();
        let lost = |error: &dyn std::error::Error| tonic::Status::unavailable(chain(error).to_string());
        self.runtime.block_on(async {
            let stream = self.dialer.dial(&address).await.map_err(|error| lost(&error))?;
            let mut open = Open { whoami: WhoamiClient::new(channel_to(&address, stream).unwrap()) };
            // A refused caller is told so with its first answer.
            match open.ask().await {
                Err(status) if status.metadata().contains_key(REFUSAL) => Err(status),
                Ok(_) | Err(_) => Ok(open),
            }
        })
    }

    /// Calls on an open connection; an answer that does not come within a quarter of a minute is none.
    pub fn ask(&self, open: &mut Open) -> Result<String, tonic::Status> {
        self.runtime.block_on(open.ask())
    }
}

impl Open {
    pub async fn ask(&mut self) -> Result<String, tonic::Status> {
        let answer = tokio::time::timeout(Duration::from_secs(15), self.whoami.whoami(WhoamiRequest {})).await;
        let answer = answer.map_err(|_| tonic::Status::deadline_exceeded("no answer"))?;
        Ok(answer?.into_inner().principal)
    }
}
