//! `pavior token --dev`.

use pavior_proto::pavior::identity::v1 as identity;
use tonic::Code;

use super::args::{ConnectionArgs, TokenArgs};
use super::client::{Client, Connection};
use super::failure::wrong_usage;
use super::{output, settings};
use crate::quickstart::mint;

/// Most users that the refusal of an unknown one names.
const MAX_NAMED: i32 = 20;

/// `pavior token --dev`.
pub(super) async fn token(args: &TokenArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    if !args.dev {
        return Err(wrong_usage(
            "this makes tokens of the development issuer, whose key lies on this machine: say --dev if that is what \
             you want; elsewhere tokens come from your identity provider",
        ));
    }
    // A key made here would be one that no server trusts.
    if !crate::serve::dev_issuer_directory(&args.data).is_dir() {
        return Err(wrong_usage(format!(
            "`{}` is not the data folder of a server with the development issuer",
            args.data.display()
        )));
    }
    let organization = args.organization.as_deref().or(connection.organization.as_deref());
    let organization = organization.unwrap_or(crate::starter::ORGANIZATION);
    // The operator is in no catalog, and whoever comes with groups of their own need not be.
    if args.subject != crate::serve::DEV_OPERATOR && args.group.is_empty() {
        let connection = settings::connection(connection)?;
        check_user(args, organization, &connection).await?;
    }
    let lifetime = time::Duration::minutes(i64::from(args.minutes));
    output::say(&mint(&args.data, &args.subject, organization, &args.group, lifetime)?)
}

/// Refuses a user whom the catalog does not know, and names those whom it does. A token may be made before the server
/// is started: then nobody can be asked, and that is said.
async fn check_user(args: &TokenArgs, organization: &str, connection: &Connection) -> anyhow::Result<()> {
    let lifetime = time::Duration::minutes(1);
    let operator = mint(&args.data, crate::serve::DEV_OPERATOR, organization, &[], lifetime)?;
    let client = Client::new(&Connection { token: Some(operator), ..connection.clone() })?;
    let parent = format!("organizations/{organization}");
    let request = identity::GetUserRequest { name: format!("{parent}/users/{}", args.subject) };
    let status = match client.identity().get_user(request).await {
        Ok(_) => return Ok(()),
        Err(status) => status,
    };
    if !matches!(status.code(), Code::NotFound | Code::InvalidArgument) {
        let why = if super::failure::is_local(&status) { "it cannot be reached" } else { status.message() };
        eprintln!(
            "note: `{}` did not say whether there is a user `{}`: {why}",
            connection.server, args.subject
        );
        return Ok(());
    }
    let request = identity::ListUsersRequest { parent, page_size: MAX_NAMED, ..Default::default() };
    let page = client.identity().list_users(request).await?.into_inner();
    let mut users: Vec<String> = page.users.iter().map(|user| output::id(&user.name)).collect();
    if !page.next_page_token.is_empty() {
        users.push("others".to_owned());
    }
    Err(wrong_usage(format!(
        "`{organization}` has no user `{}`; it has {}. A user whom only an identity provider knows needs --group",
        args.subject,
        if users.is_empty() { "none".to_owned() } else { users.join(", ") }
    )))
}
