//! What whoever has the quack token may run: statements that read, and otlake's own functions.
//!
//! DuckDB alone does not hold that: with every setting locked and the lake attached read-only its functions can still open
//! ports, read any SQLite file, run SQL from a text or delete files of the lake. So each statement is parsed, by DuckDB
//! itself, before it is planned, and refused unless it is a query of tables and of functions that are known to be harmless.
//! Both kinds of functions are allowed by name: those that make tables by [`TABLE_FUNCTIONS`], and scalar ones, aggregates and macros
//! by `harmless.txt`, which has those of DuckDB's own that give a value and do nothing else. What an extension or a
//! newer DuckDB brings is refused until somebody has looked at it. A name that DuckDB does not know is let through: it
//! tells the user so, with what was meant.
//!
//! A statement that does not parse is let through: DuckDB cannot run it either, and tells the user where the mistake is. (That
//! would be another matter with an extension that brings a parser of its own; none that is loaded here does.) That goes for
//! a statement as it came alone: `CALL` and `EXPLAIN` are judged as the query in them, and one that is none is refused.

use std::collections::HashSet;
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

/// Scalar functions, aggregates and macros that give a value and do nothing else. Of DuckDB 1.5.5 these are not among
/// them: `json_serialize_plan` and `write_log`, which have effects, and `sleep_ms` and `pg_sleep`, which hold a thread.
const HARMLESS: &str = include_str!("harmless.txt");

/// Ours.
const OWN: [&str; 1] = ["otlp_uri_parser"];

/// How the names of other functions begin that may not be called, whether DuckDB lists them or not.
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

/// What may be run in a DuckDB.
pub struct Policy {
    /// Functions that it has and that are not known to be harmless.
    refused: HashSet<String>,
}

impl Policy {
    /// The policy for a DuckDB, once it has every extension and function that it will have.
    ///
    /// # Errors
    /// What DuckDB says when it does not tell its functions.
    pub fn of(connection: &Connection) -> duckdb::Result<Policy> {
        let harmless: HashSet<&str> = HARMLESS.split_ascii_whitespace().chain(OWN).collect();
        let mut statement = connection.prepare(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions()
             WHERE function_type NOT IN ('table', 'table_macro', 'pragma')",
        )?;
        let known = statement.query_map([], |row| row.get::<_, String>(0))?;
        let refused = known.filter(|name| {
            let is_harmless = |name: &String| harmless.contains(name.as_str());
            !name.as_ref().is_ok_and(is_harmless)
        });
        let refused = refused.collect::<duckdb::Result<_>>()?;
        Ok(Policy { refused })
    }

    /// Judges a statement, or several; `parser` is any connection to the DuckDB that would run it.
    ///
    /// # Errors
    /// [`Refused`], for the first thing that may not be.
    pub fn judge(&self, parser: &Connection, statement: &str) -> Result<(), Refused> {
        judge(parser, statement, &self.refused)
    }
}

fn judge(parser: &Connection, statement: &str, refused: &HashSet<String>) -> Result<(), Refused> {
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
    match judge_parsed(&parsed, refused)? {
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

fn judge_parsed(parsed: &str, refused: &HashSet<String>) -> Result<Parsed, Refused> {
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
        let mut prefixes = REFUSED_PREFIXES.iter();
        let is_table_function = TABLE_FUNCTIONS.contains(&name.as_str());
        if prefixes.any(|prefix| name.starts_with(prefix))
            || (refused.contains(&name) && !is_table_function)
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
        Policy::of(&parser).unwrap().judge(&parser, statement)
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
            // Of every category: operators, aggregates, dates, texts, lists with lambdas, structs, maps, JSON, macros, windows.
            "SELECT 1 + 2 * 3 // 4 % 5, -1, 'a' || 'b' ~ 'c', NOT 1 = 2, a IN (1, 2), b BETWEEN 1 AND 2, c LIKE 'x%' ESCAPE '$', d::DATE[1] FROM t",
            "SELECT count(*), sum(x) FILTER (x > 1), avg(x), median(x), quantile_cont(x, [0.5, 0.99]), arg_max(a, b), list(x ORDER BY y), histogram(x), approx_count_distinct(x), mode(x) FROM t GROUP BY ALL",
            "SELECT time_bucket(INTERVAL '5 minutes', time_unix_nano::TIMESTAMP), date_trunc('hour', now()), epoch_ns(x), strftime(x, '%H'), extract('hour' FROM x), make_timestamp(1), age(x), today() FROM t",
            "SELECT regexp_extract(a, 'x(.)', 1), string_split(a, ','), a[1:2], upper(trim(a)), format('{}', a), printf('%d', 1), md5(a), levenshtein(a, b), CASE WHEN a THEN b ELSE coalesce(c, ifnull(d, nullif(e, f))) END FROM t",
            "SELECT list_transform([1, 2], lambda x: x + 1), [x * 2 FOR x IN l IF x > 1], list_sum(l), unnest(l), len(l), l[1], {'a': 1}.a, map {'k': 1}['k'], row(1, 2), struct_pack(a := 1) FROM t",
            "SELECT a->>'$.b', a->'c', json_extract_string(a, ['$.x', '$.y']), json_keys(a), a::JSON, json_group_array(b), json_object('a', 1), from_json(a, '[]') FROM t",
            "SELECT row_number() OVER w, lag(x, 1) OVER w, first_value(x) OVER w, rank() OVER w, sum(x) OVER (ORDER BY y ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), ntile(4) OVER w FROM t WINDOW w AS (PARTITION BY a ORDER BY b)",
            "SELECT COLUMNS('otlp_.*'), * EXCLUDE (a) REPLACE (b + 1 AS b) FROM t SAMPLE 10%",
            "FROM t SELECT DISTINCT ON (a) a, any_value(b), formatReadableDecimalSize(c), list_any_value(d), array_to_string(e, ','), current_schema(), version() WHERE a IS DISTINCT FROM b QUALIFY count(*) OVER () > 1",
            // DuckDB tells what was meant.
            "SELECT cnt(*), no_such_function(1) FROM t",
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
            "SELECT Sleep_MS(1)",
            "SELECT sum(pg_sleep(1)) FROM range(10)",
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

    /// Scenario: every function of DuckDB's own.
    /// Guarantees: each was looked at. Where this fails after an update, look at what is new: what gives a value and does nothing else goes
    /// into `harmless.txt`, the rest here.
    #[test]
    fn every_function_was_looked_at() {
        let duckdb = Connection::open_in_memory().unwrap();
        let mut refused: Vec<String> = Policy::of(&duckdb).unwrap().refused.into_iter().collect();
        refused.sort();
        assert_eq!(
            refused,
            ["json_serialize_plan", "pg_sleep", "sleep_ms", "write_log"]
        );
    }

    /// Scenario: a function that is none of DuckDB's own, as an extension brings it.
    /// Guarantees: it may not be called, whatever its name.
    #[test]
    fn what_is_not_known_to_be_harmless_is_refused() {
        let duckdb = Connection::open_in_memory().unwrap();
        duckdb
            .execute_batch("CREATE MACRO brought(a) AS a + 1")
            .unwrap();
        let policy = Policy::of(&duckdb).unwrap();
        for statement in ["SELECT brought(1)", "SELECT abs(main.Brought(1))"] {
            let refused = policy.judge(&duckdb, statement);
            assert_eq!(
                refused,
                Err(Refused::Function("brought".to_owned())),
                "{statement}"
            );
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
            let judged = judge_parsed(text, &HashSet::new());
            assert!(matches!(judged, Err(Refused::Unclear(_))));
        }
    }
}
