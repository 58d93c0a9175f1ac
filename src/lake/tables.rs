//! Makes the lake's tables, and brings older ones up to date.

use duckdb::{Connection, params};

use super::LakeConfig;
use super::error::LakeError;
use super::sql::{identifier, literal};
use crate::rows::schema::columns;
use crate::signal::Table;

/// The table of published seals.
pub(super) const SEALS: &str = "otlake_seals";

/// Where DuckDB shows the catalog's own tables.
pub(super) const METADATA: &str = "__ducklake_metadata_lake";

/// The column of [`SEALS`] with a table's rows: `logs_rows`, `metrics_gauge_rows` and so on.
pub(super) fn rows_column(table: Table) -> String {
    let name = table.name();
    format!("{}_rows", name.strip_prefix("otlp_").unwrap_or(name))
}

/// `FROM` and `WHERE` over the live data files (`f`) of the tables (`t`) in a schema.
pub(super) fn live_files_sql(schema: &str) -> String {
    format!(
        "FROM {METADATA}.ducklake_data_file f
         JOIN {METADATA}.ducklake_table t ON t.table_id = f.table_id
         JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
         WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
           AND s.schema_name = {}",
        literal(schema)
    )
}

/// Makes what is missing: schema, tables, columns, sort orders, options. Changes nothing that is as it should be,
/// so that a start makes no snapshot.
///
/// # Errors
/// [`LakeError::ColumnType`] when a table is there with a column of another type, [`LakeError::DuckDb`] otherwise.
pub(super) fn prepare(connection: &Connection, config: &LakeConfig) -> Result<(), LakeError> {
    run(
        connection,
        &format!(
            "CREATE SCHEMA IF NOT EXISTS lake.{}",
            identifier(&config.schema)
        ),
        "make the lake's schema",
    )?;
    for table in Table::ALL {
        let wanted: Vec<(String, &str)> = columns(table)
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), kind.sql()))
            .collect();
        prepare_table(connection, &config.schema, table.name(), &wanted)?;
        sort(connection, &config.schema, table)?;
    }
    prepare_table(connection, &config.schema, SEALS, &seals_columns())?;
    set_option(connection, "parquet_compression", "zstd", "zstd")?;
    let size = config.target_file_size_bytes.to_string();
    set_option(connection, "target_file_size", &size, &format!("{size}B"))
}

fn seals_columns() -> Vec<(String, &'static str)> {
    let named = |columns: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        let own = |&(name, kind): &(&str, &'static str)| (name.to_owned(), kind);
        columns.iter().map(own).collect()
    };
    let head = [
        ("writer_id", "VARCHAR"),
        ("seal_id", "UBIGINT"),
        ("cause", "VARCHAR"),
        ("rows", "UBIGINT"),
    ];
    let tail = [
        ("bytes", "UBIGINT"),
        ("opened_at", "TIMESTAMP"),
        ("sealed_at", "TIMESTAMP"),
        ("stage_ms", "DOUBLE"),
        ("publish_ms", "DOUBLE"),
        ("committed_at", "TIMESTAMP"),
        ("journaled_through", "UBIGINT"),
    ];
    let rows = Table::ALL.map(|table| (rows_column(table), "UBIGINT"));
    [named(&head), rows.to_vec(), named(&tail)].concat()
}

fn prepare_table(
    connection: &Connection,
    schema: &str,
    table: &str,
    wanted: &[(String, &str)],
) -> Result<(), LakeError> {
    let target = format!("lake.{}.{}", identifier(schema), identifier(table));
    let found = existing_columns(connection, schema, table)?;
    if found.is_empty() {
        let list: Vec<String> = wanted
            .iter()
            .map(|(name, kind)| format!("{} {kind}", identifier(name)))
            .collect();
        let sql = format!("CREATE TABLE IF NOT EXISTS {target} ({})", list.join(", "));
        return run(connection, &sql, &format!("make table {table}"));
    }
    for (name, kind) in wanted {
        match found.iter().find(|(known, _)| known == name) {
            Some((_, known)) if known == kind => {}
            Some((_, known)) => {
                return Err(LakeError::ColumnType {
                    table: table.to_owned(),
                    column: name.clone(),
                    found: known.clone(),
                    wanted: (*kind).to_owned(),
                });
            }
            None => {
                let sql = format!(
                    "ALTER TABLE {target} ADD COLUMN {} {kind}",
                    identifier(name)
                );
                run(connection, &sql, &format!("add column {name} to {table}"))?;
            }
        }
    }
    Ok(())
}

fn existing_columns(
    connection: &Connection,
    schema: &str,
    table: &str,
) -> Result<Vec<(String, String)>, LakeError> {
    let action = || LakeError::duckdb(format!("read the columns of {table}"));
    let mut statement = connection
        .prepare(
            "SELECT column_name, data_type FROM duckdb_columns()
             WHERE database_name = 'lake' AND schema_name = ? AND table_name = ?
             ORDER BY column_index",
        )
        .map_err(action())?;
    let rows = statement
        .query_map(params![schema, table], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(action())?;
    rows.collect::<Result<_, _>>().map_err(action())
}

/// Merged files keep this order; publishing does not sort, the staged file is as it is.
fn sort(connection: &Connection, schema: &str, table: Table) -> Result<(), LakeError> {
    let wanted = format!("service_name,{}", table.time_column());
    let sql = format!(
        "SELECT coalesce(string_agg(e.expression, ',' ORDER BY e.sort_key_index), '')
         FROM {METADATA}.ducklake_sort_expression e
         JOIN {METADATA}.ducklake_sort_info i ON i.sort_id = e.sort_id AND i.table_id = e.table_id
         JOIN {METADATA}.ducklake_table t ON t.table_id = i.table_id
         JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
         WHERE i.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
           AND s.schema_name = ? AND t.table_name = ?"
    );
    let found: String = connection
        .query_row(&sql, params![schema, table.name()], |row| row.get(0))
        .map_err(LakeError::duckdb(format!("read the sort order of {table}")))?;
    if found.replace('"', "") == wanted {
        return Ok(());
    }
    let sql = format!(
        "ALTER TABLE lake.{}.{} SET SORTED BY (service_name, {})",
        identifier(schema),
        identifier(table.name()),
        table.time_column()
    );
    run(connection, &sql, &format!("set the sort order of {table}"))
}

/// Sets an option of the whole lake to `given`, unless the catalog has it as `stored` already.
fn set_option(
    connection: &Connection,
    name: &str,
    stored: &str,
    given: &str,
) -> Result<(), LakeError> {
    let sql = format!(
        "SELECT count(*) FROM {METADATA}.ducklake_metadata
         WHERE key = ? AND value = ? AND scope IS NULL"
    );
    let set: i64 = connection
        .query_row(&sql, params![name, stored], |row| row.get(0))
        .map_err(LakeError::duckdb("read the lake's options"))?;
    if set > 0 {
        return Ok(());
    }
    let sql = format!(
        "CALL lake.set_option({}, {})",
        literal(name),
        literal(given)
    );
    run(connection, &sql, &format!("set the lake's option {name}"))
}

fn run(connection: &Connection, sql: &str, action: &str) -> Result<(), LakeError> {
    connection
        .execute_batch(sql)
        .map_err(LakeError::duckdb(action))
}
