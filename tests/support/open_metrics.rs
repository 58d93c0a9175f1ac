//! A strict reader of the metrics' text: whatever a scraper could stumble over fails the test.
//!
//! Source: OpenMetrics 1.0, "Text format"; Prometheus, "Exposition formats".

use std::collections::{BTreeMap, BTreeSet};

/// A family: what stands under one `# TYPE`.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub unit: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Family {
    /// Names of the labels of its samples, without `le`.
    pub fn labels(&self) -> BTreeSet<String> {
        let names = self.samples.iter().flat_map(|sample| sample.labels.keys());
        names.filter(|name| *name != "le").cloned().collect()
    }
}

/// The families of a page by name.
pub struct Page(pub BTreeMap<String, Family>);

impl Page {
    /// The sample of this name whose labels these are.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<_, _> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let samples = self.0.values().flat_map(|family| &family.samples);
        let mut found = samples.filter(|sample| sample.name == name && sample.labels == wanted);
        let value = found.next().map(|sample| sample.value);
        assert!(found.next().is_none(), "{name} {labels:?} is there twice");
        value
    }

    /// The same, and it must be there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let value = self.find(name, labels);
        value.unwrap_or_else(|| panic!("there is no {name} {labels:?}"))
    }

    /// All samples of this name together.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.0.values().flat_map(|family| &family.samples);
        let named = samples.filter(|sample| sample.name == name);
        named.map(|sample| sample.value).sum()
    }

    /// Every name that a sample has.
    pub fn sample_names(&self) -> BTreeSet<String> {
        let samples = self.0.values().flat_map(|family| &family.samples);
        samples.map(|sample| sample.name.clone()).collect()
    }
}

/// Reads OpenMetrics 1.0.
pub fn open_metrics(text: &str) -> Page {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    assert!(!body.contains("# EOF"));
    read(body, true)
}

/// Reads Prometheus' text format 0.0.4.
pub fn prometheus(text: &str) -> Page {
    assert!(text.ends_with('\n') && !text.contains("# EOF") && !text.contains("# UNIT"));
    read(text, false)
}

fn read(text: &str, is_open: bool) -> Page {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.strip_suffix('\n').unwrap().split('\n') {
        assert!(!line.is_empty() && line.trim() == line, "{line:?}");
        let Some(meta) = line.strip_prefix("# ") else {
            let sample = sample(line);
            let family = families.get_mut(&current).expect("a sample has a family");
            check_name(&current, family, &sample, is_open);
            family.samples.push(sample);
            continue;
        };
        let (what, rest) = meta.split_once(' ').unwrap();
        let (name, value) = rest.split_once(' ').unwrap();
        assert!(is_name(name), "{line}");
        if name != current {
            // What was begun before must not go on later.
            assert!(!families.contains_key(name), "{name} is there twice");
            name.clone_into(&mut current);
            families.insert(name.to_owned(), Family::default());
        }
        let family = families.get_mut(name).unwrap();
        assert!(family.samples.is_empty(), "{line} after samples");
        let field = match what {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => &mut family.unit,
            _ => panic!("{line}"),
        };
        assert!(field.is_empty(), "{line} twice");
        value.clone_into(field);
    }
    for (name, family) in &families {
        check_family(name, family, is_open);
    }
    Page(families)
}

fn check_family(name: &str, family: &Family, is_open: bool) {
    let kinds = match is_open {
        true => ["counter", "gauge", "histogram", "info"].as_slice(),
        false => &["counter", "gauge", "histogram"],
    };
    assert!(kinds.contains(&family.kind.as_str()), "{name}: {family:?}");
    assert!(
        family.help.ends_with('.') && !family.help.contains(['\\', '"']),
        "{name}"
    );
    assert!(!family.samples.is_empty(), "{name} has no sample");
    if is_open && !family.unit.is_empty() {
        assert!(name.ends_with(&format!("_{}", family.unit)), "{name}");
        assert!(["seconds", "bytes"].contains(&family.unit.as_str()));
    }
    let mut series = BTreeSet::new();
    for sample in &family.samples {
        assert!(
            series.insert((&sample.name, &sample.labels)),
            "twice: {sample:?}"
        );
        let must_count = family.kind != "gauge";
        assert!(!must_count || sample.value >= 0.0, "{sample:?}");
    }
    if family.kind == "histogram" {
        check_histogram(name, family);
    }
}

/// Buckets stand together, grow with their ends, and the last is the count.
fn check_histogram(name: &str, family: &Family) {
    let mut by_labels: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let Some(le) = labels.remove("le") else {
            assert!(!sample.name.ends_with("_bucket"));
            continue;
        };
        assert_eq!(sample.name, format!("{name}_bucket"));
        let end = match le.as_str() {
            "+Inf" => f64::INFINITY,
            end => end.parse().unwrap(),
        };
        by_labels
            .entry(labels)
            .or_default()
            .push((end, sample.value));
    }
    assert!(!by_labels.is_empty(), "{name}");
    for (labels, buckets) in by_labels {
        assert!(
            buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1),
            "{name}: {buckets:?}"
        );
        let (end, last) = buckets.last().unwrap();
        assert_eq!(*end, f64::INFINITY);
        let of = |suffix: &str| {
            let named = format!("{name}_{suffix}");
            let mut found = family
                .samples
                .iter()
                .filter(|sample| sample.name == named && sample.labels == labels);
            found.next().unwrap().value
        };
        assert_eq!(of("count"), *last, "{name}");
        assert!(of("sum") >= 0.0 && (of("count") > 0.0 || of("sum") == 0.0));
    }
}

fn check_name(family: &str, of: &Family, sample: &Sample, is_open: bool) {
    let suffixes = match (of.kind.as_str(), is_open) {
        ("counter", true) => ["_total"].as_slice(),
        ("info", true) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    let suffix = sample.name.strip_prefix(family);
    assert!(
        suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
        "{sample:?} in {family}"
    );
    if of.kind == "counter" && !is_open {
        assert!(family.ends_with("_total"), "{family}");
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `name{label="value",...} number`, with no time behind.
fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let name = &line[..end];
    assert!(is_name(name), "{line}");
    let mut rest = &line[end..];
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let (value, after) = label_value(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None => {
                    rest = after.strip_prefix('}').unwrap();
                    break;
                }
            };
        }
        assert!(!labels.is_empty(), "{line}");
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().unwrap(),
    }
}

/// The value up to its closing quote, and what is behind that.
fn label_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                c => panic!("escaped {c:?}"),
            }),
            c => value.push(c),
        }
    }
    panic!("{text} does not end");
}
