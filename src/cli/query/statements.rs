//! Several statements in one text: told apart as DuckDB's lexer does it, so that each can show its rows.

use super::rows::QueryError;
use crate::cli::args::OutputFormat;

/// How statements begin that are there for their rows. Of others DuckDB's answer tells, once they have run.
const ROWS: [&str; 14] = [
    "(",
    "CALL",
    "DESC",
    "DESCRIBE",
    "EXPLAIN",
    "FROM",
    "PIVOT",
    "SELECT",
    "SHOW",
    "SUMMARIZE",
    "TABLE",
    "UNPIVOT",
    "VALUES",
    "WITH",
];

/// One statement of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its text, behind as many empty lines as there are before it: DuckDB's errors name lines.
    pub(super) text: String,
    /// Whether it is surely there for its rows.
    pub(super) gives_rows: bool,
}

/// The statements of a text, in order; none where there is nothing but white space and comments.
pub(super) fn split(sql: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(';') {
            parts.extend(part(sql, start, at));
            start = at + 1;
        }
        at += token_bytes(rest);
    }
    parts.extend(part(sql, start, sql.len()));
    parts
}

/// Refuses several statements with rows where the format has room for those of one.
///
/// # Errors
/// [`QueryError::OneResult`], before anything has run.
pub(super) fn check(parts: &[Part], format: OutputFormat) -> Result<(), QueryError> {
    let with_rows = parts.iter().filter(|part| part.gives_rows).count();
    if with_rows > 1 && !holds_several(format) {
        return Err(QueryError::OneResult);
    }
    Ok(())
}

/// Whether the rows of several statements can follow each other.
pub(super) fn holds_several(format: OutputFormat) -> bool {
    match format {
        OutputFormat::Table | OutputFormat::Ndjson => true,
        OutputFormat::Csv | OutputFormat::Json => false,
    }
}

fn part(sql: &str, start: usize, end: usize) -> Option<Part> {
    let text = sql.get(start..end)?;
    let word = first_word(text)?;
    let lines = sql.get(..start)?.matches('\n').count();
    Some(Part {
        text: format!("{}{text}", "\n".repeat(lines)),
        gives_rows: ROWS.iter().any(|known| word.eq_ignore_ascii_case(known)),
    })
}

/// The first token that is neither white space nor a comment.
fn first_word(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start();
        let token = text
            .get(..token_bytes(text))
            .filter(|token| !token.is_empty())?;
        if !token.starts_with("--") && !token.starts_with("/*") {
            return Some(token);
        }
        text = text.get(token.len()..)?;
    }
}

/// The length of what a text begins with: a comment, a quoted text, a word or a single character. What does not end goes
/// to the text's end.
fn token_bytes(text: &str) -> usize {
    let mut letters = text.chars();
    let (Some(first), second) = (letters.next(), letters.next()) else {
        return 0;
    };
    match (first, second) {
        ('-', Some('-')) => text.find('\n').unwrap_or(text.len()),
        ('/', Some('*')) => comment_bytes(text),
        ('e' | 'E', Some('\'')) => 1 + quoted_bytes(text.get(1..).unwrap_or_default(), '\'', true),
        ('\'' | '"', _) => quoted_bytes(text, first, false),
        ('$', _) => dollar_quoted_bytes(text),
        _ if is_word(first) => text.find(|c| !is_word(c) && c != '$').unwrap_or(text.len()),
        _ => first.len_utf8(),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// `/* ... */`, which may stand inside one another.
fn comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// A text in quotes: a doubled one stands for itself, and so does what follows a backslash where those escape.
fn quoted_bytes(text: &str, quote: char, has_escapes: bool) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = letters.next() {
        if has_escapes && c == '\\' {
            letters.next();
        } else if c == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// `$$ ... $$` or `$tag$ ... $tag$`; a `$` alone, as before a parameter, is one character.
fn dollar_quoted_bytes(text: &str) -> usize {
    let tag = text.get(1..).and_then(|rest| rest.split_once('$'));
    let tag = tag
        .map(|(tag, _)| tag)
        .filter(|tag| tag.chars().all(is_word) && !tag.starts_with(|c: char| c.is_ascii_digit()));
    let Some(tag) = tag else {
        return 1;
    };
    let delimiter = format!("${tag}$");
    let content = text.get(delimiter.len()..).unwrap_or_default();
    match content.find(&delimiter) {
        Some(end) => end + 2 * delimiter.len(),
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        let parts = split(sql).into_iter();
        parts.map(|part| part.text.trim().to_owned()).collect()
    }

    /// Scenario: semicolons between statements, and in every place where they are none; what does not end.
    /// Guarantees: only the former tell statements apart; empty ones are left out; nothing of a text is lost.
    #[test]
    fn semicolons_in_texts_and_comments_are_none() {
        for one in [
            "SELECT 'a;b'",
            "SELECT 'it''s; fine'",
            "SELECT \"a;\"\"b;\" FROM t",
            "SELECT E'\\';' || e'\\\\'",
            "SELECT $$a;b$$, $tag$ ; $$ ; $tag$, $ü$;$ü$",
            "SELECT 1 -- a; b\n + 1",
            "SELECT /* a; /* b; */ c; */ 1",
            "SELECT name'x;' FROM t",
            "SELECT 'never; ends",
            "SELECT $$never; ends",
            "SELECT 1 /* never; ends",
        ] {
            assert_eq!(texts(one), [one]);
            let two = texts(&format!("SELECT 0; {one}"));
            assert_eq!(two, ["SELECT 0", one]);
        }
        assert_eq!(
            texts("SELECT a$b$; SELECT $1; x$"),
            ["SELECT a$b$", "SELECT $1", "x$"]
        );
        assert_eq!(texts(";; SELECT 1; -- done\n; /* x */ ;"), ["SELECT 1"]);
        assert_eq!(
            texts("SELECT 'ü;'; SELECT '🦆'"),
            ["SELECT 'ü;'", "SELECT '🦆'"]
        );
        assert!(texts(" -- nothing; at all").is_empty());
    }

    /// Scenario: statements of both kinds, behind comments and in any letters; for each format.
    /// Guarantees: those that give rows are known; a format for one result refuses two, before they run.
    #[test]
    fn one_result_is_for_one_statement() {
        let gives = |sql: &str| {
            split(sql)
                .iter()
                .map(|part| part.gives_rows)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            gives("-- x\nselect 1; SET threads = 1; /**/ (FROM t); PRAGMA version"),
            [true, false, true, false]
        );
        for format in [OutputFormat::Csv, OutputFormat::Json] {
            assert!(check(&split("SET threads = 1; SELECT 1"), format).is_ok());
            let two = check(&split("SELECT 1; SELECT 2"), format);
            assert!(matches!(two, Err(QueryError::OneResult)));
        }
        for format in [OutputFormat::Table, OutputFormat::Ndjson] {
            assert!(check(&split("SELECT 1; SELECT 2"), format).is_ok());
        }
    }

    /// Scenario: a statement on the third line.
    /// Guarantees: it has as many lines before it, so that errors name its own.
    #[test]
    fn lines_keep_their_numbers() {
        let parts = split("SELECT 1;\n\nSELECT 2");
        assert_eq!(parts[1].text, "\n\nSELECT 2");
        let parts = split("SELECT 1;\nSELECT 2;\nSELECT 3");
        assert_eq!(parts[2].text, "\n\nSELECT 3");
    }
}
