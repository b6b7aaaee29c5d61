//! Dialing: members to members, and whatever a thief of the CA key, of old machines and of clients' keys can present.

use countersign_core::id::{AuthorityId, ClusterId, KeyId, NodeId};
use countersign_core::key::Endorsement;
use countersign_core::name::Name;
use countersign_core::peer::{CertificateClaims, Wanted};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::Validity;

use crate::actors::{Keys, domain};
use crate::violation::Broken;
use crate::world::World;

/// What the adversary has to make a certificate from. The CA key is stolen, so any name and any validity can be had; a
/// key is only proven by who holds it, and only its identity key endorses for a member.
struct Loot {
    /// The credential of a member in good standing: seen, not held.
    victim: CertificateClaims,
    /// A machine of the adversary's: held, keys and all.
    machine: Option<(Keys, CertificateClaims)>,
    /// Keys made up on the spot.
    fresh: Keys,
}

impl World {
    pub(crate) fn dial(&mut self) -> Result<(), Broken> {
        let (Some(judge), Some(peer)) = (self.any_host(), self.any_host()) else { return Ok(()) };
        let Some(honest) = self.hosts.get(&peer).map(|host| host.credential.clone()) else { return Ok(()) };
        self.judge(judge, &honest, Wanted::AnyNode)?;
        self.judge(judge, &honest, Wanted::Node(peer))?;
        let forged = self.forge(honest)?;
        let wanted = match self.rng.below(4) {
            0 => Wanted::AnyNode,
            1 => Wanted::Node(peer),
            _ => Wanted::AnyPrincipal,
        };
        self.judge(judge, &forged, wanted)?;
        if self.rng.one_in(2) {
            self.keep_evidence(forged);
        }
        let known = self.rng.pick(&self.wallet).cloned();
        known.map_or(Ok(()), |parts| self.judge(judge, &parts, wanted).map(|_| ()))
    }

    fn forge(&mut self, victim: CertificateClaims) -> Result<CertificateClaims, Broken> {
        let machine = self.rng.pick(&self.adversary.machines).map(|host| (host.keys, host.credential.clone()));
        let loot = Loot { victim, machine, fresh: Keys::draw(&mut self.rng) };
        match self.rng.below(3) {
            0 => self.forge_member(loot),
            1 => self.forge_with_a_machine(loot),
            _ => self.forge_around(loot),
        }
    }

    /// With the CA key and keys made up on the spot.
    fn forge_member(&mut self, loot: Loot) -> Result<CertificateClaims, Broken> {
        let Loot { victim, fresh, .. } = loot;
        let renewal = self.rng.below(9);
        let of = |endorsement| CertificateClaims { key: fresh.leaf, endorsement, ..victim.clone() };
        Ok(match self.rng.below(5) {
            0 => of(None),
            1 => of(Some(fresh.endorse(self.home.cluster, fresh.leaf, renewal))),
            // The victim's word for another key, or for another renewal.
            2 => of(victim.endorsement.clone().map(|e| Endorsement { renewal: e.renewal + renewal, ..e })),
            3 => CertificateClaims {
                endorsement: victim.endorsement.clone().map(|e| Endorsement { identity: fresh.public.identity, ..e }),
                ..of(None)
            },
            _ => {
                let absent = Role::Node(NodeId(1000 + self.rng.below(9)));
                let endorsement = Some(fresh.endorse(self.home.cluster, fresh.leaf, renewal));
                let principal = Principal { role: absent, ..victim.principal.clone() };
                CertificateClaims { principal, ..of(endorsement) }
            }
        })
    }

    /// With the CA key and the identity key of a machine that is, or was, a member.
    fn forge_with_a_machine(&mut self, loot: Loot) -> Result<CertificateClaims, Broken> {
        let Loot { victim, machine, fresh } = loot;
        let Some((keys, own)) = machine else { return Ok(victim) };
        let (cluster, renewal) = (self.home.cluster, self.rng.below(9));
        let validity = victim.validity;
        Ok(match self.rng.below(5) {
            0 => CertificateClaims { validity, ..own },
            1 => {
                // Its own name and a new leaf: good until its eviction is applied, and never after.
                self.ledger.history.endorse(keys.public.identity, fresh.leaf, renewal);
                let endorsement = Some(keys.endorse(cluster, fresh.leaf, renewal));
                CertificateClaims { key: fresh.leaf, endorsement, validity, ..own }
            }
            2 => {
                self.ledger.history.endorse(keys.public.identity, fresh.leaf, renewal);
                let endorsement = Some(keys.endorse(cluster, fresh.leaf, renewal));
                CertificateClaims { key: fresh.leaf, endorsement, ..victim }
            }
            3 => CertificateClaims { key: own.key, endorsement: own.endorsement, ..victim },
            _ => {
                let elsewhere = ClusterId(self.rng.bytes());
                let endorsement = Some(keys.endorse(elsewhere, fresh.leaf, renewal + 1));
                CertificateClaims { key: fresh.leaf, endorsement, validity, ..own }
            }
        })
    }

    /// Around the member: other clusters, other times, other kinds of principal, a member's own earlier renewal.
    fn forge_around(&mut self, loot: Loot) -> Result<CertificateClaims, Broken> {
        let Loot { victim, fresh, .. } = loot;
        let known = self.rng.pick(&self.wallet).cloned().unwrap_or_else(|| victim.clone());
        let named = |role| Principal { role, ..victim.principal.clone() };
        let name = Name::parse("root0").map_err(|_| Broken::World)?;
        let hour = 3600;
        Ok(match self.rng.below(9) {
            0 => CertificateClaims {
                principal: Principal { trust_domain: domain("west.internal")?, ..victim.principal.clone() },
                ..victim
            },
            1 => CertificateClaims { cluster: Some(ClusterId(self.rng.bytes())), ..victim },
            2 => CertificateClaims { authority: AuthorityId(self.rng.bytes()), ..victim },
            3 => {
                let not_after = self.now.minus_secs(hour);
                CertificateClaims { validity: Validity { not_before: not_after.minus_secs(hour), not_after }, ..victim }
            }
            4 => {
                let not_before = self.now.plus_secs(hour);
                CertificateClaims { validity: Validity { not_before, not_after: not_before.plus_secs(hour) }, ..victim }
            }
            5 => CertificateClaims { principal: named(Role::Admin(name)), key: known.key, endorsement: None, ..victim },
            6 => CertificateClaims { principal: named(Role::Client(name)), key: KeyId(self.rng.bytes()), ..victim },
            7 => CertificateClaims { principal: victim.principal.clone(), ..known },
            _ => match self.hosts.values().find(|host| host.credential == victim) {
                // A second leaf under the number of the first: its member signed it, and it is not on record.
                Some(host) => {
                    let endorsement = Some(host.keys.endorse(self.home.cluster, fresh.leaf, 0));
                    CertificateClaims { key: fresh.leaf, endorsement, ..victim }
                }
                None => victim,
            },
        })
    }
}
