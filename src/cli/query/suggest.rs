//! What was meant where a name is not known: DuckDB suggests names of its own insides, and what is far from the name too.

use crate::config::Suggestion;
use crate::signal::Table;

/// The table of commits, beside those of telemetry.
const SEALS: &str = "otlake_seals";

/// What the names of tables begin with, which is left out easily.
const PREFIXES: [&str; 3] = ["", "otlp_", "otlp_metrics_"];

/// What DuckDB's line begins with.
const SUGGESTS: &str = "Did you mean \"";

/// How names of DuckDB's insides begin.
const INSIDES: [&str; 7] = [
    "__",
    "duckdb_",
    "ducklake_",
    "pg_",
    "pragma_",
    "sqlite_",
    "test_",
];

/// Functions of the server's own DuckDB, with what does the same here.
const SERVED: [(&str, &str); 5] = [
    (
        "otlp_flush",
        "`otlake flush`, which a query here does by itself",
    ),
    ("otlp_stop", "`otlake stop`"),
    ("otlp_server_list", "`otlake status`"),
    ("otlp_seal_list", "`otlake seals`"),
    ("otlp_uri_parser", "nothing"),
];

/// DuckDB's error with what the lake has in place of what DuckDB suggests; others as they are.
pub(super) fn mend(error: &str) -> String {
    let Some(better) = better(error) else {
        return error.to_owned();
    };
    let mut lines: Vec<&str> = error.lines().collect();
    lines.retain(|line| !line.starts_with(SUGGESTS));
    if let Some(better) = &better {
        lines.insert(1.min(lines.len()), better);
    }
    lines.join("\n")
}

/// A line for what was meant; `None` where the error is of another kind, `Some(None)` where nothing is near.
fn better(error: &str) -> Option<Option<String>> {
    let (kind, rest) = error
        .strip_prefix("Catalog Error: ")?
        .split_once(" with name ")?;
    let (name, _) = rest.split_once(" does not exist!")?;
    let name = name.to_ascii_lowercase();
    if kind == "Table" {
        let tables = || Table::ALL.map(Table::name).into_iter().chain([SEALS]);
        return Some(Some(match table(&name, tables()) {
            Some(table) => format!("Did you mean \"{table}\"?"),
            None => format!("The lake has {}.", tables().collect::<Vec<_>>().join(", ")),
        }));
    }
    let served = Suggestion::nearest(&name, SERVED.map(|(function, _)| function));
    if let Some((function, instead)) = SERVED
        .iter()
        .find(|(known, _)| served.0.as_deref() == Some(known))
    {
        return Some(Some(format!(
            "\"{function}\" is for queries over quack (otlake serve --quack-listen); here there is {instead}."
        )));
    }
    let mut lines = error.lines();
    let theirs = lines.find_map(|line| line.strip_prefix(SUGGESTS)?.split('"').next());
    let near = theirs.filter(|theirs| {
        let is_inside = INSIDES.iter().any(|inside| theirs.starts_with(inside));
        !is_inside && Suggestion::nearest(&name, [*theirs]).0.is_some()
    });
    Some(near.map(|near| format!("Did you mean \"{near}\"?")))
}

/// The table that is nearest, with and without the beginning of its name.
fn table(name: &str, tables: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let tables: Vec<&str> = tables.collect();
    PREFIXES.iter().find_map(|prefix| {
        let known = tables.iter().filter_map(|table| table.strip_prefix(prefix));
        let near = Suggestion::nearest(name, known).0?;
        let full = format!("{prefix}{near}");
        tables.iter().find(|table| **table == full).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: names of tables with a letter wrong and without their beginning; of functions of DuckDB's and of otlake's server;
    /// and errors of other kinds.
    /// Guarantees: only what the lake has, or what is near and none of DuckDB's insides, is suggested; the rest of the error stays.
    #[test]
    fn what_the_lake_has_is_suggested() {
        let error = |kind: &str, name: &str, theirs: &str| {
            format!(
                "Catalog Error: {kind} with name {name} does not exist!\nDid you mean \"{theirs}\"?\n\nLINE 1: FROM {name}"
            )
        };
        for (kind, name, theirs, line) in [
            (
                "Table",
                "otlp_log",
                "otlp_logs",
                "Did you mean \"otlp_logs\"?",
            ),
            ("Table", "lgs", "pg_sequence", "Did you mean \"otlp_logs\"?"),
            (
                "Table",
                "Traces",
                "pg_type",
                "Did you mean \"otlp_traces\"?",
            ),
            (
                "Table",
                "gauge",
                "pg_constraint",
                "Did you mean \"otlp_metrics_gauge\"?",
            ),
            (
                "Table",
                "seals",
                "pg_am",
                "The lake has otlp_logs, otlp_traces, ",
            ),
            (
                "Table Function",
                "otlp_flush",
                "pragma_show",
                "\"otlp_flush\" is for queries over quack",
            ),
            (
                "Scalar Function",
                "otlp_flsh",
                "unpivot_list",
                "\"otlp_flush\" is for queries over quack",
            ),
            ("Table Function", "all_types", "test_all_types", ""),
            ("Scalar Function", "cnt", "century", ""),
            (
                "Scalar Function",
                "lenght",
                "length",
                "Did you mean \"length\"?",
            ),
        ] {
            let mended = mend(&error(kind, name, theirs));
            let lines: Vec<&str> = mended.lines().collect();
            assert_eq!(
                lines[0],
                format!("Catalog Error: {kind} with name {name} does not exist!")
            );
            assert!(lines[1].starts_with(line), "{mended}");
            assert_eq!(lines[1].is_empty(), line.is_empty(), "{mended}");
            assert_eq!(lines.last().unwrap(), &format!("LINE 1: FROM {name}"));
        }
        for other in [
            "Parser Error: syntax error at or near \"x\"\n\nLINE 1: x",
            "",
            "Catalog Error: no",
        ] {
            assert_eq!(mend(other), other);
        }
    }
}
