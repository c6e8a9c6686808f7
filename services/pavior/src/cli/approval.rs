//! Commands about approvals.

use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::policy::v1::approval::Choice;

use super::args::{ListArgs, VoteArgs};
use super::client::Client;
use super::output::{self, Printer};
use super::page::list_all;

/// Lists approvals.
pub(super) async fn list(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all =
        list_all!(list, parent, client.approvals(), list_approvals, policy::ListApprovalsRequest, approvals);
    printer.list(&all, &["approval", "state", "asked by", "expires", "for"], |a| {
        vec![
            output::id(&a.name),
            output::state(a.state().as_str_name(), "STATE_"),
            output::id(&a.requester),
            output::time(a.expire_time.as_ref()),
            a.summary.clone(),
        ]
    })
}

/// Votes on an approval.
pub(super) async fn vote(
    client: &Client,
    printer: Printer,
    args: VoteArgs,
    choice: Choice,
) -> anyhow::Result<()> {
    let name = client.full_name(&args.approval, &["approvals"])?;
    let mut service = client.approvals();
    // The digest of the plan as it is now is sent along: a plan that changes in between is not voted on.
    let seen = service.get_approval(policy::GetApprovalRequest { name: name.clone() }).await?.into_inner();
    let (reason, plan_digest, request_id) = (args.reason, seen.plan_digest, args.request.id());
    let answer = match choice {
        Choice::Deny => {
            let no = policy::DenyApprovalRequest { name, reason, plan_digest, request_id };
            service.deny_approval(no).await?
        }
        Choice::Approve | Choice::Unspecified => {
            let yes = policy::ApproveApprovalRequest { name, reason, plan_digest, request_id };
            service.approve_approval(yes).await?
        }
    };
    let approval = answer.into_inner();
    printer.one(
        &approval,
        &[
            ("approval", approval.name.clone()),
            ("state", output::state(approval.state().as_str_name(), "STATE_")),
            ("missing", missing(&approval)),
            ("operation", approval.operation.clone()),
        ],
    )
}

/// Whose agreement is still waited for.
fn missing(approval: &policy::Approval) -> String {
    if approval.state() != policy::approval::State::Pending {
        return String::new();
    }
    let given = approval.votes.iter().filter(|vote| vote.choice() == Choice::Approve).count();
    let given = i32::try_from(given).unwrap_or(i32::MAX);
    let of = |group: &str| output::within(group);
    match approval.requirements.as_slice() {
        [only] => {
            let more = only.quorum.saturating_sub(given).max(1);
            format!("{more} more of {} ({given} of {} given)", of(&only.group), only.quorum)
        }
        // Who counts for which of them, policy knows.
        all => {
            let all: Vec<_> = all.iter().map(|one| format!("{} of {}", one.quorum, of(&one.group))).collect();
            format!("{given} given; wanted are {}", all.join(", "))
        }
    }
}
