//! Resource and scope: formatted once a group, repeated in every row of it.

use arrow::array::ArrayRef;
use arrow::datatypes::UInt32Type;

use super::columns::{Interned, Numbers, TextColumn};

/// What the rows of one resource share (OTLP `resource.proto`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceFields<'a> {
    /// `service.name`; empty becomes `unknown_service`.
    pub service_name: &'a str,
    /// `service.namespace`.
    pub service_namespace: &'a str,
    /// `service.instance.id`.
    pub service_instance_id: &'a str,
    /// All attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// The schema URL of the resource's group.
    pub schema_url: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
}

/// What the rows of one instrumentation scope share (OTLP `common.proto`, `InstrumentationScope`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeFields<'a> {
    /// The scope's name.
    pub name: &'a str,
    /// The scope's version.
    pub version: &'a str,
    /// All attributes as one JSON object; empty when there are none.
    pub attributes: &'a str,
    /// The schema URL of the scope's group.
    pub schema_url: &'a str,
    /// Attributes its sender dropped.
    pub dropped_attributes_count: u32,
}

/// The service name of a resource that has none (OpenTelemetry semantic conventions, `service.name`).
const UNKNOWN_SERVICE: &str = "unknown_service";

/// The resource and scope that the next rows belong to.
#[derive(Debug, Default)]
pub(super) struct Context {
    resource: [String; 5],
    resource_dropped: u32,
    scope: [String; 4],
    scope_dropped: u32,
    /// Count the changes, so that columns notice that their interned texts are of another group.
    resource_generation: u64,
    scope_generation: u64,
    resource_bytes: usize,
    scope_bytes: usize,
}

impl Context {
    /// Bytes of all texts: what a row of this context shares with others.
    pub(super) fn bytes(&self) -> usize {
        self.resource_bytes + self.scope_bytes
    }

    pub(super) fn set_resource(&mut self, fields: &ResourceFields<'_>) {
        let name = match fields.service_name {
            "" => UNKNOWN_SERVICE,
            name => name,
        };
        let texts = [
            name,
            fields.service_namespace,
            fields.service_instance_id,
            fields.attributes,
            fields.schema_url,
        ];
        copy(&mut self.resource, texts);
        self.resource_dropped = fields.dropped_attributes_count;
        self.resource_generation += 1;
        self.resource_bytes = self.resource.iter().map(String::len).sum();
        self.set_scope(&ScopeFields::default());
    }

    pub(super) fn set_scope(&mut self, fields: &ScopeFields<'_>) {
        let texts = [
            fields.name,
            fields.version,
            fields.attributes,
            fields.schema_url,
        ];
        copy(&mut self.scope, texts);
        self.scope_dropped = fields.dropped_attributes_count;
        self.scope_generation += 1;
        self.scope_bytes = self.scope.iter().map(String::len).sum();
    }
}

fn copy<const N: usize>(into: &mut [String; N], from: [&str; N]) {
    for (text, new) in into.iter_mut().zip(from) {
        text.clear();
        text.push_str(new);
    }
}

fn intern<const N: usize>(columns: &mut [TextColumn; N], texts: &[String; N]) -> [Interned; N] {
    let mut interned = [Interned::default(); N];
    for ((column, text), slot) in columns.iter_mut().zip(texts).zip(&mut interned) {
        *slot = column.intern(text);
    }
    interned
}

/// The columns of one table that hold resource and scope.
#[derive(Debug)]
pub(super) struct ContextColumns {
    resource: [TextColumn; 5],
    scope: [TextColumn; 4],
    resource_dropped: Numbers<UInt32Type>,
    scope_dropped: Numbers<UInt32Type>,
    interned_resource: [Interned; 5],
    interned_scope: [Interned; 4],
    resource_generation: u64,
    scope_generation: u64,
    /// The context of the rows that are not in the columns yet, and how many they are.
    dropped: [u32; 2],
    pending: usize,
}

impl ContextColumns {
    pub(super) fn new() -> ContextColumns {
        ContextColumns {
            resource: std::array::from_fn(|_| TextColumn::new()),
            scope: std::array::from_fn(|_| TextColumn::new()),
            resource_dropped: Numbers::new(),
            scope_dropped: Numbers::new(),
            interned_resource: Default::default(),
            interned_scope: Default::default(),
            resource_generation: 0,
            scope_generation: 0,
            dropped: [0; 2],
            pending: 0,
        }
    }

    /// So many rows more will come.
    pub(super) fn expect(&mut self, rows: usize) {
        for column in self.resource.iter_mut().chain(&mut self.scope) {
            column.expect(rows);
        }
        self.resource_dropped.expect(rows);
        self.scope_dropped.expect(rows);
    }

    /// What a row of this context will add to the columns' texts, bytes.
    pub(super) fn cost(&self, context: &Context) -> usize {
        let mut cost = 0;
        if self.resource_generation != context.resource_generation {
            cost += context.resource_bytes;
        }
        if self.scope_generation != context.scope_generation {
            cost += context.scope_bytes;
        }
        cost
    }

    /// Appends a row. Those of one context are put into the columns together.
    #[inline]
    pub(super) fn push(&mut self, context: &Context) {
        let is_resource = self.resource_generation == context.resource_generation;
        let is_scope = self.scope_generation == context.scope_generation;
        if !(is_resource && is_scope) {
            self.begin(context);
        }
        self.pending += 1;
    }

    fn begin(&mut self, context: &Context) {
        self.put_pending();
        if self.resource_generation != context.resource_generation {
            self.interned_resource = intern(&mut self.resource, &context.resource);
            self.resource_generation = context.resource_generation;
        }
        if self.scope_generation != context.scope_generation {
            self.interned_scope = intern(&mut self.scope, &context.scope);
            self.scope_generation = context.scope_generation;
        }
        self.dropped = [context.resource_dropped, context.scope_dropped];
    }

    fn put_pending(&mut self) {
        let rows = std::mem::take(&mut self.pending);
        for (column, text) in self.resource.iter_mut().zip(self.interned_resource) {
            column.push_run(text, rows);
        }
        for (column, text) in self.scope.iter_mut().zip(self.interned_scope) {
            column.push_run(text, rows);
        }
        let [resource, scope] = self.dropped;
        self.resource_dropped.push_run(resource, rows);
        self.scope_dropped.push_run(scope, rows);
    }

    pub(super) fn finish(&mut self) -> ContextArrays {
        self.put_pending();
        let [name, namespace, instance, attributes, resource_url] =
            self.resource.each_mut().map(TextColumn::finish);
        let [scope_name, scope_version, scope_attributes, scope_url] =
            self.scope.each_mut().map(TextColumn::finish);
        ContextArrays {
            resource: [name, namespace, instance],
            scope: [attributes, scope_name, scope_version, scope_attributes],
            extra: [
                resource_url,
                scope_url,
                self.resource_dropped.finish(),
                self.scope_dropped.finish(),
            ],
        }
    }
}

/// The finished columns, in the groups the schemas place them in.
pub(super) struct ContextArrays {
    /// service_name, service_namespace, service_instance_id.
    pub(super) resource: [ArrayRef; 3],
    /// resource_attributes, scope_name, scope_version, scope_attributes.
    pub(super) scope: [ArrayRef; 4],
    /// The schema URLs and the dropped counts.
    pub(super) extra: [ArrayRef; 4],
}
