//! `countersign node label`: the labels of a member, client, broker or admin.

use countersign_api::admin::{LabelChange, LabelEdit, Labelled};
use countersign_core::principal::Role;

use crate::admin_client::AdminClient;
use crate::args::Target;
use crate::commands::enforcement::{Change, complete, enforced, waiting};
use crate::commands::node::node_path;
use crate::failure::Failure;
use crate::output::{Output, labels, now_millis};

pub(super) async fn run(
    target: &Target,
    principal: &str,
    edits: &[String],
    wait: bool,
    output: Output,
) -> Result<(), Failure> {
    let path = format!("{}/label", path(principal)?);
    let edits = edits.iter().map(|text| edit(text)).collect::<Result<_, _>>()?;
    let client = AdminClient::to(target)?;
    let body = LabelChange { edits, wait };
    let asked = client.post_patiently(&path, &body);
    let done: Labelled = if wait { waiting(&client, asked, Change::Rule, output).await? } else { asked.await? };
    output.show(&done, |text| {
        let (principal, labels, generation) = (&done.principal, labels(&done.labels), done.generation);
        text.line(&format!("{principal}: labels {labels}, generation {generation}"));
        if let Some(enforcement) = &done.enforcement {
            enforced(text, enforcement, Change::Rule, now_millis());
        }
    })?;
    done.enforcement.map_or(Ok(()), |enforcement| complete(principal, &enforcement, Change::Rule))
}

/// A member by its name or number, another principal by kind and name.
fn path(principal: &str) -> Result<String, Failure> {
    if !principal.contains('/') {
        return node_path(principal);
    }
    match Role::parse(principal) {
        Ok(Role::Node(node)) => node_path(&node.to_string()),
        Ok(role) => Ok(format!("/v1/principals/{role}")),
        Err(reason) => Err(Failure::usage(
            format!("`{principal}`: {reason}"),
            "name a node by its name, or write client/NAME, broker/HOST or admin/NAME",
        )),
    }
}

fn edit(text: &str) -> Result<LabelEdit, Failure> {
    let (name, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((name, value)), _) => (name, Some(value.to_owned())),
        (None, Some(name)) => (name, None),
        (None, None) => ("", None),
    };
    if name.is_empty() || value.as_deref() == Some("") {
        let reason = format!("`{text}` changes no label");
        return Err(Failure::usage(reason, "write NAME=VALUE to give one, NAME- to take it away"));
    }
    Ok(LabelEdit { name: name.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_gives_or_takes_and_is_never_both() {
        let read = |text: &str| edit(text).map(|edit| (edit.name, edit.value)).ok();
        let given = |name: &str, value: &str| Some((name.to_owned(), Some(value.to_owned())));
        assert_eq!(read("role=Worker"), given("role", "Worker"));
        assert_eq!(read("zone=a-"), given("zone", "a-"));
        assert_eq!(read("zone-"), Some(("zone".to_owned(), None)));
        for text in ["", "-", "=", "zone", "zone=", "=a"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_labelled_is_a_node_or_a_principal() {
        for (principal, expected) in [
            ("n1", "/v1/nodes/n1"),
            ("3", "/v1/nodes/3"),
            ("node/3", "/v1/nodes/3"),
            ("client/pay", "/v1/principals/client/pay"),
            ("broker/b1.example", "/v1/principals/broker/b1.example"),
        ] {
            assert_eq!(path(principal).unwrap(), expected);
        }
        for principal in ["", "../x", "client/", "client/A", "x/y", "client/a/b", "a b"] {
            assert!(path(principal).is_err(), "{principal}");
        }
    }
}
