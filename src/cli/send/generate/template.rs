//! Records encoded once, then copied and patched: what makes the sender cheaper than the receiver it measures.
//!
//! ```text
//! | head: fields up to the attributes | otlake.seq attribute | tail: the fields after |
//!    ^ ^ eight-byte slots, patched      ^ the only part of varying length   ^ slots
//! ```
//!
//! A slot is any eight bytes that change from record to record: a time, half a trace id, a span id, a value, eight
//! characters of text. Templates are made from ordinary messages that carry [`Slot::marker`] where a slot shall be.

/// The attribute that numbers the records of a run.
pub(crate) const SEQ_KEY: &str = "otlake.seq";
/// The attribute that names the run.
pub(crate) const RUN_KEY: &str = "otlake.run";

/// The parts of a record that differ from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Time of a log record, of a data point and its exemplars.
    Time,
    /// When a log record was observed.
    Observed,
    /// Start of a span, or of what a data point sums up.
    Start,
    /// End of a span.
    End,
    /// Time of a span's event.
    Event,
    /// First half of the trace id.
    TraceHigh,
    /// Second half of the trace id.
    TraceLow,
    /// Span id.
    Span,
    /// Span id of the parent.
    Parent,
    /// First half of the trace id that a link points at.
    LinkTraceHigh,
    /// Second half of the trace id that a link points at.
    LinkTraceLow,
    /// Span id that a link points at.
    LinkSpan,
    /// A data point's number.
    Value,
    /// Eight characters inside a text.
    Text,
}

/// How many slots there are.
const SLOTS: usize = Slot::Text as usize + 1;

impl Slot {
    const ALL: [Slot; SLOTS] = [
        Slot::Time,
        Slot::Observed,
        Slot::Start,
        Slot::End,
        Slot::Event,
        Slot::TraceHigh,
        Slot::TraceLow,
        Slot::Span,
        Slot::Parent,
        Slot::LinkTraceHigh,
        Slot::LinkTraceLow,
        Slot::LinkSpan,
        Slot::Value,
        Slot::Text,
    ];

    /// The eight bytes that stand for the slot while a template is made; ASCII, so that they may stand in text too.
    pub(super) const fn marker(self) -> [u8; 8] {
        [b'~', b'@', b'o', b't', b'l', b'k', b'~', b'A' + self as u8]
    }

    /// The marker where a fixed64 field shall be patched.
    pub(super) const fn marker_u64(self) -> u64 {
        u64::from_le_bytes(self.marker())
    }
}

/// What goes into the slots of one record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values([[u8; 8]; SLOTS]);

impl Values {
    /// Sets a time, an id or the bits of a number.
    pub(super) fn set(&mut self, slot: Slot, value: u64) {
        self.0[slot as usize] = value.to_le_bytes();
    }

    /// Sets eight characters of text: the low half of `number` in hexadecimal.
    pub(super) fn set_text(&mut self, slot: Slot, number: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0[slot as usize] =
            std::array::from_fn(|place| DIGITS[(number >> (4 * place)) as usize & 15]);
    }
}

/// One record's bytes with the places of its slots.
#[derive(Debug)]
pub(super) struct Template {
    head: Part,
    tail: Part,
    /// Key byte of the record's field of attributes.
    attribute_tag: u8,
}

#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    slots: Vec<(usize, Slot)>,
}

impl Part {
    fn new(bytes: Vec<u8>) -> Part {
        let mut slots = Vec::new();
        for (offset, window) in bytes.windows(8).enumerate() {
            if let Some(slot) = Slot::ALL.into_iter().find(|slot| slot.marker() == window) {
                slots.push((offset, slot));
            }
        }
        Part { bytes, slots }
    }

    fn write(&self, out: &mut Vec<u8>, values: &Values) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for &(offset, slot) in &self.slots {
            let at = start + offset;
            out[at..at + 8].copy_from_slice(&values.0[slot as usize]);
        }
    }
}

impl Template {
    /// A template of two encoded halves of one message: `head` ends with the attributes, whose field has the number
    /// `attribute_field` (1 to 15); `tail` is what follows.
    pub(super) fn new(head: Vec<u8>, attribute_field: u8, tail: Vec<u8>) -> Template {
        assert!((1..16).contains(&attribute_field), "a key of one byte");
        Template {
            head: Part::new(head),
            tail: Part::new(tail),
            attribute_tag: length_delimited(attribute_field),
        }
    }

    /// Appends the record as field `field` of the message that `out` holds.
    pub(super) fn write(&self, out: &mut Vec<u8>, field: u8, seq: u64, values: &Values) {
        let seq_len = varint_len(seq);
        let any_value_len = 1 + seq_len;
        let key_value_len = 2 + SEQ_KEY.len() + 2 + any_value_len; // 25 at most: its length is one byte
        let record_len = self.head.bytes.len() + 2 + key_value_len + self.tail.bytes.len();

        out.push(length_delimited(field));
        put_varint(out, record_len as u64);
        self.head.write(out, values);
        out.extend_from_slice(&[
            self.attribute_tag,
            key_value_len as u8,
            length_delimited(1),
            SEQ_KEY.len() as u8,
        ]);
        out.extend_from_slice(SEQ_KEY.as_bytes());
        out.extend_from_slice(&[length_delimited(2), any_value_len as u8, 3 << 3]);
        put_varint(out, seq);
        self.tail.write(out, values);
    }
}

/// The key byte of a length-delimited field with a number below 16.
const fn length_delimited(field: u8) -> u8 {
    field << 3 | 2
}

/// Appends `message` as field `field` (1 to 15) of the message that `out` holds.
pub(super) fn put_message(out: &mut Vec<u8>, field: u8, message: &[u8]) {
    out.push(length_delimited(field));
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A well-mixed number for the `n`th thing of a seed: the same for the same arguments, never 0.
///
/// Source: splitmix64.
pub(super) fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}
