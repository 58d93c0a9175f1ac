//! OpenMetrics text as Prometheus' older text format.
//!
//! | OpenMetrics | text 0.0.4 |
//! |---|---|
//! | a counter's family has no `_total`, its samples have | both have |
//! | an info's family has no `_info`, its sample has | both have, and it is a gauge |
//! | `# UNIT`, `# EOF` | nothing |
//!
//! Everything else that [`super::page`] writes is the same in both.

/// Rewrites a page.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|typed| typed.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take() {
                push(&mut text, &["# HELP ", name, suffix, " ", words]);
            }
            push(&mut text, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a page with a family of each kind.
    /// Guarantees: names and kinds are those of the older format, samples are as they were, and it has no end of its own.
    #[test]
    fn families_are_named_as_their_samples() {
        let page = "\
# HELP a_bytes What a is.
# TYPE a_bytes counter
# UNIT a_bytes bytes
a_bytes_total{b=\"# UNIT\"} 1
# HELP c What c is.
# TYPE c info
c_info{v=\"1\"} 1
# HELP d_seconds What d is.
# TYPE d_seconds histogram
# UNIT d_seconds seconds
d_seconds_sum 1.5
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
# EOF
";
        let text = "\
# HELP a_bytes_total What a is.
# TYPE a_bytes_total counter
a_bytes_total{b=\"# UNIT\"} 1
# HELP c_info What c is.
# TYPE c_info gauge
c_info{v=\"1\"} 1
# HELP d_seconds What d is.
# TYPE d_seconds histogram
d_seconds_sum 1.5
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
";
        assert_eq!(from_open_metrics(page), text);
    }
}
