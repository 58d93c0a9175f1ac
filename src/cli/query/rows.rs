//! Runs SQL and hands out its rows, a chunk at a time.

use duckdb::arrow::array::{Array as _, StructArray};
use duckdb::{Connection, Statement};

use super::value::{Kind, Unprintable};

/// Why a query did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// DuckDB's own words.
    #[error("{0}")]
    DuckDb(duckdb::Error),
    /// There was nothing to run.
    #[error("there is no SQL statement to run")]
    NoStatement,
    /// Several statements have rows, and the format has room for those of one.
    #[error(
        "CSV and JSON hold the rows of one statement, and more than one has some: take --format table or ndjson, or run them one by one"
    )]
    OneResult,
    /// A column of a type that loses something on its way here.
    #[error(
        "column {column} is of type {kind}, which otlake query cannot print: cast it, such as with ::VARCHAR"
    )]
    ColumnType {
        /// The column's name.
        column: String,
        /// DuckDB's name of the type.
        kind: &'static str,
    },
    /// A value of a type that nobody expected.
    #[error(transparent)]
    Value(#[from] Unprintable),
    /// The rows could not be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
}

impl From<duckdb::Error> for QueryError {
    fn from(error: duckdb::Error) -> QueryError {
        match error {
            // What the duckdb crate makes of nothing but white space and comments.
            duckdb::Error::DuckDBFailure(_, None) => QueryError::NoStatement,
            error => QueryError::DuckDb(error),
        }
    }
}

/// A column of a result.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) is_number: bool,
}

/// The rows of one statement as they come: nothing is held but the chunk in hand.
pub(super) struct Rows<'c> {
    statement: Statement<'c>,
    columns: Vec<Column>,
}

impl<'c> Rows<'c> {
    /// Runs a statement. Of several the rows are the last one's.
    ///
    /// # Errors
    /// [`QueryError`] with DuckDB's words, or the column that cannot be printed.
    pub(super) fn open(connection: &'c Connection, sql: &str) -> Result<Rows<'c>, QueryError> {
        let mut statement = connection.prepare(sql)?;
        let schema = match statement.stream_arrow([]) {
            Ok(stream) => stream.get_schema(),
            Err(error) => return Err(first_cause(&mut statement, error)),
        };
        let columns = schema.fields().iter().enumerate().map(|(index, field)| {
            let name = field.name().clone();
            match Kind::of(&statement.column_logical_type(index)) {
                Ok(kind) => Ok(Column {
                    name,
                    kind,
                    is_number: field.data_type().is_numeric(),
                }),
                Err(kind) => Err(QueryError::ColumnType { column: name, kind }),
            }
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Rows { statement, columns })
    }

    /// The columns in order.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether this looks like the answer of a statement that has no rows to give, such as SET or CREATE.
    pub(super) fn is_acknowledgement(&self) -> bool {
        matches!(self.columns.as_slice(), [column] if column.name == "Success" || column.name == "Count")
    }

    /// The next rows, at least one; `None` after the last.
    ///
    /// # Errors
    /// What goes wrong while DuckDB makes the rows.
    pub(super) fn next_chunk(&mut self) -> Result<Option<StructArray>, QueryError> {
        match self.statement.step() {
            Ok(chunk) => Ok(chunk.filter(|chunk| !chunk.is_empty())),
            Err(error) => Err(first_cause(&mut self.statement, error)),
        }
    }
}

/// What really went wrong.
///
/// While rows stream, the thread of DuckDB that fails interrupts the others, and whose error is reported is a matter of
/// luck. Nobody else interrupts here. So an interruption is looked into by running the statement again, not streaming:
/// then the first error is kept.
fn first_cause(statement: &mut Statement<'_>, error: duckdb::Error) -> QueryError {
    if !error.to_string().starts_with("INTERRUPT") {
        return error.into();
    }
    match statement.execute([]) {
        Err(cause) => cause.into(),
        Ok(_) => error.into(),
    }
}
