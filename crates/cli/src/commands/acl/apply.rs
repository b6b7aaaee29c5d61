//! `countersign acl apply`: a file in place of the policy, or what that would change.

use countersign_api::admin::{AclApply, AclChanged, AclPlan};
use countersign_core::authz::text::PolicyText;

use super::questions::{answered, rendered};
use super::{said, show};
use crate::admin_client::AdminClient;
use crate::args::AclApplyArgs;
use crate::commands::enforcement::{Change, waiting, working};
use crate::failure::Failure;
use crate::output::{Output, Text};

pub(super) async fn run(
    client: &AdminClient,
    policy: PolicyText,
    args: &AclApplyArgs,
    output: Output,
) -> Result<(), Failure> {
    let rules = policy.rule.len();
    let body = AclApply { policy, if_generation: args.if_generation, wait: args.wait };
    if args.plan {
        let asked = client.post_patiently("/v1/acl/plan", &body);
        let plan: AclPlan = working(&format!("comparing {rules} rules"), asked, output).await?;
        return output.show(&plan, |text| planned(text, &plan));
    }
    let asked = client.post_patiently("/v1/acl/apply", &body);
    let changed: AclChanged = if args.wait {
        waiting(client, asked, Change::Rule, output).await?
    } else {
        working(&format!("sending {rules} rules"), asked, output).await?
    };
    if !output.json {
        crate::output::print(&format!("rules put in: {}, taken out: {}\n", changed.put, changed.removed))?;
    }
    show(&changed, "", output)
}

fn planned(text: &mut Text, plan: &AclPlan) {
    plan.remove.iter().for_each(|rule| text.line(&format!("- {}", said(rule))));
    plan.add.iter().for_each(|rule| text.line(&format!("+ {}", said(rule))));
    if let Some(super_users) = &plan.super_users {
        text.line(&format!("super-users become: {}", super_users.join(", ")));
    }
    if let Some(required) = &plan.required_capabilities {
        for (task, any_of) in required {
            text.line(&format!("task {task} then requires {}", any_of.join(" or ")));
        }
        if required.is_empty() {
            text.line("no task requires anything then");
        }
    }
    for flip in &plan.flips {
        text.line(&format!(
            "flips: {}: {} becomes {}",
            rendered(&flip.request),
            answered(&flip.before),
            answered(&flip.after)
        ));
    }
    if !plan.unheard.is_empty() {
        text.line(&format!("not tried on requests of: {} (no answer, or too many)", plan.unheard.join(", ")));
    }
    plan.lint.iter().for_each(|found| text.line(&format!("lint: {}: {}", found.rule, found.finding)));
    let same = plan.add.is_empty() && plan.remove.is_empty();
    let changes = if same && plan.super_users.is_none() && plan.required_capabilities.is_none() {
        "nothing would change"
    } else {
        "nothing is changed yet"
    };
    text.line(&format!("{changes}; reckoned from generation {0}: apply with --if-generation {0}", plan.generation));
}
