//! `countersign cluster`: what is set for the whole cluster.

use countersign_api::admin::{ClusterChange, ClusterSettings};
use countersign_core::name::Host;

use crate::admin_client::AdminClient;
use crate::args::{Cluster, ClusterVerb};
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn run(args: Cluster, output: Output) -> Result<(), Failure> {
    let client = || AdminClient::to(&args.target);
    let settings: ClusterSettings = match args.verb {
        ClusterVerb::Show => client()?.get("/v1/cluster").await?,
        ClusterVerb::Set { setting } => {
            let change = change(&setting)?;
            client()?.post("/v1/cluster", &change).await?
        }
    };
    output.show(&settings, |text| {
        let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(",") };
        text.fields(&[
            ("cluster", format!("{} ({})", settings.cluster, settings.cluster_id)),
            ("trust domain", settings.trust_domain.clone()),
            ("generation", settings.generation.to_string()),
            ("client_names", list(&settings.client_names)),
            ("still renewing", list(&settings.renewing)),
        ]);
    })
}

/// Reads `KEY=VALUE`.
fn change(setting: &str) -> Result<ClusterChange, Failure> {
    let example = "countersign cluster set client_names=lb.example,other.example";
    match setting.split_once('=') {
        Some(("client_names", names)) => {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            let parse = |name: &str| {
                let host = Host::parse(name).map_err(|reason| (name.to_owned(), reason));
                host.map(|host| host.to_string())
            };
            let names = names.map(parse).collect::<Result<_, _>>();
            let names = names.map_err(|(name, reason)| Failure::usage(format!("`{name}`: {reason}"), example))?;
            Ok(ClusterChange { client_names: Some(names) })
        }
        Some((key, _)) => Err(Failure::usage(format!("`{key}` is no setting of a cluster"), example)),
        None => Err(Failure::usage(format!("`{setting}` has no `=`"), example)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_with_commas_and_none_empties_the_list() {
        let read = |text: &str| change(text).unwrap().client_names.unwrap();
        assert_eq!(read("client_names=lb.example, 10.0.0.9,"), ["lb.example", "10.0.0.9"]);
        assert_eq!(read("client_names="), [""; 0]);
    }

    #[test]
    fn setting_without_key_or_with_bad_name_is_refused() {
        for text in
            ["", "client_names", "names=a", "=a", "client_names=A.example", "client_names=a b", "client_names=a:1"]
        {
            assert!(change(text).is_err(), "{text}");
        }
    }
}
