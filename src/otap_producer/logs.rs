//! Log records: LOGS and LOG_ATTRS.

use arrow::datatypes::{DataType, TimeUnit};

use super::attributes::{AttributeTable, Attributes};
use super::column::Column;
use super::ids::IdColumn;
use super::options::Options;
use super::origins::{OriginColumns, Origins};
use super::stream::{Presence, Session, Stream, group};
use super::values::ValueColumns;
use super::{Built, ProduceError, check_parents};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::collector::logs::v1::ExportLogsServiceRequest;
use crate::proto::logs::v1::LogRecord;

/// The tables of a stream of logs.
pub(super) struct LogTables {
    stream: Stream,
    id: IdColumn,
    origins: OriginColumns,
    time: Column,
    observed_time: Column,
    trace_id: Column,
    span_id: Column,
    severity_number: Column,
    severity_text: Column,
    has_body: Presence,
    body: ValueColumns,
    dropped: Column,
    flags: Column,
    event_name: Column,
    attributes: AttributeTable,
}

impl LogTables {
    pub(super) fn new(options: &Options) -> LogTables {
        let timestamp = |name| Column::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None));
        let dictionary = |name, data_type| Column::new(name, data_type).dictionary(options);
        LogTables {
            stream: Stream::new(ArrowPayloadType::Logs),
            id: IdColumn::delta("id", DataType::UInt16, options),
            origins: OriginColumns::new(options),
            time: timestamp("time_unix_nano"),
            observed_time: timestamp("observed_time_unix_nano"),
            trace_id: dictionary("trace_id", DataType::FixedSizeBinary(16)),
            span_id: dictionary("span_id", DataType::FixedSizeBinary(8)),
            severity_number: dictionary("severity_number", DataType::Int32),
            severity_text: dictionary("severity_text", DataType::Utf8),
            has_body: Presence::new(),
            body: ValueColumns::new(options),
            dropped: Column::new("dropped_attributes_count", DataType::UInt32),
            flags: Column::new("flags", DataType::UInt32),
            event_name: dictionary("event_name", DataType::Utf8),
            attributes: AttributeTable::narrow(ArrowPayloadType::LogAttrs, options),
        }
    }

    /// Adds the tables of a request to the session's batch.
    pub(super) fn write(
        &mut self,
        request: &ExportLogsServiceRequest,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        check(request)?;
        let mut origins = Origins::default();
        let mut attributes = Attributes::default();
        let (mut row, mut next_id) = (0, 0);
        for of_resource in &request.resource_logs {
            let resource = self.origins.resource(
                &mut origins,
                of_resource.resource.as_ref(),
                &of_resource.schema_url,
            );
            for of_scope in &of_resource.scope_logs {
                let scope =
                    self.origins
                        .scope(&mut origins, of_scope.scope.as_ref(), &of_scope.schema_url);
                for record in &of_scope.log_records {
                    self.origins.set(row, &resource, &scope);
                    if !record.attributes.is_empty() {
                        self.id.set(row, next_id, true);
                        self.attributes
                            .add(&mut attributes, next_id, &record.attributes);
                        next_id += 1;
                    }
                    self.set(row, record, &session.options);
                    row += 1;
                }
            }
        }
        let columns = self.finish(row, &session.options)?;
        self.stream.write(columns, row, session)?;
        self.origins.finish_attributes(&origins, session)?;
        self.attributes.finish(&attributes, session)
    }

    fn set(&mut self, row: usize, record: &LogRecord, options: &Options) {
        self.time.set_nonzero(row, record.time_unix_nano);
        self.observed_time
            .set_nonzero(row, record.observed_time_unix_nano);
        self.trace_id.set_id(row, &record.trace_id, options);
        self.span_id.set_id(row, &record.span_id, options);
        self.severity_number
            .set_nonzero(row, record.severity_number.cast_unsigned().into());
        self.severity_text.set_text(row, &record.severity_text);
        if let Some(body) = &record.body {
            self.has_body.set(row);
            let cell = self.body.cell(Some(body));
            self.body.set(row, cell);
        }
        self.dropped
            .set_nonzero(row, record.dropped_attributes_count.into());
        self.flags.set_nonzero(row, record.flags.into());
        self.event_name.set_text(row, &record.event_name);
    }

    fn finish(&mut self, rows: usize, options: &Options) -> Result<[Built; 14], ProduceError> {
        let body = if self.has_body.is_needed(options) {
            let nulls = self.has_body.finish(rows);
            group("body", self.body.finish(rows, options)?, nulls)?
        } else {
            None
        };
        let [resource, scope, schema_url] = self.origins.finish(rows, options)?;
        Ok([
            self.id.finish(rows, options)?,
            resource,
            scope,
            schema_url,
            self.time.finish(rows, options)?,
            self.observed_time.finish(rows, options)?,
            self.trace_id.finish(rows, options)?,
            self.span_id.finish(rows, options)?,
            self.severity_number.finish(rows, options)?,
            self.severity_text.finish(rows, options)?,
            body,
            self.dropped.finish(rows, options)?,
            self.flags.finish(rows, options)?,
            self.event_name.finish(rows, options)?,
        ])
    }
}

fn check(request: &ExportLogsServiceRequest) -> Result<(), ProduceError> {
    let resources = &request.resource_logs;
    let scopes = || resources.iter().flat_map(|resource| &resource.scope_logs);
    let records = scopes().flat_map(|scope| &scope.log_records);
    let parents = records.filter(|record| !record.attributes.is_empty());
    check_parents("resources", resources.len())?;
    check_parents("scopes", scopes().count())?;
    check_parents("log records", parents.count())
}
