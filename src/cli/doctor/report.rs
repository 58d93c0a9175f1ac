//! What the doctor has found, and how it is told.

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Fine,
    /// Good to know.
    Note,
    /// Something is to be changed.
    Change,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Note => "note",
            Verdict::Change => "CHANGE",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at, and how it is.
    pub(super) what: String,
    /// What to do; there where something is to be changed.
    pub(super) advice: Option<String>,
}

/// What belongs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) findings: Vec<Finding>,
    /// A table below the findings.
    pub(super) table: Option<String>,
}

impl Section {
    pub(super) fn new(title: impl Into<String>) -> Section {
        Section {
            title: title.into(),
            ..Section::default()
        }
    }

    /// As it should be.
    pub(super) fn fine(&mut self, what: impl Into<String>) {
        self.add(Verdict::Fine, what.into(), None);
    }

    /// Good to know.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.add(Verdict::Note, what.into(), None);
    }

    /// Something is to be changed, and how.
    pub(super) fn change(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.add(Verdict::Change, what.into(), Some(advice.into()));
    }

    fn add(&mut self, verdict: Verdict, what: String, advice: Option<String>) {
        // The same setting can be there for several signals.
        let finding = Finding {
            verdict,
            what,
            advice,
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// How many things are to be changed.
    pub(super) fn changes(&self) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.verdict == Verdict::Change)
            .count()
    }

    fn text(&self) -> String {
        let mut lines = vec![self.title.clone()];
        for finding in &self.findings {
            let word = finding.verdict.word();
            lines.push(format!("  {word:6}  {}", safe(&finding.what)));
            if let Some(advice) = &finding.advice {
                lines.push(format!("          -> {}", safe(advice)));
            }
        }
        lines.extend(self.table.as_ref().map(|table| format!("\n{table}")));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "verdict": finding.verdict.word().to_ascii_lowercase(),
                "what": finding.what,
                "advice": finding.advice,
            })
        });
        json!({"title": self.title, "findings": findings.collect::<Vec<_>>()})
    }
}

/// What others have said, on one line and harmless to a terminal.
fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Everything, with a last line that sums it up.
pub(super) fn text(sections: &[Section]) -> String {
    let changes: usize = sections.iter().map(Section::changes).sum();
    let mut blocks: Vec<String> = sections.iter().map(Section::text).collect();
    blocks.push(match changes {
        0 => "All is well.".to_owned(),
        1 => "1 thing is to be changed.".to_owned(),
        more => format!("{more} things are to be changed."),
    });
    blocks.join("\n\n")
}

/// The same as one object.
pub(super) fn json(sections: &[Section]) -> Value {
    let changes: usize = sections.iter().map(Section::changes).sum();
    json!({
        "ok": changes == 0,
        "changes": changes,
        "sections": sections.iter().map(Section::json).collect::<Vec<_>>(),
    })
}
