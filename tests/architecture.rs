//! The source itself: who may use whom, and how long a file may be. The rule is that of `src/lib.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be without its tests; about 400 lines is the aim.
const LINES_MAX: usize = 600;

/// Words of the crate that every station may use.
const COMMON: [&str; 4] = ["signal", "memory", "disk", "latency"];

/// What each station may use beside [`COMMON`] and itself. Modules that are not listed compose the stations.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("signal", &[]),
    ("memory", &[]),
    ("disk", &[]),
    ("latency", &[]),
    ("rows", &[]),
    // OTAP's batches come as messages; OTLP's are read from their bytes.
    ("decode", &["rows", "proto"]),
    ("journal", &["rows"]),
    ("seal", &["journal", "rows"]),
    ("lake", &["seal", "rows"]),
    ("telemetry", &["config", "rows"]),
    (
        "receive",
        // The gate takes its settings from the configuration; the messages are the protocol's own.
        &[
            "decode",
            "journal",
            "seal",
            "rows",
            "telemetry",
            "config",
            "proto",
        ],
    ),
    // The one place beside the composition that sees both the receiver and the lake, and shows one to the other's users.
    ("sql", &["receive", "lake", "seal", "config", "telemetry"]),
    ("otap_producer", &["proto"]),
    // A catalog is a setting.
    ("config", &["lake"]),
];

/// What decoding must not know: it is pure.
const IMPURE: [&str; 6] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

struct Source {
    /// Below `src`, such as `rows/json.rs`.
    path: PathBuf,
    /// Without comments and without the tests at the end.
    code: Vec<String>,
}

impl Source {
    /// The module of the crate's root that the file belongs to, such as `rows`.
    fn module(&self) -> String {
        let first = self.path.components().next().unwrap();
        let name = Path::new(first.as_os_str()).file_stem().unwrap();
        name.to_string_lossy().into_owned()
    }

    /// The modules of the crate's root that the code names.
    fn uses(&self) -> BTreeSet<String> {
        let code = self.code.join("\n");
        let mut used = BTreeSet::new();
        for (_, rest) in code
            .match_indices("crate::")
            .map(|(at, found)| code.split_at(at + found.len()))
        {
            let paths: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap().split(',').collect(),
                None => vec![rest],
            };
            used.extend(paths.into_iter().map(first_word));
        }
        used.remove("");
        used
    }
}

fn first_word(path: &str) -> String {
    path.trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Every file of `src` that is not a test.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<Source> = files
        .into_iter()
        .map(|file| Source {
            path: file.strip_prefix(&root).unwrap().to_owned(),
            code: code(&fs::read_to_string(&file).unwrap()),
        })
        .collect();
    assert!(sources.len() > 40, "found only {}", sources.len());
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// The lines before the tests; those that are comments stay, empty, so that their number is the file's.
fn code(text: &str) -> Vec<String> {
    let mut lines = text.lines().peekable();
    let mut code = Vec::new();
    while let Some(line) = lines.next() {
        let tests_follow = lines
            .peek()
            .is_some_and(|next| next.starts_with("mod tests {"));
        if line == "#[cfg(test)]" && tests_follow {
            break;
        }
        let is_comment = line.trim_start().starts_with("//");
        code.push(if is_comment { "" } else { line }.to_owned());
    }
    code
}

/// Scenario: every path that begins with `crate::`, in every file.
/// Guarantees: data walks through the stations in one direction; `receive` and `lake` never see each other.
#[test]
fn stations_use_only_what_comes_before_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for used in source.uses() {
            // Errors and macros at the crate's root would begin with a capital letter or not be modules at all.
            let is_known = COMMON.contains(&used.as_str()) || allowed.contains(&used.as_str());
            if used != module && !is_known {
                wrong.push(format!("src/{} uses crate::{used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Scenario: everything below `src/decode` and `src/rows`.
/// Guarantees: no async, no files, no sockets, no threads, no clock: the same bytes always give the same rows.
#[test]
fn decoding_is_pure() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !["decode", "rows"].contains(&source.module().as_str()) {
            continue;
        }
        for (place, line) in source.code.iter().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                let path = source.path.display();
                wrong.push(format!("src/{path}:{} has {word}", place + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Scenario: the metrics' page and what it reads from, and every other file of `src`.
/// Guarantees: the page and the overview count nothing themselves, so that nothing is counted in two places; the library that
/// writes the page, and that of the service manager, are used where they belong and nowhere else.
#[test]
fn figures_are_counted_in_one_place() {
    let homes = [
        ("prometheus_client", "receive/metrics"),
        ("sd_notify", "daemon/notify.rs"),
    ];
    let mut used = BTreeSet::new();
    for source in sources() {
        let path = source.path.display().to_string();
        let code = source.code.join("\n");
        let only_reads = path.starts_with("receive/metrics") || path == "receive/overview.rs";
        let counts = ["fetch_add", "Mutex", "AtomicU64"];
        let counted = counts.iter().find(|word| code.contains(*word));
        assert!(
            !only_reads || counted.is_none(),
            "src/{path} has {counted:?}"
        );
        for (library, home) in homes {
            if code.contains(library) {
                assert!(path.starts_with(home), "src/{path} uses {library}");
                used.insert(library);
            }
        }
    }
    assert_eq!(used.len(), homes.len());
}

/// Scenario: every file of `src`.
/// Guarantees: errors are of one type a layer; anyhow is for the program's edge alone.
#[test]
fn anyhow_is_for_the_command_line() {
    for source in sources() {
        let is_edge = ["main", "cli"].contains(&source.module().as_str());
        let has_anyhow = source.code.iter().any(|line| line.contains("anyhow"));
        assert!(is_edge || !has_anyhow, "src/{}", source.path.display());
    }
}

/// Scenario: every file of `src`, without its tests.
/// Guarantees: none is longer than a person wants to read.
#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.len() > LINES_MAX)
        .map(|source| format!("src/{}: {} lines", source.path.display(), source.code.len()))
        .collect();
    assert!(
        long.is_empty(),
        "more than {LINES_MAX}: {}",
        long.join(", ")
    );
}
