//! The functions as DuckDB sees them: `otlp_server_list`, `otlp_seal_list`, `otlp_flush`, `otlp_stop`, `otlp_uri_parser`.
//!
//! DuckDB's C interface takes one table function of a name, with all of its arguments. So `otlp_stop`, which may have none,
//! is a macro over `otlake_stop`; and `otlp_uri_parser`, a scalar function with duckdb-otlp, is one here and a table
//! function as well.

use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duckdb::Connection;
use duckdb::arrow::array::{
    Array, ArrayRef, AsArray as _, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray,
    UInt16Array, UInt64Array,
};
use duckdb::arrow::datatypes::{DataType, Field, Fields, Schema};
use duckdb::core::{DataChunkHandle, LogicalTypeHandle, LogicalTypeId};
use duckdb::vscalar::{ArrowFunctionSignature, VArrowScalar};
use duckdb::vtab::{
    BindInfo, InitInfo, TableFunctionInfo, VTab, record_batch_to_duckdb_data_chunk,
    to_duckdb_logical_type,
};

use super::control::Control;
use super::lists::{self, Cell, Kind, SEAL_COLUMNS, SERVER_COLUMNS};
use super::uri::ListenUri;
use crate::seal::ledger::RECENT_SEALS_MAX;

/// The rows that DuckDB takes at once: all that a function here has.
const CHUNK_ROWS_MAX: usize = 2048;
const _: () = assert!(RECENT_SEALS_MAX <= CHUNK_ROWS_MAX);

/// Registers the functions.
///
/// # Errors
/// What DuckDB says.
pub fn register(connection: &Connection, control: &Arc<Control>) -> duckdb::Result<()> {
    connection.register_table_function_with_extra_info::<Served<ServerList>, _>(
        "otlp_server_list",
        control,
    )?;
    connection.register_table_function_with_extra_info::<Served<SealList>, _>(
        "otlp_seal_list",
        control,
    )?;
    connection
        .register_table_function_with_extra_info::<Served<Flush>, _>("otlp_flush", control)?;
    connection
        .register_table_function_with_extra_info::<Served<Stop>, _>("otlake_stop", control)?;
    connection
        .register_table_function_with_extra_info::<Served<Parse>, _>("otlp_uri_parser", control)?;
    connection.register_scalar_function::<ParseScalar>("otlp_uri_parser")?;
    connection.execute_batch(
        "CREATE MACRO otlp_stop(uri) AS TABLE (FROM otlake_stop(uri)), () AS TABLE (FROM otlake_stop(NULL::VARCHAR))",
    )
}

/// One of the functions.
trait Function: 'static {
    const COLUMNS: &'static [(&'static str, Kind)];
    const TAKES_URI: bool;
    /// Without a URI it means every server.
    const URI_MAY_BE_NULL: bool = false;

    /// Does what it does, once a query. `uri` is there where it takes one.
    fn rows(control: &Control, uri: Option<&ListenUri>) -> Vec<Vec<Cell>>;
}

struct ServerList;

impl Function for ServerList {
    const COLUMNS: &'static [(&'static str, Kind)] = &SERVER_COLUMNS;
    const TAKES_URI: bool = false;

    fn rows(control: &Control, _: Option<&ListenUri>) -> Vec<Vec<Cell>> {
        lists::servers(control)
    }
}

struct SealList;

impl Function for SealList {
    const COLUMNS: &'static [(&'static str, Kind)] = &SEAL_COLUMNS;
    const TAKES_URI: bool = false;

    fn rows(control: &Control, _: Option<&ListenUri>) -> Vec<Vec<Cell>> {
        lists::seals(control)
    }
}

struct Flush;

impl Function for Flush {
    const COLUMNS: &'static [(&'static str, Kind)] = &[
        ("status", Kind::Text),
        ("sealed_rows", Kind::Count),
        ("seals_total", Kind::Count),
        ("error", Kind::Text),
    ];
    const TAKES_URI: bool = true;

    fn rows(control: &Control, uri: Option<&ListenUri>) -> Vec<Vec<Cell>> {
        let flushed = uri.map(|uri| control.flush(uri));
        let row = flushed.map(|flushed| {
            vec![
                Cell::Text(flushed.status),
                Cell::Count(flushed.rows),
                Cell::Count(flushed.seals_total),
                flushed.error.map_or(Cell::Null, Cell::Text),
            ]
        });
        row.into_iter().collect()
    }
}

struct Stop;

impl Function for Stop {
    const COLUMNS: &'static [(&'static str, Kind)] =
        &[("status", Kind::Text), ("dropped_rows", Kind::Count)];
    const TAKES_URI: bool = true;
    const URI_MAY_BE_NULL: bool = true;

    fn rows(control: &Control, uri: Option<&ListenUri>) -> Vec<Vec<Cell>> {
        let stopped = control.stop(uri);
        vec![vec![
            Cell::Text(stopped.status),
            Cell::Count(stopped.dropped_rows),
        ]]
    }
}

struct Parse;

const URI_COLUMNS: [(&str, Kind); 4] = [
    ("host", Kind::Text),
    ("port", Kind::Port),
    ("ipv6", Kind::Flag),
    ("url", Kind::Text),
];

fn uri_cells(uri: &ListenUri) -> Vec<Cell> {
    vec![
        Cell::Text(uri.host.clone()),
        Cell::Port(uri.port),
        Cell::Flag(uri.is_ipv6),
        Cell::Text(uri.url(false)),
    ]
}

impl Function for Parse {
    const COLUMNS: &'static [(&'static str, Kind)] = &URI_COLUMNS;
    const TAKES_URI: bool = true;

    fn rows(_: &Control, uri: Option<&ListenUri>) -> Vec<Vec<Cell>> {
        uri.map(uri_cells).into_iter().collect()
    }
}

/// A function as a table function of DuckDB's.
struct Served<F>(PhantomData<F>);

/// One run of it.
struct Run {
    control: Arc<Control>,
    is_done: AtomicBool,
}

impl<F: Function> VTab for Served<F> {
    type BindData = Option<ListenUri>;
    type InitData = Run;

    fn bind(bind: &BindInfo) -> Result<Option<ListenUri>, Box<dyn Error>> {
        for (name, kind) in F::COLUMNS {
            bind.add_result_column(name, to_duckdb_logical_type(&kind.data_type())?);
        }
        if !F::TAKES_URI {
            return Ok(None);
        }
        let given = bind.get_parameter(0);
        if given.is_null() {
            return match F::URI_MAY_BE_NULL {
                true => Ok(None),
                false => Err("Invalid OTLP listen URI specified: it is NULL".into()),
            };
        }
        Ok(Some(ListenUri::parse(&given.to_string())?))
    }

    fn init(init: &InitInfo) -> Result<Run, Box<dyn Error>> {
        let control: *const Arc<Control> = init.get_extra_info();
        // SAFETY: every function here is registered by `register`, with an `Arc<Control>` for its extra information, which
        // DuckDB keeps, unmoved and unchanged, for as long as the function can be called.
        #[allow(unsafe_code)]
        let control = unsafe { control.as_ref() };
        let control = Arc::clone(control.ok_or("the function was registered without its server")?);
        Ok(Run {
            control,
            is_done: AtomicBool::new(false),
        })
    }

    fn func(
        run: &TableFunctionInfo<Self>,
        output: &mut DataChunkHandle,
    ) -> Result<(), Box<dyn Error>> {
        let Run { control, is_done } = run.get_init_data();
        // DuckDB asks until there are no more rows, and what this does is done once.
        if is_done.swap(true, Ordering::Relaxed) {
            output.set_len(0);
            return Ok(());
        }
        let rows = F::rows(control, run.get_bind_data().as_ref());
        if rows.is_empty() {
            output.set_len(0);
            return Ok(());
        }
        record_batch_to_duckdb_data_chunk(&batch(F::COLUMNS, &rows)?, output)
    }

    fn parameters() -> Option<Vec<LogicalTypeHandle>> {
        F::TAKES_URI.then(|| vec![LogicalTypeHandle::from(LogicalTypeId::Varchar)])
    }
}

/// `otlp_uri_parser` as a scalar function, which makes a STRUCT.
struct ParseScalar;

impl VArrowScalar for ParseScalar {
    type State = ();

    fn invoke((): &(), input: RecordBatch) -> Result<Arc<dyn Array>, Box<dyn Error>> {
        let texts = input.column(0).as_string::<i32>();
        let parsed = texts.iter().map(|text| {
            let text = text.ok_or("Invalid OTLP listen URI specified: it is NULL")?;
            Ok(uri_cells(&ListenUri::parse(text)?))
        });
        let rows = parsed.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let batch = batch(&URI_COLUMNS, &rows)?;
        Ok(Arc::new(StructArray::from(batch)))
    }

    fn signatures() -> Vec<ArrowFunctionSignature> {
        let result = DataType::Struct(fields(&URI_COLUMNS));
        vec![ArrowFunctionSignature::exact(vec![DataType::Utf8], result)]
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Text => DataType::Utf8,
            Kind::Count => DataType::UInt64,
            Kind::Number => DataType::Int64,
            Kind::Port => DataType::UInt16,
            Kind::Flag => DataType::Boolean,
        }
    }

    /// A column of cells; one that is not of this kind is NULL.
    fn array<'c>(self, cells: impl Iterator<Item = Option<&'c Cell>>) -> ArrayRef {
        match self {
            Kind::Text => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
                Some(Cell::Text(text)) => Some(text.as_str()),
                _ => None,
            }))),
            Kind::Count => Arc::new(UInt64Array::from_iter(cells.map(|cell| match cell {
                Some(Cell::Count(count)) => Some(*count),
                _ => None,
            }))),
            Kind::Number => Arc::new(Int64Array::from_iter(cells.map(|cell| match cell {
                Some(Cell::Number(number)) => Some(*number),
                _ => None,
            }))),
            Kind::Port => Arc::new(UInt16Array::from_iter(cells.map(|cell| match cell {
                Some(Cell::Port(port)) => Some(*port),
                _ => None,
            }))),
            Kind::Flag => Arc::new(BooleanArray::from_iter(cells.map(|cell| match cell {
                Some(Cell::Flag(flag)) => Some(*flag),
                _ => None,
            }))),
        }
    }
}

fn fields(columns: &[(&str, Kind)]) -> Fields {
    let field = |(name, kind): &(&str, Kind)| Field::new(*name, kind.data_type(), true);
    columns.iter().map(field).collect()
}

fn batch(columns: &[(&str, Kind)], rows: &[Vec<Cell>]) -> Result<RecordBatch, Box<dyn Error>> {
    let arrays = columns.iter().enumerate();
    let arrays = arrays.map(|(place, (_, kind))| kind.array(rows.iter().map(|row| row.get(place))));
    let schema = Arc::new(Schema::new(fields(columns)));
    Ok(RecordBatch::try_new(schema, arrays.collect())?)
}
