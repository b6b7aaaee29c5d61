//! Which requests are for this member at all. A browser shows its client certificate whatever page makes it ask, so a
//! page of another site could ask here in the name of a principal.
//!
//! - A request for another host is answered 421 (RFC 9110 section 15.5.20). It comes by a name that an attacker points
//!   at this address, or by a connection that a browser uses again for another host (RFC 9113 section 9.1.1).
//! - A request that a page of another site makes is answered 403. A link that a person follows may come from anywhere:
//!   it is let through to pages, and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use countersign_core::name::{Address, Host, NameError};

/// The port of a URL that names none.
const HTTPS_PORT: u16 = 443;

/// Whether a host is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The certificate that is shown names it: it is asked for at the port that it is served on.
    Own,
    /// All members answer for it, such as a load balancer. It may also be asked for at port 443.
    Shared,
    /// It is, at the port that is asked for.
    Here,
    /// It is not.
    Not,
}

/// Says whose a host is, asked for at a port.
pub type Names = Arc<dyn Fn(&Host, u16) -> Named + Send + Sync>;

/// A host that a port answers for besides those of its certificate, as through a proxy: `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedName {
    /// The host.
    pub host: Host,
    /// The port that it is asked for at; the port that is served, or 443, if there is none.
    pub port: Option<u16>,
}

impl ServedName {
    /// Whether this answers for `host`, asked for at `port`.
    pub fn named(&self, host: &Host, port: u16) -> Named {
        match self.port {
            _ if self.host != *host => Named::Not,
            None => Named::Shared,
            Some(own) if own == port => Named::Here,
            Some(_) => Named::Not,
        }
    }
}

impl core::str::FromStr for ServedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(Address { host, port }) = Address::parse(text) {
            return Ok(Self { host, port: Some(port) });
        }
        Ok(Self { host: Host::parse(text)?, port: None })
    }
}

impl core::fmt::Display for ServedName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.port {
            Some(port) => Address { host: self.host.clone(), port }.fmt(f),
            None => self.host.fmt(f),
        }
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A page of the embedder, or what it loads.
    Page,
    /// A call that no link leads to.
    Call,
}

/// Why a request is not for this port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// It does not say which host it asks, or names several.
    #[error("the request must name one host, in `:authority` or in one `Host` header")]
    NoHost,
    /// It asks another host.
    #[error(
        "this member does not answer for `{0}`; to have all members answer for a name, an admin runs `countersign \
         cluster set client_names=NAME`"
    )]
    Host(String),
    /// A page of another site makes it.
    #[error("a page of another site makes this request")]
    Site,
}

impl Elsewhere {
    /// Of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Site => StatusCode::FORBIDDEN,
        }
    }

    /// A stable word.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoHost => "host-missing",
            Self::Host(_) => "misdirected",
            Self::Site => "cross-site",
        }
    }
}

/// Checks that a request on the connection to `local` is for this port, and not made by another site.
///
/// # Errors
/// [`Elsewhere`].
pub fn check<B>(request: &Request<B>, target: Target, (local, names): (SocketAddr, &Names)) -> Result<(), Elsewhere> {
    let authority = authority_of(request)?;
    let elsewhere = || Elsewhere::Host(authority.to_string());
    let bare = authority.host().to_ascii_lowercase();
    let host = Host::parse(bare.strip_suffix('.').unwrap_or(&bare)).map_err(|_| elsewhere())?;
    let port = authority.port_u16().unwrap_or(HTTPS_PORT);
    let dialed = host == Host::Ip(local.ip().to_canonical());
    let ours = match names(&host, port) {
        Named::Here => true,
        Named::Own => port == local.port(),
        Named::Shared => port == local.port() || port == HTTPS_PORT,
        Named::Not => dialed && port == local.port(),
    };
    if !ours {
        return Err(elsewhere());
    }
    let follows_link = target == Target::Page && is_navigation(request);
    if crosses_sites(request.headers(), Some(authority.as_str())) && !follows_link {
        return Err(Elsewhere::Site);
    }
    Ok(())
}

/// The host and port that a request asks. HTTP/1.1 has a `Host` header, HTTP/2 the pseudo-header, some clients both.
fn authority_of<B>(request: &Request<B>) -> Result<Authority, Elsewhere> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(Authority::try_from(host.as_bytes()).map_err(|_| Elsewhere::NoHost)?),
        (Some(_), Some(_)) => return Err(Elsewhere::NoHost),
    };
    let named = match (request.uri().authority().cloned(), host) {
        (Some(named), Some(host)) if named != host => return Err(Elsewhere::NoHost),
        (named, host) => named.or(host).ok_or(Elsewhere::NoHost)?,
    };
    if named.as_str().contains('@') { Err(Elsewhere::NoHost) } else { Ok(named) }
}

/// A person follows a link, or opens a page: the browser shows the answer in the address bar's name, and no script of
/// another site reads it.
fn is_navigation<B>(request: &Request<B>) -> bool {
    let says = |name: &str, value: &str| {
        let mut all = request.headers().get_all(name).iter();
        all.next().is_some_and(|found| found == value) && all.next().is_none()
    };
    *request.method() == Method::GET
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
        && !request.headers().contains_key(header::ORIGIN)
}

/// Whether a browser says that the request was made by a page that did not come from `authority`: by Fetch Metadata,
/// or, where it is too old for that, by an origin (RFC 6454 section 7) other than the host that was asked. Tools send
/// neither.
pub fn crosses_sites(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let elsewhere = |site: &HeaderValue| site != "same-origin" && site != "none";
    let own = authority.map(|authority| format!("https://{authority}"));
    let foreign = |origin: &HeaderValue| origin.to_str().ok() != own.as_deref();
    headers.get_all("sec-fetch-site").iter().any(elsewhere) || headers.get_all(header::ORIGIN).iter().any(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let forwarded: ServedName = "fw.example:8443".parse().unwrap();
        Arc::new(move |host: &Host, port| match host.to_string().as_str() {
            "fw.example" => forwarded.named(host, port),
            "n1.example" | "10.0.0.1" => Named::Own,
            "lb.example" => Named::Shared,
            _ => Named::Not,
        })
    }

    fn local() -> SocketAddr {
        "[::ffff:192.0.2.7]:7102".parse().unwrap()
    }

    fn verdict(uri: &str, headers: &[(&str, &str)], target: Target) -> Result<(), Elsewhere> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), target, (local(), &names()))
    }

    #[test]
    fn request_is_taken_for_the_hosts_of_the_certificate_shared_names_and_the_own_address() {
        let taken = [
            "n1.example:7102",
            "N1.Example:7102",
            "n1.example.:7102",
            "10.0.0.1:7102",
            "192.0.2.7:7102",
            "lb.example:7102",
            "lb.example:443",
            "lb.example",
            "fw.example:8443",
        ];
        for host in taken {
            assert_eq!(verdict("/", &[("host", host)], Target::Page), Ok(()), "{host}");
            assert_eq!(verdict(&format!("https://{host}/"), &[], Target::Call), Ok(()), "{host}");
            assert_eq!(verdict(&format!("https://{host}/"), &[("host", host)], Target::Call), Ok(()), "{host}");
        }
        let refused = [
            "evil.example:7102",
            "n1.example",
            "n1.example:443",
            "n1.example:7100",
            "lb.example:80",
            "fw.example",
            "fw.example:7102",
            "192.0.2.7",
            "192.0.2.8:7102",
            "[2001:db8::1]:7102",
            "localhost:7102",
            "n1_example:7102",
        ];
        for host in refused {
            assert_eq!(verdict("/", &[("host", host)], Target::Page), Err(Elsewhere::Host(host.to_owned())), "{host}");
            assert!(verdict(&format!("https://{host}/"), &[], Target::Call).is_err(), "{host}");
        }
    }

    #[test]
    fn request_names_exactly_one_host() {
        let n1 = "n1.example:7102";
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("/", &[]),
            ("/", &[("host", "")]),
            ("/", &[("host", n1), ("host", n1)]),
            ("/", &[("host", "u@n1.example:7102")]),
            ("https://n1.example:7102/", &[("host", "lb.example:7102")]),
            ("https://u:p@n1.example:7102/", &[]),
        ];
        for (uri, headers) in cases {
            assert_eq!(verdict(uri, headers, Target::Page), Err(Elsewhere::NoHost), "{uri} {headers:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_links_lead_to_pages_alone() {
        let host = ("host", "n1.example:7102");
        let navigate =
            [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")];
        let of = |more: &[(&'static str, &'static str)], target| {
            let headers: Vec<(&str, &str)> = [host].iter().chain(more).copied().collect();
            verdict("/", &headers, target)
        };
        for same in [&[][..], &[("sec-fetch-site", "none")], &[("origin", "https://n1.example:7102")]] {
            assert_eq!(of(same, Target::Call), Ok(()), "{same:?}");
        }
        for cross in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://n1.example")],
            &[("origin", "http://n1.example:7102")],
            &[("origin", "null")],
        ] {
            for target in [Target::Page, Target::Call] {
                assert_eq!(of(cross, target), Err(Elsewhere::Site), "{cross:?}");
            }
        }
        assert_eq!(of(&navigate, Target::Page), Ok(()));
        assert_eq!(of(&navigate, Target::Call), Err(Elsewhere::Site));
        let with_origin: Vec<_> = navigate.into_iter().chain([("origin", "null")]).collect();
        assert_eq!(of(&with_origin, Target::Page), Err(Elsewhere::Site));
        let post = Request::post("/").header("host", "n1.example:7102");
        let post = navigate.iter().fold(post, |post, (name, value)| post.header(*name, *value)).body(()).unwrap();
        assert_eq!(check(&post, Target::Page, (local(), &names())), Err(Elsewhere::Site));
    }
}
