//! The search for a path from a leaf to a trusted authority (RFC 5280 §6, RFC 4158), within fixed budgets.
//!
//! Depth first, trusted authorities before intermediates. Every rule is applied while a path is extended or when it is
//! complete, so one bad candidate never hides a good one. Nothing that a peer presents is trusted for being presented.

use countersign_core::time::{UnixMillis, Validity};

use crate::certificate::Certificate;
use crate::constraint::{self, Budget};
use crate::profile::{self, ProfileError, Usage};
use crate::signature;

/// Signatures checked in one search: more than any honest set of certificates needs.
const SIGNATURES_MAX: u32 = 100;
/// Candidates looked at in one search.
const STEPS_MAX: u32 = 4096;

/// Why no path was found. Of several, the reason that came nearest to a trusted authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No trusted authority issued it, directly or through the certificates at hand.
    #[error("no trusted authority issued the certificate")]
    UnknownIssuer,
    /// A signature does not verify, or is of a kind that is not accepted.
    #[error("a signature in the chain does not verify")]
    Signature,
    /// A certificate breaks the profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A certificate of the path is not valid yet.
    #[error("a certificate in the chain is not valid yet")]
    NotYetValid,
    /// A certificate of the path has expired.
    #[error("a certificate in the chain has expired")]
    Expired,
    /// More authorities than one of them, or the caller, allows.
    #[error("the chain is longer than an authority in it allows")]
    PathLength,
    /// A name lies outside the names that an authority may certify.
    #[error("a name in the chain is outside the constraints of an authority")]
    NameConstraint,
    /// The search was given up: too many candidates, signatures or names.
    #[error("the certificates are too many or too entangled to search")]
    Budget,
}

impl PathError {
    /// How near to an accepted path this came: the most telling reason is reported.
    const fn rank(&self) -> u8 {
        match self {
            Self::UnknownIssuer => 0,
            Self::Signature => 1,
            Self::Profile(_) | Self::NotYetValid | Self::Expired | Self::PathLength | Self::NameConstraint => 2,
            Self::Budget => 3,
        }
    }
}

/// What a path is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathOptions {
    /// What the leaf is used for.
    pub(crate) usage: Usage,
    /// The moment of judgement; none does not judge validity.
    pub(crate) now: Option<UnixMillis>,
    /// Intermediates allowed, those that issued to their own name not counted.
    pub(crate) intermediates_max: usize,
}

/// A path that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    /// The trusted end.
    pub(crate) anchor: &'a Certificate,
    /// When every certificate on it is valid, the trusted one included.
    pub(crate) validity: Validity,
}

/// Certificates on a path, self-issued ones included. No search goes deeper, whatever the caller allows.
const DEPTH_MAX: usize = 12;

/// Finds a path from `leaf` over `intermediates` to one of `anchors`.
pub(crate) fn verify_path<'a>(
    anchors: &'a [Certificate],
    intermediates: &'a [Certificate],
    leaf: &'a Certificate,
    options: PathOptions,
) -> Result<Path<'a>, PathError> {
    profile::check_leaf(leaf, options.usage)?;
    check_time(leaf, options.now)?;
    let mut search = Search {
        anchors,
        intermediates,
        options,
        signatures: SIGNATURES_MAX,
        steps: STEPS_MAX,
        names: Budget::new(),
        reason: PathError::UnknownIssuer,
    };
    match search.extend(&mut vec![leaf], 0) {
        Ok(Some(path)) => Ok(path),
        Ok(None) => Err(search.reason),
        Err(error) => Err(error),
    }
}

fn check_time(certificate: &Certificate, now: Option<UnixMillis>) -> Result<(), PathError> {
    let Some(now) = now else { return Ok(()) };
    if certificate.validity.contains(now) {
        Ok(())
    } else if now.secs() < certificate.validity.not_before.secs() {
        Err(PathError::NotYetValid)
    } else {
        Err(PathError::Expired)
    }
}

struct Search<'a> {
    anchors: &'a [Certificate],
    intermediates: &'a [Certificate],
    options: PathOptions,
    signatures: u32,
    steps: u32,
    names: Budget,
    reason: PathError,
}

impl<'a> Search<'a> {
    /// Extends `path` (leaf first) by one issuer. `counted` is the number of intermediates on it that did not issue to
    /// their own name. An error ends the whole search.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>, counted: usize) -> Result<Option<Path<'a>>, PathError> {
        let Some(&last) = path.last() else { return Ok(None) };
        let (anchors, intermediates) = (self.anchors, self.intermediates);
        for anchor in anchors.iter().filter(|anchor| anchor.subject == last.issuer) {
            self.step()?;
            match self.try_anchor(path, anchor, counted) {
                Ok(path) => return Ok(Some(path)),
                Err(PathError::Budget) => return Err(PathError::Budget),
                Err(reason) => self.note(reason),
            }
        }
        if path.len() >= DEPTH_MAX {
            return Ok(None);
        }
        for candidate in intermediates.iter().filter(|candidate| candidate.subject == last.issuer) {
            self.step()?;
            // A self-signed certificate leads nowhere but to itself, and is not trusted for being presented. The same
            // name and key twice on a path is a loop (RFC 4158 §5.2).
            if candidate.self_signed()
                || path.iter().any(|on| on.subject == candidate.subject && on.spki == candidate.spki)
            {
                continue;
            }
            let counted = counted + usize::from(!candidate.self_issued());
            match self.try_intermediate(last, candidate, counted) {
                Ok(()) => {}
                Err(PathError::Budget) => return Err(PathError::Budget),
                Err(reason) => {
                    self.note(reason);
                    continue;
                }
            }
            path.push(candidate);
            if let Some(found) = self.extend(path, counted)? {
                return Ok(Some(found));
            }
            path.pop();
        }
        Ok(None)
    }

    fn try_intermediate(&mut self, last: &Certificate, issuer: &Certificate, counted: usize) -> Result<(), PathError> {
        profile::check_intermediate(issuer, self.options.usage)?;
        // The authorities below `issuer` are `counted` without itself.
        self.check_issuer(last, issuer, counted - usize::from(!issuer.self_issued()))?;
        if counted > self.options.intermediates_max { Err(PathError::PathLength) } else { Ok(()) }
    }

    fn try_anchor(
        &mut self,
        path: &[&'a Certificate],
        anchor: &'a Certificate,
        counted: usize,
    ) -> Result<Path<'a>, PathError> {
        let Some(&last) = path.last() else { return Err(PathError::UnknownIssuer) };
        profile::check_anchor(anchor, self.options.usage)?;
        self.check_issuer(last, anchor, counted)?;
        // After the signature that it made: only a certified sender can make this one be checked.
        profile::check_self_signed(anchor)?;
        let chain = || path.iter().copied().chain([anchor]);
        constraint::check(&chain().collect::<Vec<_>>(), &mut self.names)?;
        let validity = chain().fold(anchor.validity, |validity, on| validity.intersect(&on.validity));
        Ok(Path { anchor, validity })
    }

    fn check_issuer(&mut self, last: &Certificate, issuer: &Certificate, below: usize) -> Result<(), PathError> {
        profile::check_key_ids(last, issuer)?;
        check_time(issuer, self.options.now)?;
        let path_len = issuer.extensions.basic_constraints.as_ref().and_then(|basic| basic.value.path_len);
        if path_len.is_some_and(|allowed| below > allowed as usize) {
            return Err(PathError::PathLength);
        }
        self.signatures = self.signatures.checked_sub(1).ok_or(PathError::Budget)?;
        signature::verify(last, issuer).map_err(|_| PathError::Signature)
    }

    fn step(&mut self) -> Result<(), PathError> {
        self.steps = self.steps.checked_sub(1).ok_or(PathError::Budget)?;
        Ok(())
    }

    fn note(&mut self, reason: PathError) {
        if reason.rank() > self.reason.rank() {
            self.reason = reason;
        }
    }
}
