//! Who calls, and what they may do.

use anyhow::Context as _;
use pavior_proto::pavior::platform::v1 as platform;

use super::args::{ConnectionArgs, LoginArgs};
use super::client::Client;
use super::output::{self, Printer};
use super::{failure, settings};

/// `pavior login`.
pub(super) async fn login(printer: Printer, args: &ConnectionArgs, login: &LoginArgs) -> anyhow::Result<()> {
    let mut connection = settings::connection(args)?;
    if login.token_stdin {
        let mut token = String::new();
        std::io::stdin().read_line(&mut token).context("cannot read the token from standard input")?;
        connection.token = Some(token.trim().to_owned());
    }
    if connection.token.as_deref().is_none_or(str::is_empty) {
        return Err(failure::wrong_usage("no token: give --token-stdin, --token-file or PAVIOR_TOKEN"));
    }
    let me = Client::new(&connection)?
        .platform()
        .who_am_i(platform::WhoAmIRequest {})
        .await
        .map_err(|status| failure::at_server(status.into(), &connection.server))?
        .into_inner();
    let principal = me.principal.clone().unwrap_or_default();
    let saved = settings::Settings {
        server: Some(connection.server.clone()),
        token: connection.token,
        organization: connection.organization.or(Some(principal.organization_id)).filter(|o| !o.is_empty()),
    };
    let path = saved.save()?;
    printer.one(
        &me,
        &[("you are", principal.name), ("at", connection.server), ("kept in", path.display().to_string())],
    )
}

/// `pavior whoami`.
pub(super) async fn whoami(client: &Client, printer: Printer) -> anyhow::Result<()> {
    let me = client.platform().who_am_i(platform::WhoAmIRequest {}).await?.into_inner();
    let principal = me.principal.clone().unwrap_or_default();
    printer.one(
        &me,
        &[
            ("you are", principal.name),
            ("email", principal.email),
            ("groups", me.groups.iter().map(|g| output::id(g)).collect::<Vec<_>>().join(", ")),
        ],
    )
}

/// `pavior allowed`.
pub(super) async fn allowed(client: &Client, printer: Printer, resource: &str) -> anyhow::Result<()> {
    let request = platform::ListAllowedActionsRequest { resource: client.name_within(resource)? };
    let answer = client.platform().list_allowed_actions(request).await?.into_inner();
    if printer.is_json() {
        return printer.one(&answer, &[]);
    }
    if !answer.changes_refused.is_empty() {
        eprintln!("no change is allowed now: {}", answer.changes_refused);
    }
    let planned = answer.planned_actions.iter().map(|action| (action, "as policy says of its plan"));
    let rows = answer.actions.iter().map(|action| (action, "yes")).chain(planned);
    printer.rows(&["action", "allowed"], rows.map(|(action, how)| vec![action.clone(), how.to_owned()]))
}
