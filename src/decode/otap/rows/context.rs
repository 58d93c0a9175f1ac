//! Resource and scope of the rows of a root table.
//!
//! Rows come sorted as compresses best, so resource and scope may change from one to the next: the builder is told only of
//! changes, and the attributes behind an id are formatted once a batch.

use arrow::datatypes::{UInt16Type, UInt32Type};

use super::arrays::{Numbers, Texts};
use super::attributes::Attributes;
use super::check_text;
use super::columns::Columns;
use super::groups::Index;
use super::ids;
use crate::decode::DecodeError;
use crate::decode::otap::tables::Tables;
use crate::proto::arrow::ArrowPayloadType;
use crate::rows::{LogRows, MetricRows, ResourceFields, ScopeFields, TraceRows};

/// A builder of rows that belong to a resource and a scope.
pub(super) trait ContextRows {
    fn set_resource(&mut self, resource: &ResourceFields<'_>);
    fn set_scope(&mut self, scope: &ScopeFields<'_>);
}

macro_rules! context_rows {
    ($($rows:ty),+) => {
        $(impl ContextRows for $rows {
            fn set_resource(&mut self, resource: &ResourceFields<'_>) {
                self.set_resource(resource);
            }
            fn set_scope(&mut self, scope: &ScopeFields<'_>) {
                self.set_scope(scope);
            }
        })+
    };
}

context_rows!(LogRows, TraceRows, MetricRows);

/// The resource and scope columns of a root table, with their attributes.
#[derive(Debug)]
pub(super) struct Contexts<'a> {
    resource: Side<'a>,
    scope: Side<'a>,
    scope_name: Texts<'a>,
    scope_version: Texts<'a>,
    resources: Vec<Option<ResourceTexts>>,
    scopes: Vec<Option<String>>,
    /// Bytes of all formatted texts.
    text_bytes: usize,
    /// The row whose resource and scope the builder has.
    current: Option<usize>,
}

/// What resource and scope have in common.
#[derive(Debug)]
struct Side<'a> {
    /// The place of each row's id among the distinct ones; `None` is a null id, which has no attributes.
    slots: Vec<Option<u32>>,
    schema_url: Texts<'a>,
    dropped: Numbers<'a, UInt32Type>,
    attributes: Attributes<'a>,
}

#[derive(Debug, Default)]
struct ResourceTexts {
    attributes: String,
    service_name: String,
    service_namespace: String,
    service_instance_id: String,
}

impl<'a> Side<'a> {
    fn new(
        tables: &'a Tables,
        columns: &Columns<'a>,
        schema_url: Texts<'a>,
        attributes: ArrowPayloadType,
    ) -> Result<(Side<'a>, usize), DecodeError> {
        let ids = ids::own::<UInt16Type>(columns, "id")?;
        let (slots, distinct) = slots(&ids);
        let index = Index::new(&distinct).partial();
        let side = Side {
            slots,
            schema_url,
            dropped: columns.numbers("dropped_attributes_count")?,
            attributes: Attributes::of_u16(tables, attributes, &index)?,
        };
        Ok((side, distinct.len()))
    }

    fn slot(&self, row: usize) -> Option<usize> {
        let slot = self.slots.get(row).copied().flatten();
        slot.map(|slot| slot as usize)
    }

    fn same(&self, left: usize, right: usize) -> bool {
        self.slot(left) == self.slot(right)
            && self.schema_url.same(left, right)
            && self.dropped.or_zero(left) == self.dropped.or_zero(right)
    }
}

/// Numbers the distinct ids in order of appearance.
fn slots(ids: &[Option<u32>]) -> (Vec<Option<u32>>, Vec<Option<u32>>) {
    let mut distinct = Vec::new();
    let mut slot_of: Vec<Option<u32>> = Vec::new();
    let slots = ids.iter().map(|id| {
        let id = (*id)?;
        let place = id as usize; // A 16-bit id: the list stays below 65,537 entries.
        if place >= slot_of.len() {
            slot_of.resize(place + 1, None);
        }
        let slot = slot_of.get_mut(place)?;
        if slot.is_none() {
            *slot = u32::try_from(distinct.len()).ok();
            distinct.push(Some(id));
        }
        *slot
    });
    (slots.collect(), distinct)
}

impl<'a> Contexts<'a> {
    /// The context columns of a root table.
    pub(super) fn new(tables: &'a Tables, root: &Columns<'a>) -> Result<Contexts<'a>, DecodeError> {
        let columns = root.structure("resource")?;
        let url = columns.texts("schema_url")?;
        let (resource, resources) =
            Side::new(tables, &columns, url, ArrowPayloadType::ResourceAttrs)?;
        let columns = root.structure("scope")?;
        let url = root.texts("schema_url")?;
        let (scope, scopes) = Side::new(tables, &columns, url, ArrowPayloadType::ScopeAttrs)?;
        Ok(Contexts {
            resource,
            scope,
            scope_name: columns.texts("name")?,
            scope_version: columns.texts("version")?,
            resources: std::iter::repeat_with(|| None).take(resources).collect(),
            scopes: vec![None; scopes],
            text_bytes: 0,
            current: None,
        })
    }

    /// Tells the builder of a row's resource and scope where they are not those of the row before.
    pub(super) fn advance(
        &mut self,
        row: usize,
        rows: &mut impl ContextRows,
    ) -> Result<(), DecodeError> {
        let current = self.current.replace(row);
        let resource_stays = current.is_some_and(|current| self.resource.same(current, row));
        if !resource_stays {
            self.set_resource(row, rows)?;
        }
        // Setting the resource clears the scope.
        let scope_stays = resource_stays
            && current.is_some_and(|current| {
                self.scope.same(current, row)
                    && self.scope_name.same(current, row)
                    && self.scope_version.same(current, row)
            });
        if !scope_stays {
            self.set_scope(row, rows)?;
        }
        Ok(())
    }

    fn set_resource(&mut self, row: usize, rows: &mut impl ContextRows) -> Result<(), DecodeError> {
        let none = ResourceTexts::default();
        let slot = self.resource.slot(row);
        let cached = slot.and_then(|slot| Some((slot, self.resources.get_mut(slot)?)));
        let texts = match cached {
            None => &none,
            Some((_, Some(texts))) => texts,
            Some((slot, cached)) => {
                let texts = resource_texts(&mut self.resource.attributes, slot)?;
                self.text_bytes += texts.bytes();
                check_text(self.text_bytes)?;
                cached.insert(texts)
            }
        };
        rows.set_resource(&ResourceFields {
            service_name: &texts.service_name,
            service_namespace: &texts.service_namespace,
            service_instance_id: &texts.service_instance_id,
            attributes: &texts.attributes,
            schema_url: self.resource.schema_url.or_default(row),
            dropped_attributes_count: self.resource.dropped.or_zero(row),
        });
        Ok(())
    }

    fn set_scope(&mut self, row: usize, rows: &mut impl ContextRows) -> Result<(), DecodeError> {
        let slot = self.scope.slot(row);
        let cached = slot.and_then(|slot| Some((slot, self.scopes.get_mut(slot)?)));
        let attributes = match cached {
            None => "",
            Some((_, Some(attributes))) => attributes.as_str(),
            Some((slot, cached)) => {
                self.scope.attributes.select(slot);
                let attributes = self.scope.attributes.write()?.to_owned();
                self.text_bytes += attributes.len();
                check_text(self.text_bytes)?;
                cached.insert(attributes).as_str()
            }
        };
        rows.set_scope(&ScopeFields {
            name: self.scope_name.or_default(row),
            version: self.scope_version.or_default(row),
            attributes,
            schema_url: self.scope.schema_url.or_default(row),
            dropped_attributes_count: self.scope.dropped.or_zero(row),
        });
        Ok(())
    }
}

impl ResourceTexts {
    fn bytes(&self) -> usize {
        self.attributes.len()
            + self.service_name.len()
            + self.service_namespace.len()
            + self.service_instance_id.len()
    }
}

fn resource_texts(
    attributes: &mut Attributes<'_>,
    slot: usize,
) -> Result<ResourceTexts, DecodeError> {
    attributes.select(slot);
    Ok(ResourceTexts {
        service_name: attributes.text("service.name")?.into_owned(),
        service_namespace: attributes.text("service.namespace")?.into_owned(),
        service_instance_id: attributes.text("service.instance.id")?.into_owned(),
        attributes: attributes.write()?.to_owned(),
    })
}
