//! `countersign cluster`: the settings of the whole cluster.

use countersign_api::admin::{ClusterChange, ClusterSettings, LevelRaise};
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
        ClusterVerb::Level { raise: false, .. } => client()?.get("/v1/cluster").await?,
        ClusterVerb::Level { raise: true, without } => {
            client()?.post("/v1/cluster/level", &LevelRaise { without }).await?
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
            ("level", level(&settings)),
            ("level_auto", settings.level_auto.to_string()),
        ]);
    })
}

/// The level, and the members whose binaries know another.
fn level(settings: &ClusterSettings) -> String {
    let others = settings.levels.iter().filter(|member| member.level != settings.level);
    let others = others.map(|member| format!("{} knows {}", member.name, member.level));
    let guards = settings.guards.iter().filter(|guard| guard.level < settings.level);
    let stranded = guards.map(|guard| format!("the guard of {} knows {}", guard.name, guard.level));
    let unheard = settings.guards_unheard.iter();
    let unheard = unheard.map(|member| format!("{member} did not say which guards follow it"));
    let others: Vec<String> = others.chain(stranded).chain(unheard).collect();
    if others.is_empty() { settings.level.to_string() } else { format!("{} ({})", settings.level, others.join(", ")) }
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
            Ok(ClusterChange { client_names: Some(names), level_auto: None })
        }
        Some(("level_auto", auto)) => match auto.parse() {
            Ok(auto) => Ok(ClusterChange { client_names: None, level_auto: Some(auto) }),
            Err(_) => Err(Failure::usage(
                format!("`{auto}` is not true or false"),
                "countersign cluster set level_auto=false",
            )),
        },
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
