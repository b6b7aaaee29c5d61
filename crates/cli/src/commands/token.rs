//! `countersign token`: join tokens. A secret is shown by the command that makes it, once.

use countersign_api::admin::{TokenCreate, TokenCreated, TokenInfo};
use countersign_core::id::TokenId;

use crate::admin_client::AdminClient;
use crate::args::{Token, TokenCreateArgs, TokenVerb};
use crate::failure::Failure;
use crate::output::{Output, Text, at_secs, by, labels, now_secs, or_dash};

pub(super) async fn run(args: Token, output: Output) -> Result<(), Failure> {
    let client = || AdminClient::to(&args.target);
    match args.verb {
        TokenVerb::Create(create) => {
            let created: TokenCreated = client()?.post("/v1/tokens", &body(create)).await?;
            output.show(&created, |text| write_created(text, &created, output.terminal))
        }
        TokenVerb::Rotate => {
            let created: TokenCreated = client()?.post("/v1/tokens/rotate", &serde_json::json!({})).await?;
            output.show(&created, |text| write_created(text, &created, output.terminal))
        }
        TokenVerb::List => {
            let list: Vec<TokenInfo> = client()?.get("/v1/tokens").await?;
            output.show(&list, |text| write_list(text, &list, now_secs()))
        }
        TokenVerb::Revoke { id } => {
            let Some(token) = TokenId::parse(&id) else {
                return Err(Failure::usage(
                    "the text given is not a token id",
                    "give the 16 hexadecimal digits that `countersign token list` shows",
                ));
            };
            client()?.delete(&format!("/v1/tokens/{token}")).await?;
            output.show(&serde_json::json!({ "id": token.to_string(), "state": "revoked" }), |text| {
                text.line(&format!("token {token} is revoked"));
            })
        }
    }
}

fn body(args: TokenCreateArgs) -> TokenCreate {
    TokenCreate {
        role: args.role.into(),
        ttl_secs: args.ttl,
        uses: args.uses,
        name: args.name.map(|name| name.to_string()),
        hosts: args.hosts.iter().map(ToString::to_string).collect(),
        labels: args.labels.into_iter().collect(),
    }
}

/// On a terminal with what to do next; elsewhere the token alone, so that it can be piped into a file.
fn write_created(text: &mut Text, created: &TokenCreated, terminal: bool) {
    if !terminal {
        return text.line(&created.token);
    }
    text.line(&format!(
        "token {}: {} may join as {} until {}",
        created.id,
        created.uses,
        created.role,
        at_secs(created.not_after, now_secs())
    ));
    text.line("");
    text.line(&created.token);
    text.line("");
    text.line("Put it into a file on the new host and start there:");
    text.line(&format!("  countersign server --join-token @FILE --join-addr {}", created.join_addr));
}

fn write_list(text: &mut Text, list: &[TokenInfo], now: u64) {
    let header =
        ["ID", "STATE", "ROLE", "USES LEFT", "EXPIRES", "NAME", "HOSTS", "LABELS", "CLUSTER TOKEN", "MADE BY", "MADE"];
    text.table(
        &header,
        list.iter().map(|token| {
            vec![
                token.id.clone(),
                token.state.clone(),
                token.role.to_string(),
                format!("{}/{}", token.uses_left, token.uses),
                at_secs(token.not_after, now),
                or_dash(token.name.as_ref()),
                if token.hosts.is_empty() { "-".to_owned() } else { token.hosts.join(",") },
                labels(&token.labels),
                if token.cluster_token { "yes" } else { "no" }.to_owned(),
                by(&token.made),
                at_secs(token.made.at_millis / 1000, now),
            ]
        }),
    );
}
