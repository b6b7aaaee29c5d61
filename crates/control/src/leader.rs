//! Where the leader is administered.

use std::time::Duration;

use countersign_api::cluster::AdminAddressRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_core::name::Address;

use crate::Controls;

/// How long the leader may take to say where it is administered.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

impl Controls {
    /// What the leader says of itself; none if it is not known, not reached, or serves no HTTPS to other hosts.
    pub async fn leaders_address(&self) -> Option<Address> {
        let parts = &self.0;
        let leader = parts.group.leader().filter(|leader| *leader != parts.local.node)?;
        let channel = parts.peers.channel(leader)?;
        let mut request = tonic::Request::new(AdminAddressRequest {});
        request.set_timeout(ASK_DEADLINE);
        let reply = MembersClient::new(channel).admin_address(request).await.ok()?.into_inner();
        Address::parse(&reply.address).ok()
    }
}
