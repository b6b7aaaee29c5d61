//! `countersign explain`: why connections were refused, as the asked member recorded it.

use countersign_api::admin::RefusalInfo;
use countersign_core::id::FailureId;

use crate::admin_client::AdminClient;
use crate::args::Explain;
use crate::failure::Failure;
use crate::output::{Output, Text, at_secs, now_secs, or_dash};

pub(super) async fn run(args: &Explain, output: Output) -> Result<(), Failure> {
    let client = AdminClient::to(&args.target)?;
    match (&args.failure_id, &args.source) {
        (Some(id), _) => one(&client, id, output).await,
        (None, Some(source)) => of_source(&client, source, args.since, output).await,
        (None, None) => Err(Failure::usage("nothing to explain", "give a failure id, or --source ADDRESS")),
    }
}

async fn one(client: &AdminClient, id: &str, output: Output) -> Result<(), Failure> {
    let Some(id) = FailureId::parse(id) else {
        return Err(Failure::usage(
            format!("`{id}` is not a failure id"),
            "give the 16 hexadecimal digits that the error or the log shows, or `--source ADDRESS` for what an address \
             was refused for",
        ));
    };
    let info: RefusalInfo = client.get(&format!("/v1/refusals/{id}")).await?;
    output.show(&info, |text| show(&info, text))
}

async fn of_source(client: &AdminClient, source: &str, since: u64, output: Output) -> Result<(), Failure> {
    let refusals: Vec<RefusalInfo> = client.get(&format!("/v1/refusals?source={source}&since={since}")).await?;
    output.show(&refusals, |text| {
        if refusals.is_empty() {
            text.line(&format!("this member refused nothing that came from {source} lately"));
        }
        for info in &refusals {
            show(info, text);
        }
    })
}

fn show(info: &RefusalInfo, text: &mut Text) {
    text.line(&info.message);
    text.fields(&[
        ("failure id", info.failure_id.clone()),
        ("reason", info.reason.clone()),
        ("detail", or_dash(info.detail.as_ref())),
        ("when", at_secs(info.at_millis / 1000, now_secs())),
        ("from", info.source.clone()),
        ("protocol", or_dash(info.protocol.as_ref())),
        ("principal", or_dash(info.principal.as_ref())),
        ("try", info.next.clone()),
    ]);
}
