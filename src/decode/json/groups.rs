//! The request, its resources and its scopes: the same three layers around the records of each signal.

use std::borrow::Cow;

use serde::de::{Error as _, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::Source;
use super::read::{Field, List, Message, ReadList, ReadMessage};
use super::value::{Entries, last, read_entries, write_entries};
use crate::memory::MemoryError;
use crate::rows::{JsonText, ResourceFields, Rows, ScopeFields};

/// Where the records of one signal go.
pub(super) trait Target<'a> {
    /// The names of the request's list of resources.
    const RESOURCES: [&'static str; 2];
    /// The names of a resource's list of scopes.
    const SCOPES: [&'static str; 2];
    /// The names of a scope's list of records.
    const RECORDS: [&'static str; 2];

    /// Sets the resource of the records that follow.
    fn set_resource(&mut self, resource: &ResourceFields<'_>);

    /// Sets the scope of the records that follow.
    fn set_scope(&mut self, scope: &ScopeFields<'_>);

    /// Reads the next record and appends it; `false` when there is none.
    fn next<A: SeqAccess<'a>>(
        &mut self,
        source: &Source<'a>,
        records: &mut A,
    ) -> Result<bool, A::Error>;

    /// Ends the request.
    fn finish(self) -> Result<Rows, MemoryError>;
}

/// An `Export*ServiceRequest`.
pub(super) struct Request<'s, 'a, T> {
    source: &'s Source<'a>,
    target: &'s mut T,
    scratch: Scratch<'a>,
    /// Whether the list of resources was there already.
    seen: bool,
}

/// Memory reused from group to group. A resource's texts are with the target before its scopes are read.
#[derive(Default)]
struct Scratch<'a> {
    entries: Entries<'a>,
    attributes: JsonText,
    service: [JsonText; 3],
}

impl<'s, 'a, T: Target<'a>> Request<'s, 'a, T> {
    pub(super) fn new(source: &'s Source<'a>, target: &'s mut T) -> Request<'s, 'a, T> {
        Request {
            source,
            target,
            scratch: Scratch::default(),
            seen: false,
        }
    }
}

impl<'a, T: Target<'a>> Message<'a> for Request<'_, 'a, T> {
    const EXPECTED: &'static str = "an OTLP export request object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        if !T::RESOURCES.contains(&name) {
            return field.skip();
        }
        if std::mem::replace(&mut self.seen, true) {
            return Err(A::Error::custom("a list of records stands twice"));
        }
        field.list(self)
    }
}

impl<'a, T: Target<'a>> List<'a> for Request<'_, 'a, T> {
    const EXPECTED: &'static str = "a list of resources with their records";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        self.source.begin_record();
        let mut group = Group::new(
            self.source,
            &mut self.scratch.entries,
            Header::Resource,
            T::SCOPES,
        );
        match items.next_element_seed(ReadMessage(&mut group))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => {}
        }
        let (fields, scopes) = (group.fields, group.inner);
        self.set_resource(&fields);
        if let Some(scopes) = scopes {
            self.source
                .read_later(scopes, ReadList(&mut Scopes(self)))?;
        }
        Ok(true)
    }
}

impl<'a, T: Target<'a>> Request<'_, 'a, T> {
    fn set_resource(&mut self, group: &GroupFields<'a>) {
        let Scratch {
            entries,
            attributes,
            service: [name, namespace, instance],
        } = &mut self.scratch;
        write_entries(entries, attributes);
        self.target.set_resource(&ResourceFields {
            service_name: text_of(entries, "service.name", name),
            service_namespace: text_of(entries, "service.namespace", namespace),
            service_instance_id: text_of(entries, "service.instance.id", instance),
            attributes: attributes.as_str(),
            schema_url: &group.schema_url,
            dropped_attributes_count: group.dropped_attributes_count,
        });
    }

    fn set_scope(&mut self, group: &GroupFields<'a>) {
        let Scratch {
            entries,
            attributes,
            ..
        } = &mut self.scratch;
        write_entries(entries, attributes);
        self.target.set_scope(&ScopeFields {
            name: &group.name,
            version: &group.version,
            attributes: attributes.as_str(),
            schema_url: &group.schema_url,
            dropped_attributes_count: group.dropped_attributes_count,
        });
    }
}

/// The last attribute of this key as plain text; empty without one.
fn text_of<'t>(entries: &'t Entries<'_>, key: &str, scratch: &'t mut JsonText) -> &'t str {
    last(entries, key).map_or("", |value| value.text(scratch))
}

/// The scopes of the request's current resource.
struct Scopes<'r, 's, 'a, T>(&'r mut Request<'s, 'a, T>);

impl<'a, T: Target<'a>> List<'a> for Scopes<'_, '_, 'a, T> {
    const EXPECTED: &'static str = "a list of scopes with their records";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        let source = self.0.source;
        source.begin_record();
        let mut group = Group::new(
            source,
            &mut self.0.scratch.entries,
            Header::Scope,
            T::RECORDS,
        );
        match items.next_element_seed(ReadMessage(&mut group))? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => {}
        }
        let (fields, records) = (group.fields, group.inner);
        self.0.set_scope(&fields);
        if let Some(records) = records {
            let target = &mut *self.0.target;
            source.read_later(records, ReadList(&mut Records { source, target }))?;
        }
        Ok(true)
    }
}

/// The records of the target's current scope.
struct Records<'s, 'a, T> {
    source: &'s Source<'a>,
    target: &'s mut T,
}

impl<'a, T: Target<'a>> List<'a> for Records<'_, 'a, T> {
    const EXPECTED: &'static str = "a list of records";

    fn next<A: SeqAccess<'a>>(&mut self, items: &mut A) -> Result<bool, A::Error> {
        self.source.begin_record();
        self.target.next(self.source, items)
    }
}

/// What a group is headed by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Resource,
    Scope,
}

impl Header {
    fn name(self) -> &'static str {
        match self {
            Header::Resource => "resource",
            Header::Scope => "scope",
        }
    }
}

/// A `Resource*` or `Scope*` message: a header, a schema URL and a list.
struct Group<'g, 'a> {
    source: &'g Source<'a>,
    entries: &'g mut Entries<'a>,
    header: Header,
    fields: GroupFields<'a>,
    inner_names: [&'static str; 2],
    inner: Option<&'a RawValue>,
}

#[derive(Default)]
struct GroupFields<'a> {
    name: Cow<'a, str>,
    version: Cow<'a, str>,
    dropped_attributes_count: u32,
    schema_url: Cow<'a, str>,
}

impl<'g, 'a> Group<'g, 'a> {
    fn new(
        source: &'g Source<'a>,
        entries: &'g mut Entries<'a>,
        header: Header,
        inner_names: [&'static str; 2],
    ) -> Group<'g, 'a> {
        entries.clear();
        Group {
            source,
            entries,
            header,
            fields: GroupFields::default(),
            inner_names,
            inner: None,
        }
    }
}

impl<'a> Message<'a> for Group<'_, 'a> {
    const EXPECTED: &'static str = "a group of records, an object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        match name {
            "schemaUrl" | "schema_url" => self.fields.schema_url = field.text()?,
            name if self.inner_names.contains(&name) => field.raw_once(&mut self.inner)?,
            name if name == self.header.name() => {
                self.entries.clear();
                field.message(&mut GroupHeader(self))?;
            }
            _ => field.skip()?,
        }
        Ok(())
    }
}

/// A `Resource` or an `InstrumentationScope`.
struct GroupHeader<'h, 'g, 'a>(&'h mut Group<'g, 'a>);

impl<'a> Message<'a> for GroupHeader<'_, '_, 'a> {
    const EXPECTED: &'static str = "a resource or scope object";

    fn field<A: MapAccess<'a>>(
        &mut self,
        name: &str,
        field: Field<'_, 'a, A>,
    ) -> Result<(), A::Error> {
        let Group {
            source,
            entries,
            header,
            fields,
            ..
        } = &mut *self.0;
        match name {
            "attributes" => read_entries(field, source, entries)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                fields.dropped_attributes_count = field.int()?;
            }
            "name" if *header == Header::Scope => fields.name = field.text()?,
            "version" if *header == Header::Scope => fields.version = field.text()?,
            _ => field.skip()?,
        }
        Ok(())
    }
}
