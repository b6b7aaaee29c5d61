//! A server in the middle: a certificate of its own, and the real CA certificate, which is public, appended to the
//! chain. It counts what a joiner tells it after the handshake; there must be nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use countersign_core::name::Host;
use countersign_core::principal::Principal;
use countersign_core::time::{UnixMillis, Validity};
use countersign_net::hostile::accept_unchecked;
use countersign_net::{Alpn, Clock, Credential, SystemClock};
use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::certificates_from_pem;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

pub(super) struct ManInTheMiddle {
    pub(super) address: String,
    told: Arc<AtomicUsize>,
}

impl ManInTheMiddle {
    /// Listens on loopback, showing its own leaf with `real_authority` appended.
    pub(super) async fn listen(real_authority: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate(KeyAlgorithm::default())?;
        let now: UnixMillis = SystemClock.now();
        let validity = Validity { not_before: now.minus_secs(60), not_after: now.plus_secs(3600) };
        let host = Host::Ip([127, 0, 0, 1].into());
        let node = Principal::parse("spiffe://middle.internal/node/1")?;
        let parts = AuthorityParts {
            common_name: "middle",
            trust_domain: &node.trust_domain,
            cluster: None,
            serial: [0x41; 16],
            validity,
        };
        let own = Authority::create(KeyPair::generate(KeyAlgorithm::default())?, &parts)?.issue(&LeafRequest {
            principal: &node,
            common_name: "n1",
            hosts: &[host],
            spki: &key.spki(),
            serial: [0x42; 16],
            validity,
            endorsement: None,
        })?;
        let authority = certificates_from_pem(real_authority)?.pop().context("no authority")?;
        let credential = Arc::new(Credential::new([own, authority.to_vec()], &key)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let told = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Ok(mut stream) = accept_unchecked(socket, Alpn::Enroll, &credential).await {
                    let mut bytes = Vec::new();
                    let _ = stream.read_to_end(&mut bytes).await;
                    counting.fetch_add(bytes.len(), Ordering::SeqCst);
                }
            }
        });
        Ok(Self { address, told })
    }

    /// Bytes that joiners sent after the handshake.
    pub(super) fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}
