//! The table.

use serde_json::json;

/// One line of the table: what we do, and what is beside it.
pub struct Line<'a> {
    /// The stage.
    pub stage: &'a str,
    /// What it works on.
    pub workload: &'a str,
    /// Rows in a round.
    pub rows: usize,
    /// Our CPU seconds a round.
    pub seconds: f64,
    /// Bytes a row: of the input for decoding, of what is written for all else.
    pub bytes_a_row: f64,
    /// What does the same work.
    pub beside: Option<Beside<'a>>,
}

/// What does the same work.
pub struct Beside<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its CPU seconds a round.
    pub seconds: f64,
    /// How many times as fast we are.
    pub ratio: f64,
    /// What it writes, bytes a row.
    pub bytes_a_row: Option<f64>,
}

/// Prints lines as they come.
pub struct Report {
    is_json: bool,
    has_head: bool,
}

impl Report {
    /// A Markdown table.
    pub fn new() -> Report {
        Report {
            is_json: false,
            has_head: false,
        }
    }

    /// Prints objects instead.
    pub fn as_json(&mut self) {
        self.is_json = true;
    }

    /// Prints a line.
    pub fn line(&mut self, line: &Line<'_>) {
        let rate = line.rows as f64 / line.seconds;
        if self.is_json {
            let object = json!({
                "stage": line.stage,
                "workload": line.workload,
                "rows_a_cpu_second": rate,
                "bytes_a_row": line.bytes_a_row,
                "beside": line.beside.as_ref().map(|beside| json!({
                    "name": beside.name,
                    "rows_a_cpu_second": line.rows as f64 / beside.seconds,
                    "ratio": beside.ratio,
                    "bytes_a_row": beside.bytes_a_row,
                })),
            });
            println!("{object}");
            return;
        }
        if !self.has_head {
            self.has_head = true;
            println!(
                "| stage | of | M rows a CPU s | CPU s a M rows | B a row | beside | its M rows a CPU s | its B a row | times as fast |"
            );
            println!("|---|---|---|---|---|---|---|---|---|");
        }
        let ours = format!(
            "| {} | {} | {:.3} | {:.3} | {:.0} |",
            line.stage,
            line.workload,
            rate / 1e6,
            1e6 / rate,
            line.bytes_a_row
        );
        match &line.beside {
            None => println!("{ours} | | | |"),
            Some(beside) => println!(
                "{ours} {} | {:.3} | {} | {:.2} |",
                beside.name,
                line.rows as f64 / beside.seconds / 1e6,
                beside
                    .bytes_a_row
                    .map_or_else(String::new, |bytes| format!("{bytes:.0}")),
                beside.ratio
            ),
        }
    }
}
