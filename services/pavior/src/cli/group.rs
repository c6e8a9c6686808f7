//! Commands about groups and who belongs to them.

use pavior_proto::pavior::identity::v1 as identity;
use pavior_proto::pavior::identity::v1::Membership;

use super::args::{GroupCommand, ListArgs};
use super::client::{Client, request_id};
use super::output::{self, Printer};
use super::page::list_all;

/// `pavior group`.
pub(super) async fn group(client: &Client, printer: Printer, command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::List(list) => groups(client, printer, &list).await,
        GroupCommand::Members { group, list } => members(client, printer, &group, &list).await,
        GroupCommand::Add { group, user } => {
            let request = identity::CreateMembershipRequest {
                parent: client.full_name(&group, &["groups"])?,
                membership: Some(Membership {
                    member: client.full_name(&user, &["users"])?,
                    ..Default::default()
                }),
                request_id: request_id(),
                ..Default::default()
            };
            let made = client.identity().create_membership(request).await?.into_inner();
            confirm(printer, &made, "now belongs to")
        }
        GroupCommand::Remove { group, user } => {
            let member = client.full_name(&user, &["users"])?;
            let name =
                format!("{}/memberships/{}", client.full_name(&group, &["groups"])?, output::id(&member));
            let request =
                identity::DeleteMembershipRequest { name, request_id: request_id(), ..Default::default() };
            let ended = client.identity().delete_membership(request).await?.into_inner();
            confirm(printer, &ended, "no longer belongs to")
        }
    }
}

fn confirm(printer: Printer, membership: &Membership, verb: &str) -> anyhow::Result<()> {
    if printer.is_json() {
        return printer.one(membership, &[]);
    }
    output::say(&format!("{} {verb} {}", output::within(&membership.member), group_of(membership)))
}

/// The group of a membership, short.
fn group_of(membership: &Membership) -> String {
    let group = membership.name.split_once("/memberships/").map(|(group, _)| group);
    output::within(group.unwrap_or_default())
}

async fn groups(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all = list_all!(list, parent, client.identity(), list_groups, identity::ListGroupsRequest, groups);
    printer.list(&all, &["group", "name", "below", "description"], |g| {
        vec![output::id(&g.name), g.display_name.clone(), output::id(&g.parent_group), g.description.clone()]
    })
}

async fn members(client: &Client, printer: Printer, group: &str, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.full_name(group, &["groups"])?;
    let all = list_all!(
        list,
        parent,
        client.identity(),
        list_memberships,
        identity::ListMembershipsRequest,
        memberships
    );
    printer.list(&all, &["member", "group", "source", "since"], |m| {
        vec![
            output::within(&m.member),
            group_of(m),
            output::state(m.source().as_str_name(), "SOURCE_"),
            output::time(m.create_time.as_ref()),
        ]
    })
}
