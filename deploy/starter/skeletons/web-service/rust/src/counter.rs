//! The counter in the database, reached through the platform's SQL client, which takes `DATABASE_URL` from the
//! environment and statements from standard input, so that this service needs no driver of its own.

use std::io::Write;
use std::process::{Command, Stdio};

const STATEMENTS: &str = "\
CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO visits (id, n) VALUES (1, 0) ON CONFLICT (id) DO NOTHING;
UPDATE visits SET n = n + 1 WHERE id = 1;
SELECT n FROM visits WHERE id = 1;
";

/// Counts a visit and returns how many there were; `None` when there is no database or it does not answer.
pub fn count() -> Option<u64> {
    std::env::var_os("DATABASE_URL")?;
    let client = std::env::var_os("PAVIOR_SQL")?;
    let mut child =
        Command::new(client).arg("sql").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    child.stdin.take()?.write_all(STATEMENTS.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    if !output.status.success() {
        return None;
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the counter from the client's last line, for example `{"n":3}`.
fn parse(output: &str) -> Option<u64> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty())?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_holds_the_counter() {
        assert_eq!(parse("{\"n\":41}\n\n"), Some(41));
        assert_eq!(parse(""), None);
    }
}
