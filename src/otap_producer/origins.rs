//! Where records come from: the columns of resource and scope in every root table, and the attributes of both.

use arrow::datatypes::DataType;

use super::attributes::{AttributeTable, Attributes};
use super::column::{Cell, Column};
use super::ids::IdColumn;
use super::options::Options;
use super::stream::{Session, group};
use super::{Built, ProduceError};
use crate::proto::arrow::ArrowPayloadType;
use crate::proto::common::v1::InstrumentationScope;
use crate::proto::resource::v1::Resource;

/// The columns of resource and scope, and the tables of their attributes.
pub(super) struct OriginColumns {
    resource_id: IdColumn,
    resource_schema_url: Column,
    resource_dropped: Column,
    scope_id: IdColumn,
    scope_name: Column,
    scope_version: Column,
    scope_dropped: Column,
    schema_url: Column,
    resource_attributes: AttributeTable,
    scope_attributes: AttributeTable,
}

/// The resources and scopes of a batch so far.
#[derive(Debug, Default)]
pub(super) struct Origins<'a> {
    resources: u32,
    scopes: u32,
    resource_attributes: Attributes<'a>,
    scope_attributes: Attributes<'a>,
}

/// A resource, to be written into the rows of its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResourceCells<'a> {
    id: u32,
    schema_url: Option<Cell<'a>>,
    dropped: u32,
}

/// A scope, to be written into the rows of its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScopeCells<'a> {
    id: u32,
    name: Option<Cell<'a>>,
    version: Option<Cell<'a>>,
    dropped: u32,
    schema_url: Option<Cell<'a>>,
}

impl OriginColumns {
    pub(super) fn new(options: &Options) -> OriginColumns {
        let text = |name| Column::new(name, DataType::Utf8).dictionary(options);
        let dropped = || Column::new("dropped_attributes_count", DataType::UInt32);
        OriginColumns {
            resource_id: IdColumn::delta("id", DataType::UInt16, options),
            resource_schema_url: text("schema_url"),
            resource_dropped: dropped(),
            scope_id: IdColumn::delta("id", DataType::UInt16, options),
            scope_name: text("name"),
            scope_version: text("version"),
            scope_dropped: dropped(),
            schema_url: text("schema_url"),
            resource_attributes: AttributeTable::narrow(ArrowPayloadType::ResourceAttrs, options),
            scope_attributes: AttributeTable::narrow(ArrowPayloadType::ScopeAttrs, options),
        }
    }

    /// Takes the next resource.
    pub(super) fn resource<'a>(
        &mut self,
        origins: &mut Origins<'a>,
        resource: Option<&'a Resource>,
        schema_url: &'a str,
    ) -> ResourceCells<'a> {
        let id = origins.resources;
        origins.resources += 1;
        if let Some(resource) = resource {
            self.resource_attributes.add(
                &mut origins.resource_attributes,
                id,
                &resource.attributes,
            );
        }
        ResourceCells {
            id,
            schema_url: self.resource_schema_url.text(schema_url),
            dropped: resource.map_or(0, |resource| resource.dropped_attributes_count),
        }
    }

    /// Takes the next scope.
    pub(super) fn scope<'a>(
        &mut self,
        origins: &mut Origins<'a>,
        scope: Option<&'a InstrumentationScope>,
        schema_url: &'a str,
    ) -> ScopeCells<'a> {
        let id = origins.scopes;
        origins.scopes += 1;
        if let Some(scope) = scope {
            let attributes = &mut origins.scope_attributes;
            self.scope_attributes.add(attributes, id, &scope.attributes);
        }
        ScopeCells {
            id,
            name: scope.and_then(|scope| self.scope_name.text(&scope.name)),
            version: scope.and_then(|scope| self.scope_version.text(&scope.version)),
            dropped: scope.map_or(0, |scope| scope.dropped_attributes_count),
            schema_url: self.schema_url.text(schema_url),
        }
    }

    /// Sets a record's row.
    pub(super) fn set(&mut self, row: usize, resource: &ResourceCells<'_>, scope: &ScopeCells<'_>) {
        self.resource_id.set(row, resource.id, true);
        self.resource_dropped
            .set_nonzero(row, resource.dropped.into());
        self.scope_id.set(row, scope.id, true);
        self.scope_dropped.set_nonzero(row, scope.dropped.into());
        for (column, cell) in [
            (&mut self.resource_schema_url, resource.schema_url),
            (&mut self.scope_name, scope.name),
            (&mut self.scope_version, scope.version),
            (&mut self.schema_url, scope.schema_url),
        ] {
            if let Some(cell) = cell {
                column.set(row, cell);
            }
        }
    }

    /// The columns `resource`, `scope` and `schema_url` of a batch; begins the next batch.
    pub(super) fn finish(
        &mut self,
        rows: usize,
        options: &Options,
    ) -> Result<[Built; 3], ProduceError> {
        let resource = [
            self.resource_id.finish(rows, options)?,
            self.resource_schema_url.finish(rows, options)?,
            self.resource_dropped.finish(rows, options)?,
        ];
        let scope = [
            self.scope_id.finish(rows, options)?,
            self.scope_name.finish(rows, options)?,
            self.scope_version.finish(rows, options)?,
            self.scope_dropped.finish(rows, options)?,
        ];
        Ok([
            group("resource", resource, None)?,
            group("scope", scope, None)?,
            self.schema_url.finish(rows, options)?,
        ])
    }

    /// Writes the attributes of the batch's resources and scopes.
    pub(super) fn finish_attributes(
        &mut self,
        origins: &Origins<'_>,
        session: &mut Session,
    ) -> Result<(), ProduceError> {
        self.resource_attributes
            .finish(&origins.resource_attributes, session)?;
        self.scope_attributes
            .finish(&origins.scope_attributes, session)
    }
}
