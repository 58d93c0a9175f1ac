//! `otlake seals`: the most recent commits, from the running server or else from the lake.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::args::SealsArgs;
use super::client::{ANSWER_TIMEOUT, Client, Found, Target};
use super::table::{self, bytes, columns, count};
use crate::config::LakeArgs;
use crate::lake;
use crate::proto::admin::{Seal, SealsRequest};
use crate::server_file::LakeFile;

/// Runs `otlake seals`.
///
/// # Errors
/// One line, when there is neither a server nor a lake.
pub(super) async fn run(args: SealsArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.client)?;
    // What listens on the usual port may be another folder's server; the lake is this folder's for sure.
    let seals = if target.found == Found::Guessed {
        let data_dir = std::path::absolute(&args.client.data_dir)?;
        let limit = args.limit;
        tokio::task::spawn_blocking(move || from_lake(&data_dir, limit)).await??
    } else {
        from_server(&target, &args).await?
    };
    if args.json {
        for seal in &seals {
            table::print(&as_json(seal).to_string())?;
        }
    } else {
        table::print(&as_text(&seals))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn from_server(target: &Target, args: &SealsArgs) -> anyhow::Result<Vec<Seal>> {
    let mut client = Client::connect(target, args.client.token.as_ref(), ANSWER_TIMEOUT).await?;
    let request = SealsRequest { limit: args.limit };
    match client.admin.seals(request).await {
        Ok(response) => Ok(response.into_inner().seals),
        Err(status) => Err(client.explain(&status)),
    }
}

/// What the lake remembers: committed seals only, and neither attempts nor errors.
fn from_lake(data_dir: &Path, limit: u32) -> anyhow::Result<Vec<Seal>> {
    let args = match LakeFile::read(data_dir) {
        Some(file) => file.complete(LakeArgs::default(), data_dir),
        None => LakeArgs::default(),
    };
    let connection = lake::open_read_only(&args.resolve(data_dir)?).with_context(|| {
        format!(
            "no server runs in {}, and its lake cannot be read",
            data_dir.display()
        )
    })?;
    read_seals(&connection, limit).context("cannot read otlake_seals")
}

fn read_seals(connection: &duckdb::Connection, limit: u32) -> duckdb::Result<Vec<Seal>> {
    let mut statement = connection.prepare(
        r#"SELECT seal_id, cause, "rows", bytes, epoch_ms(sealed_at), epoch_ms(committed_at), stage_ms, publish_ms,
               (epoch_us(committed_at) - epoch_us(opened_at)) / 1000
           FROM otlake_seals ORDER BY committed_at DESC, seal_id DESC LIMIT ?"#,
    )?;
    let seals = statement.query_map([limit], |row| {
        Ok(Seal {
            seal_id: row.get(0)?,
            state: "committed".to_owned(),
            cause: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            rows: row.get::<_, Option<u64>>(2)?.unwrap_or_default(),
            bytes: row.get::<_, Option<u64>>(3)?.unwrap_or_default(),
            sealed_unix_ms: row.get::<_, Option<i64>>(4)?.unwrap_or_default(),
            committed_unix_ms: row.get::<_, Option<i64>>(5)?.unwrap_or_default(),
            stage_ms: row.get::<_, Option<f64>>(6)?.unwrap_or_default(),
            publish_ms: row.get::<_, Option<f64>>(7)?.unwrap_or_default(),
            total_ms: row.get::<_, Option<f64>>(8)?.unwrap_or_default(),
            ..Seal::default()
        })
    })?;
    seals.collect()
}

fn as_text(seals: &[Seal]) -> String {
    if seals.is_empty() {
        return "no seals yet".to_owned();
    }
    let rows: Vec<_> = seals.iter().map(text_row).collect();
    let header = [
        "seal",
        "state",
        "cause",
        "sealed at (UTC)",
        "rows",
        "bytes",
        "stage ms",
        "publish ms",
        "total ms",
        "attempts",
        "error",
    ];
    let errors = seals.iter().any(|seal| !seal.error.is_empty());
    // Nothing is to be aligned behind an error: it goes last, and only where there is one.
    let shown = if errors {
        header.len()
    } else {
        header.len() - 1
    };
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| row.into_iter().take(shown).collect())
        .collect();
    columns(header.get(..shown).unwrap_or(&header), &rows, 4)
}

fn text_row(seal: &Seal) -> Vec<String> {
    let ms = |ms: f64| {
        if ms > 0.0 {
            format!("{ms:.1}")
        } else {
            "-".to_owned()
        }
    };
    let attempts = match seal.attempts {
        0 => "-".to_owned(),
        attempts => attempts.to_string(),
    };
    vec![
        seal.seal_id.to_string(),
        seal.state.clone(),
        seal.cause.clone(),
        table::utc(seal.sealed_unix_ms),
        count(seal.rows),
        bytes(seal.bytes),
        ms(seal.stage_ms),
        ms(seal.publish_ms),
        ms(seal.total_ms),
        attempts,
        seal.error.replace('\n', " "),
    ]
}

/// Keys are the proto's, times are RFC 3339 in UTC; null is what is not known or has not happened.
fn as_json(seal: &Seal) -> Value {
    json!({
        "seal_id": seal.seal_id,
        "state": seal.state,
        "cause": seal.cause,
        "rows": seal.rows,
        "bytes": seal.bytes,
        "sealed_at": table::utc_json(seal.sealed_unix_ms),
        "committed_at": table::utc_json(seal.committed_unix_ms),
        "stage_ms": seal.stage_ms,
        "publish_ms": seal.publish_ms,
        "total_ms": seal.total_ms,
        "attempts": (seal.attempts > 0).then_some(seal.attempts),
        "error": (!seal.error.is_empty()).then_some(&seal.error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE otlake_seals (writer_id VARCHAR, seal_id UBIGINT, cause VARCHAR, \"rows\" UBIGINT,
        bytes UBIGINT, opened_at TIMESTAMP, sealed_at TIMESTAMP, stage_ms DOUBLE, publish_ms DOUBLE, committed_at TIMESTAMP);
        INSERT INTO otlake_seals VALUES
        ('w', 1, 'age', 10, 2048, '2026-01-01 00:00:00', '2026-01-01 00:00:05', 3.25, 18.5, '2026-01-01 00:00:05.0255'),
        ('w', 2, 'flush', 1500, 4096, NULL, '2026-01-01 00:01:00', 4, 20, '2026-01-01 00:01:01');";

    /// Scenario: no server, a lake with two seals of which one lacks a time.
    /// Guarantees: newest first, total from the oldest row to the commit, unknown values do not stop the list.
    #[test]
    fn seals_are_read_from_the_lake() {
        let connection = duckdb::Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLE).unwrap();
        let seals = read_seals(&connection, 20).unwrap();
        let ids: Vec<_> = seals.iter().map(|seal| seal.seal_id).collect();
        assert_eq!(ids, [2, 1]);
        assert_eq!(read_seals(&connection, 1).unwrap().len(), 1);
        let text = [
            "  seal  state      cause  sealed at (UTC)            rows    bytes  stage ms  publish ms  total ms  attempts",
            "  2     committed  flush  2026-01-01T00:01:00.000Z  1,500  4.0 KiB       4.0        20.0         -         -",
            "  1     committed  age    2026-01-01T00:00:05.000Z     10  2.0 KiB       3.2        18.5    5025.5         -",
        ];
        assert_eq!(as_text(&seals), text.join("\n"));
        let json = as_json(seals.last().unwrap());
        assert_eq!(json["committed_at"], "2026-01-01T00:00:05.025Z");
        assert_eq!(json["attempts"], Value::Null);
        assert_eq!(json["total_ms"], 5025.5);
    }

    /// Scenario: a seal that fails to be published, and an empty list.
    /// Guarantees: the error is in the table, in one line; nothing is said to be nothing.
    #[test]
    fn errors_have_a_column() {
        let seal = Seal {
            seal_id: 3,
            state: "failing".to_owned(),
            attempts: 4,
            error: "database is\nlocked".to_owned(),
            ..Seal::default()
        };
        let text = as_text(&[seal]);
        assert!(text.ends_with("database is locked"), "{text}");
        assert_eq!(as_text(&[]), "no seals yet");
    }
}
