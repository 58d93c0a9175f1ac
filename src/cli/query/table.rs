//! Rows for people: a table, or below each other where the terminal is too narrow for one.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};
use duckdb::arrow::array::Array as _;

use super::rows::{Column, QueryError, Rows};
use super::value::write_text;

/// Rows in one table. More become several tables, because the widths of a table's columns need all its rows at hand.
const TABLE_ROWS_MAX: usize = 10_000;

/// A column narrower than this shows too little: then rows are printed as records, unless all its cells are that short.
const COLUMN_WIDTH_MIN: usize = 12;

/// Characters of a cell that are looked at when it is cut to fit a terminal, which has fewer.
const CELL_CHARS_MAX: usize = 1000;

/// Prints all rows and says how many there were. `width` is the terminal's; `None` prints cells in full.
pub(super) fn table(
    rows: &mut Rows<'_>,
    out: &mut impl Write,
    width: Option<u16>,
) -> Result<usize, QueryError> {
    let mut count = 0;
    loop {
        let cells = take_cells(rows)?;
        // A header without rows is an answer too, but not behind other tables, and not one to SET.
        if cells.is_empty() && (count > 0 || rows.is_acknowledgement()) {
            return Ok(count);
        }
        count += cells.len();
        match width {
            Some(width) if !fits(rows.columns(), &cells, width) => {
                write_records(rows.columns(), &cells, count - cells.len(), width, out)?;
            }
            _ => writeln!(out, "{}", build(rows.columns(), &cells, width))?,
        }
        out.flush()?;
        if cells.len() < TABLE_ROWS_MAX {
            return Ok(count);
        }
    }
}

type Cells = Vec<Vec<Option<String>>>;

/// The text of the next rows: [`TABLE_ROWS_MAX`] and what is left of a chunk, or fewer at the end.
fn take_cells(rows: &mut Rows<'_>) -> Result<Cells, QueryError> {
    let mut cells = Cells::new();
    while cells.len() < TABLE_ROWS_MAX {
        let Some(chunk) = rows.next_chunk()? else {
            break;
        };
        for row in 0..chunk.len() {
            let columns = rows.columns().iter().zip(chunk.columns());
            let line = columns.map(|(column, array)| {
                let mut text = String::new();
                let has_value = write_text(&column.kind, array, row, &mut text)?;
                Ok(has_value.then(|| printable(&text)))
            });
            cells.push(line.collect::<Result<_, QueryError>>()?);
        }
    }
    Ok(cells)
}

/// Telemetry is written by strangers: what would steer the terminal is shown as an escape instead.
fn printable(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

fn shown(cell: Option<&String>) -> &str {
    cell.map_or("NULL", String::as_str)
}

/// Whether every column gets what it needs, or [`COLUMN_WIDTH_MIN`] at least.
fn fits(columns: &[Column], cells: &Cells, width: u16) -> bool {
    let needed = |(index, column): (usize, &Column)| {
        let texts = cells.iter().filter_map(|row| row.get(index));
        let longest = texts
            .map(|cell| shown(cell.as_ref()).chars().take(COLUMN_WIDTH_MIN).count())
            .max()
            .unwrap_or(0);
        longest.max(column.name.chars().count().min(COLUMN_WIDTH_MIN))
    };
    let content: usize = columns.iter().enumerate().map(needed).sum();
    let frame = columns.len() * 3 + 1; // A line and two blanks a column.
    content + frame <= usize::from(width)
}

fn build(columns: &[Column], cells: &Cells, width: Option<u16>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        // A character that no cell has, so that long cells are cut where the column ends and not at a word.
        .set_delimiter('\u{1f}')
        .set_truncation_indicator("…");
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.set_header(
        columns
            .iter()
            .map(|column| Cell::new(printable(&column.name))),
    );
    for row in cells {
        let line = columns.iter().zip(row).map(|(column, cell)| {
            let text = shown(cell.as_ref());
            let cell = match width {
                Some(_) => Cell::new(text.chars().take(CELL_CHARS_MAX).collect::<String>()),
                None => Cell::new(text),
            };
            cell.set_alignment(if column.is_number {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            })
        });
        let mut line = Row::from(line.collect::<Vec<_>>());
        if width.is_some() {
            line.max_height(1);
        }
        table.add_row(line);
    }
    table
}

/// A row is a block of lines, each with a column's name and its value in full.
fn write_records(
    columns: &[Column],
    cells: &Cells,
    rows_before: usize,
    width: u16,
    out: &mut impl Write,
) -> Result<(), QueryError> {
    let names: Vec<String> = columns
        .iter()
        .map(|column| printable(&column.name))
        .collect();
    let name_width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    for (index, row) in cells.iter().enumerate() {
        let title = format!("── row {} ", rows_before + index + 1);
        writeln!(out, "{title:─<0$}", usize::from(width))?;
        for (name, cell) in names.iter().zip(row) {
            let mut head = name.as_str();
            for line in shown(cell.as_ref()).split('\n') {
                writeln!(out, "{head:name_width$}  {line}")?;
                head = "";
            }
        }
    }
    Ok(())
}
