//! A byte changed behind the platform's back.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use pavior_tests::{Embedded, binary};
use sqlx::{Connection as _, Row as _};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_found_and_its_record_named() -> Result<()> {
    let system = Embedded::start().await?;
    let data = system.stop_keeping_data().await?;
    let database = pavior::serve::database_file(data.path(), "audit");
    let verify = || -> Result<Output> {
        Ok(Command::new(binary()?).args(["audit", "verify"]).arg(&database).output()?)
    };

    let output = verify()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    flip_a_byte(&database, 3).await?;
    let output = verify()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("record 3"), "the first bad record is named: {said}");
    Ok(())
}

async fn flip_a_byte(database: &std::path::Path, index: i64) -> Result<()> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    let row = sqlx::query("SELECT body FROM audit_record WHERE log = 'acme' AND idx = ?")
        .bind(index)
        .fetch_one(&mut connection)
        .await?;
    let mut bytes: Vec<u8> = row.try_get(0)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    let changed = sqlx::query("UPDATE audit_record SET body = ? WHERE log = 'acme' AND idx = ?")
        .bind(bytes)
        .bind(index)
        .execute(&mut connection)
        .await?;
    ensure!(changed.rows_affected() == 1, "nothing was changed");
    connection.close().await?;
    Ok(())
}
