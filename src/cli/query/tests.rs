use duckdb::Connection;

use super::*;

fn database() -> Connection {
    Connection::open_in_memory().unwrap()
}

fn run_in(connection: &Connection, format: OutputFormat, sql: &str) -> Result<String, QueryError> {
    let mut out = Vec::new();
    show(connection, sql, format, None, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn run(format: OutputFormat, sql: &str) -> String {
    run_in(&database(), format, sql).expect("the query succeeds")
}

fn on_terminal(width: u16, sql: &str) -> String {
    let connection = database();
    let mut rows = Rows::open(&connection, sql).unwrap();
    let mut out = Vec::new();
    table::table(&mut rows, &mut out, Some(width)).unwrap();
    String::from_utf8(out).unwrap()
}

/// The only cell of a result, as CSV without quotes reads it.
fn cell(expression: &str) -> String {
    let text = run(OutputFormat::Csv, &format!("SELECT {expression} AS x"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let record = reader.records().next().expect("a row").expect("valid CSV");
    record.get(0).expect("a cell").to_owned()
}

/// The only value of a result, as JSON text.
fn json_value(expression: &str) -> String {
    let line = run(OutputFormat::Ndjson, &format!("SELECT {expression} AS x"));
    let line = line.strip_prefix("{\"x\": ").expect("an object");
    line.strip_suffix("}\n").expect("an object").to_owned()
}

const SCALARS: &str = "bool, tinyint, smallint, int, bigint, hugeint, uhugeint, utinyint, usmallint, uint, ubigint, \
    date, time, timestamp, timestamp_s, timestamp_ms, timestamp_ns, float, double, dec_4_1, dec_9_4, \
    dec_18_6, dec38_10, uuid, interval, varchar, blob, bit, small_enum, medium_enum, large_enum, time_ns";

/// Scenario: DuckDB's own table of all types, with the least and the greatest values, in every scalar type.
/// Guarantees: each reads exactly as DuckDB casts it to VARCHAR.
#[test]
fn scalars_read_as_duckdb_writes_them() {
    let ours = run(
        OutputFormat::Csv,
        &format!("SELECT {SCALARS} FROM test_all_types()"),
    );
    let theirs = run(
        OutputFormat::Csv,
        &format!("SELECT COLUMNS(*)::VARCHAR FROM (SELECT {SCALARS} FROM test_all_types())"),
    );
    let read = |text: &str| -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(text.as_bytes());
        let records = reader.records().map(|record| record.unwrap());
        records
            .map(|record| record.iter().map(str::to_owned).collect())
            .collect()
    };
    let (ours, theirs) = (read(&ours), read(&theirs));
    assert_eq!(ours.len(), 4);
    for (our_row, their_row) in ours.iter().zip(&theirs) {
        for ((name, ours), theirs) in ours[0].iter().zip(our_row).zip(their_row) {
            assert_eq!(ours, theirs, "column {name}");
        }
    }
}

/// Scenario: values around which the ways to write them change.
/// Guarantees: each reads exactly as DuckDB casts it to VARCHAR.
#[test]
fn hard_values_read_as_duckdb_writes_them() {
    let values = [
        "1e15::DOUBLE",
        "1e16::DOUBLE",
        "123456789012345680.0::DOUBLE",
        "0.0001::DOUBLE",
        "0.00001::DOUBLE",
        "1.5e300::DOUBLE",
        "-0.0::DOUBLE",
        "0.1::DOUBLE",
        "'nan'::DOUBLE",
        "'inf'::DOUBLE",
        "'-inf'::FLOAT",
        "0.1::FLOAT",
        "1e16::FLOAT",
        "16777216::FLOAT",
        "3.4e38::FLOAT",
        "5e-324::DOUBLE",
        "'2026-01-01 00:00:00.123456789'::TIMESTAMP_NS",
        "'2026-01-01 00:00:00.1'::TIMESTAMP_NS",
        "'1969-12-31 23:59:59.999999999'::TIMESTAMP_NS",
        "'2026-01-01'::TIMESTAMP_MS",
        "'2026-01-01 01:02:03'::TIMESTAMP_S",
        "'2000-02-29 12:00:00.5'::TIMESTAMP",
        "'1900-03-01'::DATE",
        "'0001-01-01 (BC) 00:00:01'::TIMESTAMP",
        "'-0044-03-15'::DATE",
        "'12345-01-01'::DATE",
        "'infinity'::DATE",
        "'-infinity'::TIMESTAMP",
        "'infinity'::TIMESTAMP_NS",
        "'24:00:00'::TIME",
        "'01:02:03.000001'::TIME",
        "INTERVAL '1 year 2 months 3 days 04:05:06.789'",
        "INTERVAL '-1 hour'",
        "INTERVAL '0 days'",
        "INTERVAL '-14 months -1 day'",
        "INTERVAL '25 hours'",
        "INTERVAL '2 days'",
        "INTERVAL '1 month -00:00:00.000001'",
        "1.10::DECIMAL(5,2)",
        "'-0.05'::DECIMAL(4,2)",
        "12::DECIMAL(38,0)",
        "340282366920938463463374607431768211455::UHUGEINT",
        "'\\xAA\\x00a\\x27\\x22\\x5C~'::BLOB",
        "'10101'::BIT",
        "'1'::BIT",
        "'11111111'::BIT",
        "''",
        "'ü 🦆'",
        "'a'::ENUM('a', 'b')",
        "'{\"a\":  1}'::JSON",
    ];
    for value in values {
        assert_eq!(cell(value), cell(&format!("({value})::VARCHAR")), "{value}");
    }
}

/// Scenario: an instant with a zone.
/// Guarantees: it is written in UTC, whatever zone the machine is in.
#[test]
fn instants_are_written_in_utc() {
    let sql = "SET TimeZone = 'Asia/Tokyo'; SELECT '2026-01-01 09:00:00.25+09'::TIMESTAMPTZ AS x, 'infinity'::TIMESTAMPTZ AS y";
    assert_eq!(
        run(OutputFormat::Csv, sql),
        "x,y\n2026-01-01 00:00:00.25+00,infinity\n"
    );
}

/// Scenario: each type in JSON.
/// Guarantees: numbers keep all digits, what JSON has no number for is a string, JSON stays JSON, on one line.
#[test]
fn json_values() {
    for (expression, expected) in [
        ("NULL", "null"),
        ("true", "true"),
        ("-1::BIGINT", "-1"),
        ("18446744073709551615::UBIGINT", "18446744073709551615"),
        (
            "170141183460469231731687303715884105727::HUGEINT",
            "170141183460469231731687303715884105727",
        ),
        ("1.10::DECIMAL(5,2)", "1.10"),
        // DuckDB itself writes -.05, which JSON does not know.
        ("'-0.05'::DECIMAL(2,2)", "-0.05"),
        ("1e16::DOUBLE", "1e+16"),
        ("'nan'::DOUBLE", "\"NaN\""),
        ("'inf'::FLOAT", "\"Infinity\""),
        ("'-inf'::DOUBLE", "\"-Infinity\""),
        ("'a\"b\\' || chr(10) || chr(27)", "\"a\\\"b\\\\\\n\\u001b\""),
        ("'\\x00\\xFF'::BLOB", "\"\\\\x00\\\\xFF\""),
        (
            "'2026-01-01 00:00:00.123456789'::TIMESTAMP_NS",
            "\"2026-01-01 00:00:00.123456789\"",
        ),
        ("'2026-01-01'::DATE", "\"2026-01-01\""),
        ("INTERVAL '1 day'", "\"1 day\""),
        (
            "'{\"a\" : [1,\n 12345678901234567890123], \"b\": \" x \\\" y \"}'::JSON",
            "{\"a\":[1,12345678901234567890123],\"b\":\" x \\\" y \"}",
        ),
        ("'{\"a\": 1}'", "\"{\\\"a\\\": 1}\""),
    ] {
        assert_eq!(json_value(expression), expected, "{expression}");
    }
}

/// Scenario: lists, structs, maps, arrays, unions, in each other, with nulls.
/// Guarantees: they are JSON in every format, and DuckDB reads them back.
#[test]
fn nested_values_are_json_everywhere() {
    for (expression, expected) in [
        ("[1, NULL, 3]", "[1, null, 3]"),
        ("[]::INT[]", "[]"),
        ("[1.5::DOUBLE, 'nan'::DOUBLE]", "[1.5, \"NaN\"]"),
        (
            "{'a': 1, 'b': NULL, 'c': ['x y', 'it''s']}",
            "{\"a\": 1, \"b\": null, \"c\": [\"x y\", \"it's\"]}",
        ),
        ("MAP {'k': 1, 'l': 2}", "{\"k\": 1, \"l\": 2}"),
        ("MAP {1: {'a': [true]}}", "{\"1\": {\"a\": [true]}}"),
        ("[1, 2]::INT[2]", "[1, 2]"),
        ("[[1], NULL, []]", "[[1], null, []]"),
        ("union_value(num := 7)", "7"),
        ("[union_value(txt := 'q')]", "[\"q\"]"),
        (
            "[340282366920938463463374607431768211455::UHUGEINT]",
            "[340282366920938463463374607431768211455]",
        ),
        ("['101'::BIT]", "[\"101\"]"),
        ("{'j': '{\"a\": 1}'::JSON}", "{\"j\": {\"a\":1}}"),
        (
            "['2026-01-01 00:00:00.000000001'::TIMESTAMP_NS]",
            "[\"2026-01-01 00:00:00.000000001\"]",
        ),
    ] {
        assert_eq!(json_value(expression), expected, "{expression}");
        assert_eq!(cell(expression), expected, "{expression}");
    }
}

/// Scenario: DuckDB's own table of all types, whole but for the three types that lose something.
/// Guarantees: every line is valid JSON with all columns.
#[test]
fn every_type_gives_valid_json() {
    let sql = "SELECT * EXCLUDE (time_tz, bignum, geometry) FROM test_all_types()";
    let lines = run(OutputFormat::Ndjson, sql);
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object.as_object().unwrap().len(), 53, "{line}");
    }
}

/// Scenario: types whose values lose something on the way.
/// Guarantees: no wrong value is printed; the error names column, type and the way out.
#[test]
fn types_that_lose_something_are_refused_by_name() {
    for (value, kind) in [
        ("'12:00:00+02'::TIMETZ", "TIME WITH TIME ZONE"),
        ("['12:00:00+02'::TIMETZ]", "TIME WITH TIME ZONE"),
        ("5::BIGNUM", "BIGNUM"),
    ] {
        let sql = format!("SELECT {value} AS x");
        let error = run_in(&database(), OutputFormat::Csv, &sql)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("column x is of type {kind}")),
            "{error}"
        );
        assert!(error.contains("::VARCHAR"), "{error}");
    }
}

/// Scenario: two rows with a null and something to escape, in each format.
/// Guarantees: the exact text, piped.
#[test]
fn the_four_formats() {
    let sql = "SELECT * FROM (VALUES (1, 'a,\"b\"'), (20, NULL)) t(n, s)";
    assert_eq!(
        run(OutputFormat::Json, sql),
        "[\n{\"n\": 1, \"s\": \"a,\\\"b\\\"\"},\n{\"n\": 20, \"s\": null}\n]\n"
    );
    assert_eq!(
        run(OutputFormat::Ndjson, sql),
        "{\"n\": 1, \"s\": \"a,\\\"b\\\"\"}\n{\"n\": 20, \"s\": null}\n"
    );
    assert_eq!(run(OutputFormat::Csv, sql), "n,s\n1,\"a,\"\"b\"\"\"\n20,\n");
    assert_eq!(
        run(OutputFormat::Table, sql),
        "\
┌────┬───────┐
│ n  ┆ s     │
╞════╪═══════╡
│  1 ┆ a,\"b\" │
│ 20 ┆ NULL  │
└────┴───────┘
"
    );
}

/// Scenario: a result without rows, and statements that have none to give.
/// Guarantees: the forms stay valid; SET and CREATE print no table.
#[test]
fn results_without_rows() {
    let sql = "SELECT 1 AS a, 2 AS b WHERE false";
    assert_eq!(run(OutputFormat::Json, sql), "[]\n");
    assert_eq!(run(OutputFormat::Ndjson, sql), "");
    assert_eq!(run(OutputFormat::Csv, sql), "a,b\n");
    assert!(run(OutputFormat::Table, sql).contains("│ a ┆ b │"));
    assert_eq!(run(OutputFormat::Table, "SET threads = 1"), "");
    assert_eq!(run(OutputFormat::Table, "CREATE TEMP TABLE t (a INT)"), "");
}

/// Scenario: several statements, with a semicolon and a comment after the last; of some only one has rows, of some several.
/// Guarantees: all are run; each that has rows shows them, in order, where the format has room; else none is run.
#[test]
fn each_statement_shows_its_rows() {
    let one = "CREATE TEMP TABLE t AS SELECT 7 AS a; SET threads = 1; SELECT a FROM t; -- done";
    assert_eq!(run(OutputFormat::Csv, one), "a\n7\n");
    assert_eq!(
        run(OutputFormat::Csv, "SELECT 7 AS a; SET threads = 1"),
        "a\n7\n"
    );
    let several =
        "SELECT 'a;' AS a; CREATE TEMP TABLE t AS SELECT 2 AS b; FROM t; SELECT 1 AS \"Count\"";
    let lines = "{\"a\": \"a;\"}\n{\"b\": 2}\n{\"Count\": 1}\n";
    assert_eq!(run(OutputFormat::Ndjson, several), lines);
    let table = run(OutputFormat::Table, several);
    assert_eq!(table.matches('┌').count(), 3, "{table}");
    assert!(table.contains("└────┘\n\n┌───┐\n│ b │"), "{table}");
    for format in [OutputFormat::Csv, OutputFormat::Json] {
        let connection = database();
        let more = "CREATE TEMP TABLE t (a INT); FROM t; FROM t";
        let refused = run_in(&connection, format, more);
        assert!(matches!(refused, Err(QueryError::OneResult)));
        assert!(connection.prepare("FROM t").is_err());
        // What has rows is known only once it has run.
        let late = run_in(&connection, format, "PRAGMA version; PRAGMA version");
        assert!(matches!(late, Err(QueryError::OneResult)));
    }
    let error = run_in(&database(), OutputFormat::Table, "SELECT 1;\nSELEC 2").unwrap_err();
    assert!(error.to_string().contains("LINE 2: SELEC 2"), "{error}");
}

/// Scenario: two columns of one name.
/// Guarantees: a JSON object has both.
#[test]
fn repeated_names_are_numbered_in_json() {
    assert_eq!(
        run(OutputFormat::Ndjson, "SELECT 1 AS a, 2 AS a, 3 AS a"),
        "{\"a\": 1, \"a_1\": 2, \"a_2\": 3}\n"
    );
    assert_eq!(
        run(OutputFormat::Csv, "SELECT 1 AS a, 2 AS a"),
        "a,a\n1,2\n"
    );
}

/// Scenario: wrong SQL, a value that fails while rows come, and nothing but a comment.
/// Guarantees: DuckDB's own words, with the place; no panic.
#[test]
fn errors_are_duckdbs_own_words() {
    let error = |sql: &str| {
        run_in(&database(), OutputFormat::Csv, sql)
            .unwrap_err()
            .to_string()
    };
    let syntax = error("SELECT * FRM x");
    assert!(
        syntax.starts_with("Parser Error: syntax error at or near \"x\""),
        "{syntax}"
    );
    assert!(syntax.contains("LINE 1: SELECT * FRM x"), "{syntax}");
    assert!(
        error("FROM nowhere").starts_with("Catalog Error: Table with name nowhere does not exist")
    );
    let late =
        error("SELECT CASE WHEN i = 500000 THEN 'a'::INT ELSE i END FROM range(500001) t(i)");
    assert!(late.starts_with("Conversion Error"), "{late}");
    assert_eq!(error("-- nothing"), "there is no SQL statement to run");
}

/// Scenario: more rows than a chunk has, and more than a table holds.
/// Guarantees: all of them are there, in order; a table is begun anew.
#[test]
fn many_rows_come_in_order() {
    let numbers = run(OutputFormat::Csv, "SELECT i FROM range(100000) t(i)");
    assert!(
        numbers
            .lines()
            .skip(1)
            .map(|line| line.parse::<u32>().unwrap())
            .eq(0..100_000)
    );
    let tables = run(OutputFormat::Table, "SELECT i FROM range(25000) t(i)");
    assert_eq!(tables.matches("│ i ").count(), 3);
    assert_eq!(tables.matches("\n│ ").count(), 25_003 - 3 + 3);
}

/// Scenario: text that would steer a terminal.
/// Guarantees: it is shown as an escape; piped line breaks are kept.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    let text = run(
        OutputFormat::Table,
        "SELECT chr(27) || '[2J' || chr(9) || chr(7) || 'ü' AS x",
    );
    assert!(text.contains("\\u{1b}[2J\\t\\u{7}ü"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

/// Scenario: a terminal with room for the columns, though not for one long cell.
/// Guarantees: a line a row, no wider than the terminal, with a mark where a cell is cut.
#[test]
fn long_cells_are_cut_to_the_terminal() {
    let text = on_terminal(
        60,
        "SELECT 1 AS n, repeat('word ', 100) AS body, 'x' || chr(10) || 'y' AS lines",
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 60),
        "{text}"
    );
    assert!(text.contains("word word") && text.contains('…'), "{text}");
}

/// Scenario: a terminal too narrow for so many columns.
/// Guarantees: rows become records with every value in full.
#[test]
fn many_columns_become_records() {
    let columns: Vec<_> = (0..10)
        .map(|n| format!("repeat('{n}', 30) AS column_{n}"))
        .collect();
    let sql = format!(
        "SELECT {}, NULL AS nothing FROM range(2)",
        columns.join(", ")
    );
    let text = on_terminal(80, &sql);
    assert!(text.starts_with("── row 1 ──"), "{text}");
    assert!(text.contains("── row 2 ──"));
    assert!(
        text.contains(&format!("column_7  {}\n", "7".repeat(30))),
        "{text}"
    );
    assert!(text.contains("nothing   NULL\n"));
}

/// Scenario: what the tables' attribute columns are for, and Parquet files of the user's own.
/// Guarantees: JSON and Parquet functions are in the library that is linked.
#[test]
fn json_and_parquet_are_available() {
    assert_eq!(cell("'{\"x\": {\"y\": 5}}'->>'$.x.y'"), "5");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let sql = format!("COPY (SELECT 1 AS a) TO '{0}'; FROM '{0}'", file.display());
    assert_eq!(run(OutputFormat::Csv, &sql), "a\n1\n");
}
