//! `pavior sql`: a small SQL client, so that a workload or a developer with nothing but this binary reaches the
//! database that a golden path gave. The URL comes from the environment and the statements from standard input: neither
//! is ever an argument that others can see in the list of processes.

use std::io::Read as _;

use anyhow::Context as _;
use futures::StreamExt as _;
use serde_json::{Map, Value};
use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{Column as _, Connection as _, Either, Executor as _, Row as _, TypeInfo as _, ValueRef as _};

use super::failure::{OrUsage as _, wrong_usage};
use super::output::say;

const MAX_INPUT: u64 = 1 << 20;

/// Runs the statements of standard input in one session; prints each row as a JSON object on its own line.
pub(crate) async fn run() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL").map_err(|_| wrong_usage("DATABASE_URL is not set"))?;
    let mut statements = String::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut statements)
        .context("cannot read statements from standard input")
        .or_usage()?;
    for row in execute(&url, &statements).await? {
        say(&Value::Object(row).to_string())?;
    }
    Ok(())
}

async fn execute(url: &str, statements: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    sqlx::any::install_default_drivers();
    // The driver's own error would repeat the URL, password included.
    let options: AnyConnectOptions =
        url.parse().map_err(|_| anyhow::anyhow!("DATABASE_URL is not a sqlite: or postgres: URL"))?;
    let mut connection = sqlx::AnyConnection::connect_with(&options)
        .await
        .map_err(|_| anyhow::anyhow!("the database of DATABASE_URL does not answer"))?;
    let mut rows = Vec::new();
    {
        let mut results = connection.fetch_many(sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())));
        while let Some(result) = results.next().await {
            if let Either::Right(row) = result? {
                rows.push(to_json(&row)?);
            }
        }
    }
    connection.close().await?;
    Ok(rows)
}

fn to_json(row: &AnyRow) -> anyhow::Result<Map<String, Value>> {
    let mut object = Map::new();
    for column in row.columns() {
        let at = column.ordinal();
        let raw = row.try_get_raw(at)?;
        let value = match raw.type_info().name() {
            _ if raw.is_null() => Value::Null,
            "BOOLEAN" => row.try_get::<bool, _>(at)?.into(),
            "SMALLINT" | "INTEGER" | "BIGINT" => row.try_get::<i64, _>(at)?.into(),
            "REAL" | "DOUBLE" => row.try_get::<f64, _>(at)?.into(),
            _ => row.try_get::<String, _>(at)?.into(),
        };
        object.insert(column.name().to_owned(), value);
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn statements_run_in_order_and_rows_come_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", dir.path().join("app.db").display());
        let statements = "CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, n BIGINT NOT NULL);\n\
             INSERT INTO visits VALUES (1, 0) ON CONFLICT (id) DO NOTHING;\n\
             UPDATE visits SET n = n + 1 WHERE id = 1;\n\
             SELECT n FROM visits WHERE id = 1;";
        for visits in 1..=3 {
            let rows = execute(&url, statements).await.unwrap();
            assert_eq!(rows.last().and_then(|row| row.get("n")), Some(&Value::from(visits)));
        }
    }

    #[tokio::test]
    async fn a_wrong_url_is_refused_without_repeating_it() {
        let error = execute("postgres://user:s3cret@", "SELECT 1").await.unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
