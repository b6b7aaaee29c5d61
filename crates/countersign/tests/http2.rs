//! HTTP/2 as RFC 9113 has it, on the client port: frames and requests that are wrong, and floods. What the member
//! answers stands in `golden/http2.txt`, for a reviewer to read as a difference. `COUNTERSIGN_BLESS=1` writes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod http2_cases;
mod raw;
mod support;

use std::fmt::Write as _;

use http2_cases::{Case, Host, Wanted, floods, frames, requests};
use raw::app::Reached;
use raw::http2::{Sent, frame, named, preface};
use raw::{Identity, Said};
use support::rules::rule;
use support::{Node, agrees_with_golden};

/// The stream of the request that follows each case; floods use fewer streams.
const LAST: u32 = 1_000_001;

const ABOUT: &str = "\
What the client port answers to a caller that may do everything in the embedder's app: to what RFC 9113 or
another source forbids, or leaves to the server. In the columns: the source, what is sent, what the RFC
wants, what comes back. `then 200`: the next request on the connection is answered. `!`: not as the RFC has
it. No other request that is malformed by its head reached the app.

Why `!` is borne; the library (h2) has no option for any of it:
- PROTOCOL_ERROR in place of a code that says more: the caller's own connection ends all the same.
- White space around a value is not cut off: no reader behind the app is handed the request.
- Pseudo-headers in trailers: they are dropped, the app never sees them.
- Another scheme: neither the guard nor the app decides by it, and clients whose TLS is not that of their HTTP
  library say `http`.
";

/// A member with an app, and who calls it.
struct Served {
    node: Node,
    caller: Identity,
    reached: Reached,
}

impl Served {
    async fn new() -> Self {
        let reached = Reached::default();
        let node = Node::bootstrap_serving("n1", |_| reached.app()).await;
        let caller = Identity::issue(&node, "client/pay").await;
        node.add_rule(rule("everything", "client/pay", "all", "service")).await;
        Self { node, caller, reached }
    }

    fn host(&self) -> String {
        self.node.member().client_addr().unwrap().to_string()
    }

    async fn says(&self, bytes: &[u8], enough: impl Fn(&Sent) -> bool) -> Sent {
        let address = self.node.member().client_addr().unwrap();
        let config = self.caller.config(true, &[b"h2"]);
        let said = Said::in_tls((address, "127.0.0.1"), config, bytes, |said| enough(&Sent::read(said))).await;
        assert_eq!(said.alert, None, "HTTP/2 ends by its own means");
        let mut sent = Sent::read(&said.bytes);
        sent.ended = said.ended;
        sent
    }

    /// A line of the table.
    async fn tried(&self, case: &Case) -> String {
        let host = self.host();
        let mut bytes = [preface(), case.bytes.clone()].concat();
        if case.goes_on {
            bytes.extend(Host(&host).get(LAST, &[(":path", Some(b"/free/echo"))]));
        }
        let before = self.reached.count();
        let sent = self
            .says(&bytes, |sent| {
                let answered = case.stream.is_none_or(|stream| sent.is_done(stream));
                answered && (!case.goes_on || sent.is_done(LAST)) && (case.goes_on || case.stream.is_some())
            })
            .await;
        let reached = self.reached.count() - before;
        let by_app = if reached == 0 { "" } else { ", by the app" };
        let fine = is_as_wanted(case, &sent) && (case.reaches || reached == 0);
        let (mark, wanted) = (if fine { ' ' } else { '!' }, case.wanted.say());
        format!("{mark} {:15}{:50}{wanted:30}{}{by_app}", case.source, case.what, in_words(case, &sent))
    }
}

/// The code with which the connection was ended.
fn ended_with(sent: &Sent) -> Option<u32> {
    sent.goaway.filter(|code| *code != 0)
}

fn in_words(case: &Case, sent: &Sent) -> String {
    if let Some(code) = ended_with(sent) {
        assert!(sent.ended, "GOAWAY, and the connection goes on");
        return format!("GOAWAY {}", named(code));
    }
    if sent.ended {
        return "the end".to_owned();
    }
    let own = case.stream.map(|stream| sent.of(stream));
    let next = case.goes_on.then(|| match sent.of(LAST) {
        next if next == "200 with a body" => "then 200".to_owned(),
        next => format!("then {next}"),
    });
    own.into_iter().chain(next).collect::<Vec<_>>().join(", ")
}

fn is_as_wanted(case: &Case, sent: &Sent) -> bool {
    let connection = ended_with(sent);
    let of = case.stream.and_then(|stream| sent.streams.get(&stream));
    let (reset, status) = (of.and_then(|of| of.reset), of.and_then(|of| of.status));
    let refused = status.is_some_and(|status| (400..500).contains(&status));
    match case.wanted {
        Wanted::Connection(code) => connection == Some(code),
        Wanted::Stream(code) => connection == Some(code) || reset == Some(code),
        Wanted::Malformed | Wanted::Refused => connection == Some(1) || reset == Some(1) || refused,
        Wanted::Ignored => !sent.ended && status.is_none_or(|status| status == 200) && reset.is_none(),
        Wanted::Bounded => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http2_is_refused_as_the_rfc_has_it() {
    let served = Served::new().await;
    let host = served.host();
    let mut seen = ABOUT.to_owned();
    for (title, cases) in [("Frames", frames::cases(&Host(&host))), ("Requests", requests::cases(&Host(&host)))] {
        writeln!(seen, "\n# {title}\n").unwrap();
        for case in cases {
            writeln!(seen, "{}", served.tried(&case).await).unwrap();
        }
    }
    writeln!(seen, "\n# Floods, 20,000 times\n").unwrap();
    for case in floods::cases(&Host(&host)) {
        writeln!(seen, "{}", served.tried(&case).await).unwrap();
    }
    agrees_with_golden("http2.txt", &seen);
}

/// RFC 9113 section 3.4. A GOAWAY may be left out.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_the_preface_of_http2_end() {
    let served = Served::new().await;
    let host = served.host();
    let request = Host(&host).get(1, &[]);
    let wrong = b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n".to_vec();
    let settings = frame(raw::http2::SETTINGS, 0, 0, &[]);
    for begin in [wrong, vec![], b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n".to_vec()] {
        let sent = served.says(&[begin, settings.clone(), request.clone()].concat(), |_| false).await;
        assert!(sent.ended && sent.streams.is_empty(), "{sent:?}");
    }
    assert_eq!(served.reached.count(), 0);
}
