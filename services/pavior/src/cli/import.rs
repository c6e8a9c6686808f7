//! `pavior import`.

use pavior_proto::pavior::catalog::v1 as catalog;

use super::args::ImportArgs;
use super::client::{Client, request_id};
use super::output::Printer;
use super::{document, failure};

/// Sends the documents in messages well below the limit of 4 MiB.
pub(super) async fn import(client: &Client, printer: Printer, args: &ImportArgs) -> anyhow::Result<()> {
    const BATCH_BYTES: usize = 1 << 20;
    let named = |path: &std::path::Path| {
        path.file_name().is_some_and(|name| name == "catalog-info.yaml" || name == "catalog-info.yml")
    };
    let sources = document::read_matching(std::slice::from_ref(&args.directory), named)?;
    if sources.is_empty() {
        let directory = args.directory.display();
        return Err(failure::wrong_usage(format!("there is no catalog-info.yaml below `{directory}`")));
    }
    let mut total = catalog::ImportEntitiesResponse::default();
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut sources = sources.into_iter().peekable();
    while let Some(source) = sources.next() {
        bytes += source.text.len();
        batch.push(catalog::import_entities_request::Document {
            origin: format!("file:{}", source.origin),
            content: source.text,
        });
        if bytes < BATCH_BYTES && sources.peek().is_some() {
            continue;
        }
        let origins: Vec<String> = batch.iter().map(|document| document.origin.clone()).collect();
        let request = catalog::ImportEntitiesRequest {
            parent: client.organization()?,
            documents: std::mem::take(&mut batch),
            request_id: request_id(),
            validate_only: args.validate_only,
        };
        bytes = 0;
        let done = client.catalog().import_entities(request).await;
        let done = done.map_err(|status| failure::name_documents(status, &origins))?.into_inner();
        total.created_count += done.created_count;
        total.updated_count += done.updated_count;
        total.unchanged_count += done.unchanged_count;
    }
    printer.one(
        &total,
        &[
            ("created", total.created_count.to_string()),
            ("updated", total.updated_count.to_string()),
            ("unchanged", total.unchanged_count.to_string()),
        ],
    )
}
