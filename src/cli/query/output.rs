//! The formats of `otlake query` that are for programs. Each writes the rows as they come.

use std::io::Write;

use duckdb::arrow::array::{Array as _, StructArray};

use super::rows::{Column, QueryError, Rows};
use super::value::{write_json, write_quoted, write_text};

/// One JSON array of objects, an object a line.
pub(super) fn json(rows: &mut Rows<'_>, out: &mut impl Write) -> Result<(), QueryError> {
    let keys = keys(rows.columns());
    let mut separator = "[\n";
    while let Some(chunk) = rows.next_chunk()? {
        for row in 0..chunk.len() {
            let mut line = String::from(separator);
            write_object(rows.columns(), &keys, &chunk, row, &mut line)?;
            out.write_all(line.as_bytes())?;
            separator = ",\n";
        }
    }
    let end = if separator == "[\n" { "[]\n" } else { "\n]\n" };
    Ok(out.write_all(end.as_bytes())?)
}

/// One JSON object a line.
pub(super) fn ndjson(rows: &mut Rows<'_>, out: &mut impl Write) -> Result<(), QueryError> {
    let keys = keys(rows.columns());
    let mut line = String::new();
    while let Some(chunk) = rows.next_chunk()? {
        for row in 0..chunk.len() {
            line.clear();
            write_object(rows.columns(), &keys, &chunk, row, &mut line)?;
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
    }
    Ok(())
}

/// A header and a line a row (RFC 4180, but lines end with `\n`). NULL is an empty field.
pub(super) fn csv(rows: &mut Rows<'_>, out: &mut impl Write) -> Result<(), QueryError> {
    let mut writer = csv::Writer::from_writer(out);
    writer
        .write_record(rows.columns().iter().map(|column| &column.name))
        .map_err(std::io::Error::from)?;
    let mut cell = String::new();
    while let Some(chunk) = rows.next_chunk()? {
        for row in 0..chunk.len() {
            for (column, array) in rows.columns().iter().zip(chunk.columns()) {
                cell.clear();
                write_text(&column.kind, array, row, &mut cell)?;
                writer.write_field(&cell).map_err(std::io::Error::from)?;
            }
            writer
                .write_record(None::<&[u8]>)
                .map_err(std::io::Error::from)?;
        }
        writer.flush()?;
    }
    Ok(writer.flush()?)
}

fn write_object(
    columns: &[Column],
    keys: &[String],
    chunk: &StructArray,
    row: usize,
    out: &mut String,
) -> Result<(), QueryError> {
    out.push('{');
    for (index, (column, key)) in columns.iter().zip(keys).enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(key);
        write_json(&column.kind, chunk.column(index), row, out)?;
    }
    out.push('}');
    Ok(())
}

/// `"name": ` of each column. A name that comes again gets a number, as DuckDB does it for a subquery: `a`, `a_1`.
fn keys(columns: &[Column]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.name.clone();
        let mut number = 1;
        while names.contains(&name) {
            name = format!("{}_{number}", column.name);
            number += 1;
        }
        names.push(name);
    }
    let quote = |name: &String| {
        let mut key = String::new();
        write_quoted(name, &mut key);
        key.push_str(": ");
        key
    };
    names.iter().map(quote).collect()
}
