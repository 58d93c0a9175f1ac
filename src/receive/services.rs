//! Whose rows a request brings.

use arrow::array::{Array as _, AsArray as _, StringViewArray};

use crate::rows::Rows;

/// Of more services in one request the first are noted.
const SERVICES_MAX: usize = 16;

/// The services of a request's rows, each with its rows.
///
/// Rows of one service stand together and share their text, so this compares a number a row, and a text a service.
pub(super) fn services(rows: &Rows) -> Vec<(&str, u64)> {
    let mut services = Vec::with_capacity(1);
    for (_, batch) in &rows.batches {
        let column = batch.column_by_name("service_name");
        let Some(names) = column.and_then(|column| column.as_string_view_opt()) else {
            continue;
        };
        let mut from = 0;
        for run in names.views().chunk_by(|one, next| one == next) {
            add(&mut services, name(names, from), run.len() as u64);
            from += run.len();
        }
    }
    services
}

/// The service of a row; empty when it has none.
pub(super) fn name(names: &StringViewArray, row: usize) -> &str {
    match names.is_valid(row) {
        true => names.value(row),
        false => "",
    }
}

fn add<'a>(services: &mut Vec<(&'a str, u64)>, name: &'a str, rows: u64) {
    if let Some((_, known)) = services.iter_mut().find(|(known, _)| *known == name) {
        *known += rows;
    } else if services.len() < SERVICES_MAX {
        services.push((name, rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Encoding, decode};
    use crate::memory::Budget;
    use crate::signal::Signal;

    fn of(services: &[&str]) -> Vec<(String, u64)> {
        let resources = services.iter().map(|name| {
            let attribute = serde_json::json!({"key": "service.name", "value": {"stringValue": name}});
            let attributes = if name.is_empty() { vec![] } else { vec![attribute] };
            serde_json::json!({
                "resource": {"attributes": attributes},
                "scopeLogs": [{"logRecords": [{"body": {"stringValue": "a"}}, {"body": {"stringValue": "b"}}]}],
            })
        });
        let body = serde_json::json!({"resourceLogs": resources.collect::<Vec<_>>()}).to_string();
        let budget = Budget::new(1 << 30);
        let body = bytes::Bytes::from(body);
        let rows = decode(Signal::Logs, Encoding::Json, &body, 1, budget.empty()).unwrap();
        let services = super::services(&rows).into_iter();
        services
            .map(|(name, rows)| (name.to_owned(), rows))
            .collect()
    }

    /// Scenario: requests of one service, of none, of several in turn with short and long names, and of very many.
    /// Guarantees: each service is there once with all its rows; of very many the first.
    #[test]
    fn each_service_is_there_once() {
        let long = "a service with a name that stands in no view";
        let longer = "a service with a name that stands in another";
        assert_eq!(of(&["shop", "shop"]), [("shop".to_owned(), 4)]);
        let none = "unknown_service";
        assert_eq!(of(&[""]), [(none.to_owned(), 2)]);
        let several = [("shop", 4), (long, 4), (none, 2), (longer, 2)];
        let several = several.map(|(name, rows)| (name.to_owned(), rows));
        assert_eq!(of(&["shop", long, "", "shop", longer, long]), several);
        let names: Vec<String> = (0..100).map(|number| format!("service {number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = of(&names);
        assert_eq!(many.len(), SERVICES_MAX);
        assert_eq!(many[15], ("service 15".to_owned(), 2));
    }
}
