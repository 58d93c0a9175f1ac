//! What whoever has the quack token may run: statements that read, and otlake's own functions.
//!
//! DuckDB alone does not hold that: with every setting locked and the lake attached read-only its functions can still open
//! ports, read any SQLite file, run SQL from a text or delete files of the lake. So each statement is parsed, by DuckDB
//! itself, before it is planned, and refused unless it is a query of tables and of functions that are known to be harmless.
//! Functions that make tables are allowed by name, since each can do what it likes; of the others DuckDB's own are known,
//! and those of extensions with an effect are refused.
//!
//! A statement that does not parse is let through: DuckDB cannot run it either, and tells the user where the mistake is. (That
//! would be another matter with an extension that brings a parser of its own; none that is loaded here does.) That goes for
//! a statement as it came alone: `CALL` and `EXPLAIN` are judged as the query in them, and one that is none is refused.

use std::fmt;

use duckdb::Connection;

/// Functions that may stand for a table.
const TABLE_FUNCTIONS: [&str; 46] = [
    "otlp_server_list",
    "otlp_seal_list",
    "otlp_flush",
    "otlp_stop",
    "otlp_uri_parser",
    "range",
    "generate_series",
    "unnest",
    "repeat",
    "repeat_row",
    "summary",
    "histogram",
    "histogram_values",
    "json_each",
    "json_tree",
    "duckdb_columns",
    "duckdb_connection_count",
    "duckdb_constraints",
    "duckdb_databases",
    "duckdb_dependencies",
    "duckdb_functions",
    "duckdb_indexes",
    "duckdb_keywords",
    "duckdb_memory",
    "duckdb_optimizers",
    "duckdb_prepared_statements",
    "duckdb_schemas",
    "duckdb_sequences",
    "duckdb_settings",
    "duckdb_tables",
    "duckdb_temporary_files",
    "duckdb_types",
    "duckdb_variables",
    "duckdb_views",
    "icu_calendar_names",
    "pg_timezone_names",
    "pragma_collations",
    "pragma_database_size",
    "pragma_platform",
    "pragma_show",
    "pragma_storage_info",
    "pragma_table_info",
    "pragma_user_agent",
    "pragma_version",
    "test_all_types",
    "whoami",
];

/// How the names of other functions begin that may not be called.
const REFUSED_PREFIXES: [&str; 5] = [
    "otlake_",
    "quack_",
    "write_log",
    "json_execute",
    // It plans the query in its text, and with that opens the files and connections that are named there.
    "json_serialize_plan",
];

/// Statements beside queries: a client that has attached the lake sends them around its own transactions.
const TRANSACTIONS: [&str; 9] = [
    "ABORT",
    "BEGIN",
    "BEGIN TRANSACTION",
    "BEGIN TRANSACTION READ ONLY",
    "COMMIT",
    "COMMIT TRANSACTION",
    "END",
    "ROLLBACK",
    "START TRANSACTION",
];

/// Keys of the JSON that DuckDB makes of a statement. A text inside of it cannot look like one: its quotes are escaped.
const TABLE_FUNCTION_KEY: &str = "\"function\":{";
const FUNCTION_NAME_KEY: &str = "\"function_name\":\"";
const TABLE_NAME_KEY: &str = "\"table_name\":\"";

/// Why a statement is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not a query.
    Statement,
    /// It calls a function that may not be called.
    Function(String),
    /// It reads a file by its name.
    File,
    /// It cannot be told what it does.
    Unclear(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Statement => {
                f.write_str("only queries, otlake's functions and transactions are run")
            }
            Refused::Function(name) => {
                write!(f, "the function {name} is not for queries over quack")
            }
            Refused::File => f.write_str("files cannot be read by name"),
            Refused::Unclear(why) => write!(f, "it cannot be told what the statement does: {why}"),
        }
    }
}

/// Judges a statement, or several; `parser` is any connection to the DuckDB that would run it.
///
/// # Errors
/// [`Refused`], for the first thing that may not be.
pub fn judge(parser: &Connection, statement: &str) -> Result<(), Refused> {
    // A text that ends inside a comment or a text may lose a `;` of it here, and is as little a statement without.
    let text = statement.trim().trim_end_matches(';').trim_end();
    let words: Vec<String> = text
        .split_whitespace()
        .map(str::to_ascii_uppercase)
        .take(5)
        .collect();
    if TRANSACTIONS.contains(&words.join(" ").as_str()) {
        return Ok(());
    }
    let inner = query_inside(text);
    let parsed: String = parser
        .query_row(
            "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR",
            [inner.as_deref().unwrap_or(statement)],
            |row| row.get(0),
        )
        .map_err(|error| Refused::Unclear(error.to_string()))?;
    match judge_parsed(&parsed)? {
        Parsed::Query => Ok(()),
        Parsed::Nothing if inner.is_none() => Ok(()),
        Parsed::Nothing => Err(Refused::Statement),
    }
}

/// The query that `CALL f()` and `EXPLAIN ...` run, and `None` for other statements: DuckDB makes JSON of queries alone. Of what
/// can stand around it only `EXPLAIN ANALYZE` is known, so with options in brackets or comments there is no query inside.
fn query_inside(text: &str) -> Option<String> {
    let (first, rest) = split_word(text);
    if first.eq_ignore_ascii_case("CALL") {
        Some(format!("SELECT * FROM {rest}"))
    } else if first.eq_ignore_ascii_case("EXPLAIN") {
        let (second, analyzed) = split_word(rest);
        let is_analyze = second.eq_ignore_ascii_case("ANALYZE");
        Some(if is_analyze { analyzed } else { rest }.to_owned())
    } else {
        None
    }
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// What DuckDB found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// Queries, that may be run.
    Query,
    /// No statement.
    Nothing,
}

fn judge_parsed(parsed: &str) -> Result<Parsed, Refused> {
    if parsed.starts_with("{\"error\":true") {
        let is_syntax = parsed.contains("\"error_type\":\"parser\"");
        return if is_syntax {
            Ok(Parsed::Nothing)
        } else {
            Err(Refused::Statement)
        };
    }
    if !parsed.starts_with("{\"error\":false") {
        return Err(Refused::Unclear("DuckDB's JSON is another one".to_owned()));
    }
    for place in after_each(parsed, TABLE_FUNCTION_KEY) {
        let named = after_each(place, FUNCTION_NAME_KEY).next();
        let name = named.and_then(name_at);
        match name {
            Some(name) if TABLE_FUNCTIONS.contains(&name.as_str()) => {}
            Some(name) => return Err(Refused::Function(name)),
            None => return Err(Refused::Unclear("a function has no plain name".to_owned())),
        }
    }
    for place in after_each(parsed, FUNCTION_NAME_KEY) {
        let Some(name) = name_at(place) else {
            return Err(Refused::Unclear("a function has no plain name".to_owned()));
        };
        if REFUSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            return Err(Refused::Function(name));
        }
    }
    for place in after_each(parsed, TABLE_NAME_KEY) {
        // DuckDB takes a table that it does not know for a file.
        let name = place.split('"').next().unwrap_or_default();
        if name.contains(['/', '\\', '.', ':']) {
            return Err(Refused::File);
        }
    }
    Ok(Parsed::Query)
}

/// What follows each occurrence of a key.
fn after_each<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(key)
        .filter_map(move |(at, _)| text.get(at + key.len()..))
}

/// The name that a JSON text begins with, in small letters; `None` where it has letters that are escaped.
fn name_at(text: &str) -> Option<String> {
    let (name, _) = text.split_once('"')?;
    (!name.contains('\\')).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(statement: &str) -> Result<(), Refused> {
        let parser = Connection::open_in_memory().unwrap();
        super::judge(&parser, statement)
    }

    /// Scenario: what people and clients ask.
    /// Guarantees: it is run, and so is what does not parse, of which DuckDB tells the mistake.
    #[test]
    fn queries_are_run() {
        for statement in [
            "SELECT * FROM otlp_flush('otlp:0.0.0.0:4318')",
            "FROM otlp_server_list();",
            "CALL otlp_stop()",
            "call otlp_stop('otlp:localhost')",
            "SELECT trace_id FROM lake.main.otlp_traces ORDER BY start_time_unix_nano DESC LIMIT 20",
            "WITH slow AS (FROM otlp_traces WHERE duration_time_unix_nano > 1e9) SELECT count(*), quantile_cont(kind, 0.5) FROM slow",
            "SELECT a.key FROM otlp_logs, json_each(log_attributes) a",
            "SELECT row_number() OVER (PARTITION BY upper(name)) FROM lake.main.otlp_traces",
            "SELECT '\"function\":{\"function_name\":\"quack_serve\"'",
            "DESCRIBE otlp_logs",
            "SHOW ALL TABLES",
            "SUMMARIZE otlp_logs",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "BEGIN TRANSACTION",
            "commit;",
            "SELECT 1; SELECT 2",
            "SELEC 1",
            "",
            "\nSELECT schema_name, sql, 'table'\nFROM duckdb_tables()\nUNION ALL\nSELECT schema_name, view_name, 'view'\nFROM duckdb_views()\n\t",
        ] {
            assert_eq!(judge(statement), Ok(()), "{statement}");
        }
    }

    /// Scenario: statements that change something.
    /// Guarantees: none is run, alone or behind one that is.
    #[test]
    fn what_changes_something_is_refused() {
        for statement in [
            "DROP TABLE lake.main.otlp_logs",
            "INSERT INTO otlp_logs VALUES (1)",
            "CREATE TABLE t (i INTEGER)",
            "CREATE MACRO otlp_flush(uri) AS TABLE SELECT 1",
            "DETACH lake",
            "ATTACH 'x.db'",
            "COPY (SELECT 1) TO 'x.csv'",
            "SET memory_limit = '1TB'",
            "PRAGMA enable_profiling",
            "LOAD httpfs",
            "USE lake",
            "CHECKPOINT",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "SELECT 1; DETACH lake",
            "EXPLAIN DROP TABLE t",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "CALL otlp_server_list(); DETACH lake",
            "BEGIN; DETACH lake",
            "EXPLAIN (ANALYZE) SELECT 1; DETACH lake",
            "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN (ANALYZE, FORMAT JSON) COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN (ANALYZE) CALL quack_serve('quack:0.0.0.0:1')",
            "EXPLAIN(ANALYZE) CALL quack_serve('quack:0.0.0.0:1')",
            "EXPLAIN /**/ANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN /**/ ANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN --\nANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "/**/EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN/**/ANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.parquet'",
            "EXPLAIN CALL quack_serve('quack:0.0.0.0:1')",
            "CALL /**/quack_serve/**/('quack:0.0.0.0:1'",
            "CALL (SELECT 1",
            "EXPLAIN SELEC 1",
        ] {
            assert_eq!(judge(statement), Err(Refused::Statement), "{statement}");
        }
    }

    /// Scenario: functions with effects, in every place where a query can have one.
    /// Guarantees: none is called.
    #[test]
    fn functions_with_effects_are_refused() {
        for statement in [
            "FROM quack_serve('quack:0.0.0.0:1')",
            "CALL quack_stop('quack:0.0.0.0:9494')",
            "SELECT 1 FROM range(1), (FROM Quack_Query('quack:x', 'SELECT 1'))",
            "WITH a AS (FROM ducklake_cleanup_old_files('lake')) FROM a",
            "WITH RECURSIVE a AS (SELECT 1 UNION ALL FROM sqlite_scan('/x', 'y')) FROM a",
            "SELECT (SELECT 1 FROM query('SELECT 1'))",
            "SELECT 1 WHERE EXISTS (FROM system.main.read_text('/etc/passwd'))",
            "SELECT 1 ORDER BY (SELECT 1 FROM glob('*'))",
            "SELECT 1 LIMIT (SELECT 1 FROM arrow_scan(1, 2, 3))",
            "SELECT * FROM json_execute_serialized_sql('{}')",
            "DESCRIBE SELECT * FROM checkpoint('lake')",
            "SUMMARIZE FROM enable_logging()",
            "EXPLAIN ANALYZE FROM quack_serve('quack:0.0.0.0:1')",
            "SELECT 1 FROM lake.main.otlp_logs l JOIN read_parquet('x') r ON true",
            "SELECT write_log('x')",
            "SELECT json_serialize_plan('FROM quack_query(''quack:x'', ''SELECT 1'')')",
            "SELECT main.JSON_Serialize_Plan('FROM sqlite_scan(''/x'', ''y'')')",
            "SELECT quack_check_token('a', 'b', 'c')",
            "SELECT sum(1) FILTER (WHERE quack_nop_authorization('a', 'b'))",
            "SELECT otlake_stop('')",
            "FROM otlake_stop('')",
            "FROM \"quack\\serve\"()",
        ] {
            let refused = judge(statement).unwrap_err();
            let is_function = matches!(&refused, Refused::Function(_) | Refused::Unclear(_));
            assert!(is_function, "{statement}: {refused}");
        }
        for statement in [
            "FROM 'x.csv'",
            "FROM '/etc/passwd'",
            "SELECT * FROM \"a/b\"",
        ] {
            assert_eq!(judge(statement), Err(Refused::File), "{statement}");
        }
    }

    /// Scenario: a query that is nested deeply, one with very many parts, and JSON that is not DuckDB's.
    /// Guarantees: the first two are judged as any other; the last is refused.
    #[test]
    fn size_and_form_make_no_difference() {
        let nested = format!("{}FROM range(1){}", "FROM (".repeat(60), ")".repeat(60));
        assert_eq!(judge(&nested), Ok(()));
        let long = format!("SELECT {}", vec!["'a'"; 900].join(" || "));
        assert_eq!(judge(&long), Ok(()));
        let hidden = nested.replace("range(1)", "quack_serve()");
        assert_eq!(
            judge(&hidden),
            Err(Refused::Function("quack_serve".to_owned()))
        );
        for text in ["", "{}", "{\"error\": false}"] {
            assert!(matches!(judge_parsed(text), Err(Refused::Unclear(_))));
        }
    }
}
