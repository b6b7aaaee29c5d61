//! `countersign explain`: what a failure id stands for, as the asked member recorded it.

use countersign_api::admin::RefusalInfo;
use countersign_core::id::FailureId;

use crate::admin_client::AdminClient;
use crate::args::Explain;
use crate::failure::Failure;
use crate::output::{Output, at_secs, now_secs, or_dash};

pub(super) async fn run(args: &Explain, output: Output) -> Result<(), Failure> {
    let Some(id) = FailureId::parse(&args.failure_id) else {
        return Err(Failure::usage(
            format!("`{}` is not a failure id", args.failure_id),
            "give the 16 hexadecimal digits that the error or the log shows",
        ));
    };
    let info: RefusalInfo = AdminClient::to(&args.target)?.get(&format!("/v1/refusals/{id}")).await?;
    output.show(&info, |text| {
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
    })
}
