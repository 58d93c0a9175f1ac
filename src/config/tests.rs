use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use super::sources::{keys, parse_file};
use super::value::{Count, ListenAddress, Size, Span};
use super::{
    Auth, ClientAuth, Config, ConfigError, CorsOrigins, LakeArgs, LogLevel, OpenReason, Origin,
    RawSettings, Secret, Tokens, variable_name,
};
use crate::lake::Catalog;
use crate::signal::Durability;

const TOKEN: &str = "correct-horse-battery";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: RawSettings,
}

fn flags(args: &[&str]) -> RawSettings {
    let args = std::iter::once("serve").chain(args.iter().copied());
    Flags::try_parse_from(args)
        .map(|flags| flags.settings)
        .unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn load(args: &[&str]) -> Result<Config, ConfigError> {
    Config::load(flags(args), None, [])
}

fn refusal(args: &[&str]) -> String {
    load(args).unwrap_err().to_string()
}

fn refusal_of_variable(name: &str, value: &str) -> String {
    Config::load(RawSettings::default(), None, variables(&[(name, value)]))
        .unwrap_err()
        .to_string()
}

fn refusal_of_file(text: &str) -> String {
    parse_file(Path::new("otlake.toml"), text)
        .unwrap_err()
        .to_string()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("otlake.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Scenario: nobody sets anything.
/// Guarantees: the documented defaults, with absolute paths.
#[test]
fn defaults_are_as_documented() {
    let config = load(&[]).unwrap();
    let data_dir = std::env::current_dir().unwrap().join("otlake-data");
    assert_eq!(config.data_dir, data_dir);
    assert_eq!(
        config.lake.catalog.to_string(),
        format!("sqlite:{}/catalog.sqlite", data_dir.display())
    );
    assert_eq!(config.lake.data_path, data_dir.join("lake"));
    assert_eq!(config.lake.schema, "main");
    assert_eq!(config.lake.target_file_size_bytes, 256 << 20);
    assert_eq!(config.lake.snapshot_retention, Duration::from_secs(900));
    assert_eq!(
        config.grpc_listen,
        "127.0.0.1:4317".parse::<SocketAddr>().unwrap()
    );
    assert_eq!(
        config.http_listen,
        "127.0.0.1:4318".parse::<SocketAddr>().unwrap()
    );
    assert!(matches!(
        config.auth,
        Auth::Open {
            because: OpenReason::Loopback
        }
    ));
    assert_eq!(config.cors_origins, CorsOrigins::None);
    assert_eq!(
        (config.max_body_bytes, config.max_buffered_bytes),
        (16 << 20, 512 << 20)
    );
    assert_eq!(
        (config.max_connections, config.max_concurrent_streams),
        (1024, 256)
    );
    assert_eq!(
        (config.seal.target_bytes, config.seal.max_age),
        (128 << 20, Duration::from_secs(5))
    );
    assert_eq!(config.durability, Durability::Journal);
    assert_eq!(
        (config.dedup_window, config.journal_max_bytes),
        (Duration::from_secs(300), 8 << 30)
    );
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.log.level, LogLevel::default());
}

/// Scenario: the same setting in one, two and all three sources.
/// Guarantees: flag before environment before file before default, and the origin is known.
#[test]
fn flags_go_before_environment_before_file() {
    let (_folder, path) =
        file("seal-max-age = \"1s\"\nmax-connections = 11\nschema = \"of_file\"\n");
    let environment = [
        ("OTLAKE_SEAL_MAX_AGE", "2s"),
        ("OTLAKE_MAX_CONNECTIONS", "12"),
    ];
    let config = Config::load(
        flags(&["--seal-max-age", "3s"]),
        Some(path.clone()),
        variables(&environment),
    )
    .unwrap();
    assert_eq!(config.seal.max_age, Duration::from_secs(3));
    assert_eq!(config.max_connections, 12);
    assert_eq!(config.lake.schema, "of_file");
    assert_eq!(config.max_concurrent_streams, 256);
    assert_eq!(config.origins.of("seal-max-age"), Origin::Flag);
    assert_eq!(
        config.origins.of("max-connections"),
        Origin::Environment("OTLAKE_MAX_CONNECTIONS".to_owned())
    );
    assert_eq!(config.origins.of("schema"), Origin::File(path));
    assert_eq!(config.origins.of("max-concurrent-streams"), Origin::Default);
}

/// Scenario: `OTLAKE_CONFIG` names a file, and `--config` another.
/// Guarantees: the variable's file is read, and the flag's instead of it.
#[test]
fn the_file_is_named_by_variable_or_flag() {
    let (_one, of_variable) = file("schema = \"one\"");
    let (_two, of_flag) = file("schema = \"two\"");
    let environment = vec![("OTLAKE_CONFIG".into(), of_variable.into_os_string())];
    let schema = |flag| {
        Config::load(RawSettings::default(), flag, environment.clone())
            .unwrap()
            .lake
            .schema
    };
    assert_eq!(schema(None), "one");
    assert_eq!(schema(Some(of_flag)), "two");
}

/// Scenario: a file that is not there.
/// Guarantees: the message names it.
#[test]
fn a_missing_file_is_named() {
    let error = Config::load(RawSettings::default(), Some("/no/such.toml".into()), []).unwrap_err();
    assert!(matches!(error, ConfigError::ReadFile { .. }));
    assert!(error.to_string().contains("/no/such.toml"));
}

/// Scenario: keys and variables with typing mistakes.
/// Guarantees: each is an error that suggests the nearest; variables of otlake's clients and other programs pass.
#[test]
fn unknown_names_are_errors_with_suggestions() {
    assert_eq!(
        refusal_of_file("seal_max_age = \"1s\""),
        "otlake.toml: unknown setting `seal_max_age`, did you mean `seal-max-age`?; `otlake serve --help` lists the settings"
    );
    assert!(!refusal_of_file("[colour]\nof = \"sky\"").contains("did you mean"));
    assert!(
        refusal_of_variable("OTLAKE_GRPC_LISTN", "x")
            .contains("OTLAKE_GRPC_LISTN, did you mean `OTLAKE_GRPC_LISTEN`?")
    );
    assert!(refusal_of_variable("OTLAKE_ENDPONT", "x").contains("`OTLAKE_ENDPOINT`"));
    assert!(!refusal_of_variable("OTLAKE_FLUX", "x").contains("did you mean"));
    let pass = [
        ("OTLAKE_ENDPOINT", "http://127.0.0.1:4317"),
        ("PATH", "/bin"),
        // What Kubernetes sets for a service called otlake.
        ("OTLAKE_SERVICE_HOST", "10.0.0.1"),
        ("OTLAKE_SERVICE_PORT_OTLP", "4317"),
        ("OTLAKE_PORT", "tcp://10.0.0.1:4317"),
        ("OTLAKE_PORT_4317_TCP_ADDR", "10.0.0.1"),
    ];
    Config::load(RawSettings::default(), None, variables(&pass)).unwrap();
}

/// Scenario: values of the wrong form in each source.
/// Guarantees: the message names the place and the right form; in a file the line.
#[test]
fn wrong_forms_are_named_with_their_place() {
    assert_eq!(
        refusal_of_variable("OTLAKE_MAX_BODY_BYTES", "many"),
        "OTLAKE_MAX_BODY_BYTES: `many` is not a size: write 16MiB, 64KB or a plain number of bytes"
    );
    assert!(refusal_of_variable("OTLAKE_NO_AUTH", "maybe").starts_with("OTLAKE_NO_AUTH: "));
    assert!(refusal_of_variable("OTLAKE_SEAL_MAX_AGE", "5").contains("write 500ms, 5s, 15m or 1h"));
    assert_eq!(
        refusal_of_file("schema = \"a\"\nseal-max-age = 5\n"),
        "otlake.toml:2: `5` is not a duration: write 500ms, 5s, 15m or 1h"
    );
    assert!(refusal_of_file("max-connections = -1").contains("`-1` is not a whole number"));
    assert!(refusal_of_file("schema = \"a\"\nschema = \"b\"").starts_with("otlake.toml:2: "));
    assert!(Flags::try_parse_from(["serve", "--log-format", "xml"]).is_err());
    assert_eq!(
        refusal_of_variable("OTLAKE_DURABILITY", "disk"),
        "OTLAKE_DURABILITY: `disk` is not a durability: write journal, memory or lake"
    );
    assert!(Flags::try_parse_from(["serve", "--durability", "disk"]).is_err());
}

/// Scenario: every setting given as a text, in a file and in the environment.
/// Guarantees: clap's flag, the file's key and the variable are the same list, and numbers may be quoted.
#[test]
fn every_setting_has_flag_key_and_variable() {
    let value = |key: &str| match key {
        "grpc-listen" => "localhost:14317",
        "http-listen" => "[::1]:0",
        "token" => TOKEN,
        "quack-listen" => "localhost",
        "quack-token" => "correct-horse-quack",
        "lake-name" => "otel",
        "no-auth" | "lake-group-readable" => "false",
        "cors-origin" => "https://a.example, https://b.example:8443",
        "allowed-host" => "otlake.example, [fd00::1]",
        "tls-client-auth" => "optional",
        key if key.starts_with("tls-") || key == "token-file" => "/tmp/otlake.pem",
        "catalog" => "duckdb:/tmp/lake.duckdb",
        "schema" => "telemetry",
        "snapshot-retention" => "2s",
        "durability" => "lake",
        "max-buffered-bytes" | "journal-max-bytes" => "64MiB",
        "log-format" => "json",
        "log-level" => "debug",
        key if key.ends_with("-bytes") || key == "target-file-size" => "8MiB",
        key if key.ends_with("-dir") => "/tmp/otlake",
        key if key.ends_with("-path") => "/tmp/lake",
        key if key.starts_with("max-") => "77",
        _ => "700ms",
    };
    let keys = keys();
    assert_eq!(keys.len(), 34);
    let mut text = String::new();
    for key in &keys {
        writeln!(text, "{key} = {:?}", value(key)).unwrap();
    }
    let (_folder, path) = file(&text);
    let from_file = Config::load(RawSettings::default(), Some(path), []).unwrap();
    let environment: Vec<(OsString, OsString)> = keys
        .iter()
        .map(|key| (variable_name(key).into(), value(key).into()))
        .collect();
    let from_environment = Config::load(RawSettings::default(), None, environment).unwrap();
    for config in [from_file, from_environment] {
        assert_eq!(
            config.grpc_listen,
            "127.0.0.1:14317".parse::<SocketAddr>().unwrap()
        );
        assert_eq!(config.http_listen, "[::1]:0".parse::<SocketAddr>().unwrap());
        assert!(
            matches!(&config.auth, Auth::Token(Tokens { token: Some(token), file: Some(_), .. }) if token.expose() == TOKEN)
        );
        let origins = ["https://a.example", "https://b.example:8443"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(config.cors_origins, CorsOrigins::Exact(origins));
        assert_eq!(
            config.allowed_hosts.as_list(),
            ["otlake.example", "[fd00::1]"]
        );
        assert!(
            matches!(&config.lake.catalog, Catalog::DuckDb(path) if path == Path::new("/tmp/lake.duckdb"))
        );
        assert_eq!(config.max_concurrent_streams, 77);
        assert_eq!(config.durability, Durability::Lake);
        assert_eq!(config.dedup_window, Duration::from_millis(700));
        assert_eq!(config.journal_max_bytes, 64 << 20);
        assert_eq!(config.shutdown_grace, Duration::from_millis(700));
        assert_eq!(config.log.level.directives(), "warn,otlake=debug");
        assert!(
            keys.iter().all(|key| config.origins.is_set(key)),
            "{:?}",
            config.origins
        );
    }
}

/// Scenario: the settings in effect, of several configurations, are fed back as a file.
/// Guarantees: the file is valid and changes nothing; each line says where its value came from.
#[test]
fn effective_settings_are_a_valid_file() {
    let configurations: [&[&str]; 5] = [
        &[],
        &[
            "--no-auth",
            "--grpc-listen",
            "[::]:4317",
            "--cors-origin",
            "*",
            "--extension-dir",
            "/opt/e",
        ],
        &[
            "--max-buffered-bytes",
            "1000001",
            "--seal-max-age",
            "1500ms",
            "--data-dir",
            "/tmp/with \"quotes\"",
        ],
        &[
            "--cors-origin",
            "https://a.example,http://localhost:3000",
            "--log-level",
            "info,otlake::lake=trace",
        ],
        &[
            "--durability",
            "memory",
            "--dedup-window",
            "0s",
            "--journal-max-bytes",
            "1500001",
        ],
    ];
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(" # ").unwrap().0.trim_end().to_owned())
            .collect()
    };
    for args in configurations {
        let effective = load(args).unwrap().effective();
        let (_folder, path) = file(&effective);
        let again = Config::load(RawSettings::default(), Some(path), [])
            .unwrap()
            .effective();
        assert_eq!(values(&again), values(&effective));
        assert_eq!(
            values(&effective).len(),
            if args.contains(&"--extension-dir") {
                25
            } else {
                24
            }
        );
    }
    let environment = variables(&[("OTLAKE_SCHEMA", "one")]);
    let text = Config::load(flags(&["--max-buffered-bytes=64MiB"]), None, environment)
        .unwrap()
        .effective();
    for (start, end) in [
        ("schema = \"one\" ", " # environment OTLAKE_SCHEMA"),
        (
            "max-buffered-bytes = \"64MiB\" ",
            " # flag --max-buffered-bytes",
        ),
        (
            "seal-target-bytes = \"16MiB\" ",
            " # default that follows from max-buffered-bytes",
        ),
        ("max-body-bytes = \"16MiB\" ", " # default"),
    ] {
        assert!(
            text.lines()
                .any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start}{end} in\n{text}"
        );
    }
}

/// Scenario: a token is set, and shown in every way there is.
/// Guarantees: the token itself never appears, nor anything that could be read back as one.
#[test]
fn the_token_is_never_shown() {
    let config = load(&["--token", TOKEN]).unwrap();
    let effective = config.effective();
    assert!(effective.contains("# token: ******** (flag --token; masked)"));
    assert!(!effective.lines().any(|line| line.starts_with("token")));
    let Auth::Token(Tokens {
        token: Some(secret),
        ..
    }) = &config.auth
    else {
        panic!("a token was given")
    };
    let raw = flags(&["--token", TOKEN]);
    for shown in [
        format!("{config:?}"),
        effective,
        format!("{secret}"),
        format!("{secret:?}"),
        format!("{raw:?}"),
    ] {
        assert!(!shown.contains("horse"), "{shown}");
    }
    assert_eq!(secret.expose(), TOKEN);
    // A file's error would show its line, if it were toml's own.
    assert!(!refusal_of_file("token = \"correct-horse\nschema = 1").contains("horse"));
    assert!(!refusal_of_file("token = correct-horse").contains("horse"));
    assert!(!refusal_of_file("token = [\"correct-horse\"]").contains("horse"));
    assert!(!refusal(&["--token", "horse"]).contains("horse"));
}

/// Scenario: quack is asked for by the bare flag, at the end and before another one, and with an address.
/// Guarantees: the bare flag means its usual port on this machine, and swallows nothing.
#[test]
fn quack_needs_no_address() {
    let token = ["--quack-token", "correct-horse-quack"];
    for (args, address) in [
        ([&token[..], &["--quack-listen"]].concat(), "127.0.0.1:9494"),
        ([&["--quack-listen"], &token[..]].concat(), "127.0.0.1:9494"),
        (
            [&["--quack-listen", "[::1]"], &token[..]].concat(),
            "[::1]:9494",
        ),
    ] {
        let quack = load(&args).unwrap().quack.unwrap();
        assert_eq!(quack.listen.to_string(), address);
        assert_eq!(quack.lake_name, "lake");
    }
    assert!(load(&[]).unwrap().quack.is_none());
}

/// Scenario: tokens that cannot work, or were not meant.
/// Guarantees: each is refused with its reason.
#[test]
fn bad_tokens_are_refused() {
    assert!(
        refusal(&["--token", "fifteen-letters"])
            .starts_with("--token: the token has 15 characters: it needs 16")
    );
    load(&["--token", "sixteen-letters!"]).unwrap();
    assert!(refusal_of_variable("OTLAKE_TOKEN", "").contains("has 0 characters"));
    assert!(
        refusal_of_variable("OTLAKE_TOKEN", "${OTLAKE_TOKEN_OF_TEAM}").contains("not expanded")
    );
    for bad in [
        "sixteen letters and spaces",
        "sechzehn-Umlaute-äöü",
        "sixteen-letters\tand-tab",
    ] {
        assert!(
            refusal(&["--token", bad]).contains("visible ASCII"),
            "{bad}"
        );
    }
    let long = "x".repeat(1025);
    assert!(refusal(&["--token", &long]).contains("1025 characters"));
}

/// Scenario: listeners on loopback and elsewhere, with and without token and --no-auth.
/// Guarantees: open to others only if asked for; the two never contradict each other.
#[test]
fn other_addresses_need_a_token_or_no_auth() {
    for wide in ["0.0.0.0:4317", "[::]:4317", "192.0.2.1:4317"] {
        let message = refusal(&["--grpc-listen", wide]);
        assert!(
            message.starts_with(&format!("--grpc-listen {wide} can be reached")),
            "{message}"
        );
        assert!(message.contains("OTLAKE_TOKEN") && message.contains("--no-auth"));
        assert!(refusal(&["--grpc-listen", wide, "--no-auth=false"]).contains("can be reached"));
        let config = load(&["--grpc-listen", wide, "--no-auth"]).unwrap();
        assert!(matches!(
            config.auth,
            Auth::Open {
                because: OpenReason::NoAuth
            }
        ));
        assert!(matches!(
            load(&["--grpc-listen", wide, "--token", TOKEN])
                .unwrap()
                .auth,
            Auth::Token(_)
        ));
    }
    assert!(refusal(&["--http-listen", "0.0.0.0:0"]).starts_with("--http-listen 0.0.0.0:0"));
    for narrow in [
        "127.0.0.2:1",
        "[::1]:1",
        "localhost:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert!(matches!(
            load(&["--grpc-listen", narrow]).unwrap().auth,
            Auth::Open {
                because: OpenReason::Loopback
            }
        ));
    }
    let environment = variables(&[("OTLAKE_TOKEN", TOKEN)]);
    let message = Config::load(flags(&["--no-auth"]), None, environment)
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "OTLAKE_TOKEN and --no-auth contradict each other: remove one"
    );
}

/// Scenario: two listeners on one port, in several spellings.
/// Guarantees: refused when they cannot both be bound; port 0 and different hosts pass.
#[test]
fn one_port_is_not_given_twice() {
    let both = |grpc, http| load(&["--no-auth", "--grpc-listen", grpc, "--http-listen", http]);
    for (grpc, http) in [
        ("127.0.0.1:4317", "localhost:4317"),
        ("0.0.0.0:4317", "127.0.0.1:4317"),
        ("[::1]:4317", "[::]:4317"),
        ("[::]:4317", "127.0.0.1:4317"),
    ] {
        assert!(
            both(grpc, http)
                .unwrap_err()
                .to_string()
                .contains("are the same port"),
            "{grpc} {http}"
        );
    }
    for (grpc, http) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:4317", "[::1]:4317"),
        ("0.0.0.0:4317", "[::1]:4317"),
        ("127.0.0.1:4317", "127.0.0.2:4317"),
    ] {
        both(grpc, http).unwrap();
    }
}

/// Scenario: addresses in other forms.
/// Guarantees: names, bare ports and nonsense are refused with the right form.
#[test]
fn listen_addresses_have_one_form() {
    assert_eq!(
        "LOCALHOST:0".parse::<ListenAddress>().unwrap().0,
        "127.0.0.1:0".parse().unwrap()
    );
    for bad in [
        "4317",
        ":4317",
        "example.com:4317",
        "127.0.0.1",
        "localhost",
        "::1:4317",
        "127.0.0.1:99999",
        "",
    ] {
        assert!(
            bad.parse::<ListenAddress>()
                .unwrap_err()
                .contains("write 127.0.0.1:4317"),
            "{bad}"
        );
    }
}

/// Scenario: the buffer or the journal is made smaller, or the seal or the body larger.
/// Guarantees: a smaller buffer or journal alone lowers the defaults of the others; contradictions name both flags.
#[test]
fn limits_in_bytes_fit_together() {
    let small = load(&["--max-buffered-bytes", "8MiB"]).unwrap();
    assert_eq!(
        (small.seal.target_bytes, small.max_body_bytes),
        (2 << 20, 8 << 20)
    );
    assert_eq!(
        small.origins.of("seal-target-bytes"),
        Origin::DefaultFrom("max-buffered-bytes")
    );
    let smallest = load(&["--max-buffered-bytes", "64KiB"]).unwrap();
    assert_eq!(
        (smallest.seal.target_bytes, smallest.max_body_bytes),
        (16 << 10, 64 << 10)
    );
    assert_eq!(
        load(&["--max-buffered-bytes", "4GiB"])
            .unwrap()
            .seal
            .target_bytes,
        128 << 20
    );
    load(&["--seal-target-bytes", "256MiB"]).unwrap();

    let short = load(&["--journal-max-bytes", "100MiB"]).unwrap();
    assert_eq!(
        (short.seal.target_bytes, short.max_body_bytes),
        (25 << 20, 16 << 20)
    );
    assert_eq!(
        short.origins.of("seal-target-bytes"),
        Origin::DefaultFrom("journal-max-bytes")
    );
    let shortest = load(&["--journal-max-bytes", "1MiB"]).unwrap();
    assert_eq!(shortest.seal.target_bytes, 256 << 10);
    let both = ["--journal-max-bytes", "8MiB", "--max-buffered-bytes"];
    for (buffered, target, from) in [
        ("64MiB", 2 << 20, "journal-max-bytes"),
        ("4MiB", 1 << 20, "max-buffered-bytes"),
    ] {
        let config = load(&[&both[..], &[buffered]].concat()).unwrap();
        assert_eq!(config.seal.target_bytes, target, "{buffered}");
        assert_eq!(
            config.origins.of("seal-target-bytes"),
            Origin::DefaultFrom(from),
            "{buffered}"
        );
    }
    let enough = ["--journal-max-bytes", "512MiB"];
    assert_eq!(
        load(&enough).unwrap().origins.of("seal-target-bytes"),
        Origin::Default
    );
    load(&["--journal-max-bytes", "8MiB", "--seal-target-bytes", "4MiB"]).unwrap();

    let environment = variables(&[("OTLAKE_JOURNAL_MAX_BYTES", "8MiB")]);
    assert_eq!(
        Config::load(flags(&["--seal-target-bytes", "5MiB"]), None, environment)
            .unwrap_err()
            .to_string(),
        "--seal-target-bytes 5MiB needs OTLAKE_JOURNAL_MAX_BYTES of at least 10MiB, one seal filling while one is published, and it is 8MiB: raise the latter or lower the former"
    );
    assert_eq!(
        refusal(&["--seal-target-bytes", "257MiB"]),
        "--seal-target-bytes 257MiB needs --max-buffered-bytes of at least 514MiB, one seal filling while one is staged, and it is 512MiB: raise the latter or lower the former"
    );
    assert_eq!(
        refusal(&["--max-body-bytes", "2MiB", "--max-buffered-bytes", "1MiB"]),
        "--max-body-bytes 2MiB does not fit into --max-buffered-bytes 1MiB: raise the latter or lower the former"
    );
}

/// Scenario: each limit just inside and just outside its range.
/// Guarantees: outside is refused with the range.
#[test]
fn limits_have_ranges() {
    for (flag, inside, outside) in [
        ("--max-body-bytes", ["1KiB", "512MiB"], ["1023", "1025MiB"]),
        (
            "--max-buffered-bytes",
            ["64KiB", "1TiB"],
            ["65535", "99999999PiB"],
        ),
        ("--seal-target-bytes", ["4KiB", "256MiB"], ["4095", "17GiB"]),
        ("--seal-max-age", ["10ms", "1h"], ["9ms", "61m"]),
        ("--dedup-window", ["0s", "1h"], ["1ms 1h", "61m"]),
        (
            "--journal-max-bytes",
            ["1MiB", "64TiB"],
            ["1023KiB", "65TiB"],
        ),
        ("--max-connections", ["1", "1000000"], ["0", "1000001"]),
        ("--max-concurrent-streams", ["1", "65536"], ["0", "65537"]),
        ("--target-file-size", ["64KiB", "64GiB"], ["0", "65GiB"]),
        ("--snapshot-retention", ["1s", "3650d"], ["0s", "3651d"]),
        ("--shutdown-grace", ["0s", "1h"], ["1ms 1h", "100000y"]),
    ] {
        for value in inside {
            load(&[flag, value]).unwrap_or_else(|error| panic!("{flag} {value}: {error}"));
        }
        for value in outside {
            let error = load(&[flag, value]).unwrap_err();
            assert!(
                matches!(error, ConfigError::OutOfRange { .. }),
                "{flag} {value}: {error}"
            );
        }
    }
    assert_eq!(
        refusal(&["--seal-max-age", "1ms"]),
        "--seal-max-age is 1ms: it can be from 10ms to 1h"
    );
}

/// Scenario: sizes, durations and counts in all the forms people write.
/// Guarantees: read exactly, and written back so that they read the same.
#[test]
fn sizes_and_durations_read_and_write_exactly() {
    for (text, bytes, back) in [
        ("16MiB", 16 << 20, "16MiB"),
        ("64KB", 64_000, "64000"),
        ("4096", 4096, "4KiB"),
        ("1.5 GiB", 3 << 29, "1536MiB"),
        ("0", 0, "0"),
    ] {
        let size: Size = text.parse().unwrap();
        assert_eq!(
            (size, size.to_string().as_str()),
            (Size(bytes), back),
            "{text}"
        );
        assert_eq!(back.parse(), Ok(size));
    }
    for bad in ["", "MiB", "-1", "16 apples", "1e9"] {
        assert!(
            bad.parse::<Size>().unwrap_err().contains("write 16MiB"),
            "{bad}"
        );
    }
    for (text, millis) in [
        ("500ms", 500),
        ("5s", 5000),
        ("15m", 900_000),
        ("1h 30m", 5_400_000),
    ] {
        let span: Span = text.parse().unwrap();
        assert_eq!(span, Span(Duration::from_millis(millis)));
        assert_eq!(span.to_string().parse(), Ok(span));
    }
    for bad in ["", "5", "-5s", "soon"] {
        assert!(
            bad.parse::<Span>().unwrap_err().contains("write 500ms"),
            "{bad}"
        );
    }
    assert!("1.5".parse::<Count>().is_err());
}

/// Scenario: origins in all forms.
/// Guarantees: exact ones and `*` pass; what a browser never sends is refused.
#[test]
fn cors_origins_are_exact_or_all() {
    let config = load(&[
        "--cors-origin",
        "https://App.example.com",
        "--cors-origin",
        "http://[::1]:3000,vscode-webview://abc",
    ])
    .unwrap();
    assert!(config.cors_origins.allows("https://app.example.com"));
    assert!(config.cors_origins.allows("http://[::1]:3000"));
    assert!(!config.cors_origins.allows("https://app.example.com:8443"));
    assert!(!config.cors_origins.allows("null"));
    assert!(
        load(&["--cors-origin", "*"])
            .unwrap()
            .cors_origins
            .allows("https://anything")
    );
    assert!(!load(&[]).unwrap().cors_origins.allows("https://anything"));
    for bad in [
        "app.example.com",
        "https://",
        "https://a/",
        "https://a/b",
        "https://*.a",
        "null",
        "https://a:port",
        "https://u@a",
        "://a",
    ] {
        assert!(
            refusal(&["--cors-origin", bad]).contains("is not an origin"),
            "{bad}"
        );
    }
    assert!(refusal(&["--cors-origin", "*,https://a"]).contains("write it alone"));
    let (_folder, path) = file("cors-origin = [\"https://a\", \"https://b\"]");
    let config = Config::load(RawSettings::default(), Some(path), []).unwrap();
    assert_eq!(config.cors_origins.as_list(), ["https://a", "https://b"]);
}

/// Scenario: the lake in other places, for `serve` and for `query`.
/// Guarantees: paths become absolute; what would mix or break is refused.
#[test]
fn the_lake_can_be_elsewhere() {
    let here = std::env::current_dir().unwrap();
    let config = load(&[
        "--catalog",
        "duckdb:cat.db",
        "--data-path",
        "files",
        "--data-dir",
        "/d",
    ])
    .unwrap();
    assert_eq!(
        config.lake.catalog.to_string(),
        format!("duckdb:{}", here.join("cat.db").display())
    );
    assert_eq!(config.lake.data_path, here.join("files"));
    assert_eq!(
        load(&["--data-dir", "/d"]).unwrap().lake.data_path,
        Path::new("/d/lake")
    );
    let args = LakeArgs {
        schema: Some("s".to_owned()),
        ..LakeArgs::default()
    };
    let lake = args.resolve(Path::new("/d")).unwrap();
    assert_eq!(
        (lake.catalog.to_string().as_str(), lake.schema.as_str()),
        ("sqlite:/d/catalog.sqlite", "s")
    );

    for bad in ["/d", "/", "/d/staged", "/d/journal/x"] {
        assert!(
            refusal(&["--data-dir", "/d", "--data-path", bad]).contains("would mix"),
            "{bad}"
        );
    }
    assert!(refusal(&["--data-path", "s3://bucket/lake"]).contains("not supported yet"));
    assert!(refusal(&["--catalog", "mysql:x"]).starts_with("--catalog: "));
    assert!(refusal_of_variable("OTLAKE_DATA_DIR", "").contains("the path is empty"));
    for bad in [
        "",
        "1st",
        "has space",
        "semi;colon",
        "quo\"te",
        &"x".repeat(64),
    ] {
        assert!(
            refusal(&["--schema", bad]).contains("is not a schema's name"),
            "{bad}"
        );
    }
    assert!(refusal(&["--schema", "Information_Schema"]).contains("keeps for itself"));
}

/// Scenario: log levels from the settings and from `RUST_LOG`.
/// Guarantees: a mistyped level is refused; `RUST_LOG` counts only when no source of ours sets the level.
#[test]
fn log_level_is_checked_and_rust_log_comes_last() {
    let level = |text: &str| text.parse::<LogLevel>().map(|level| level.directives());
    assert_eq!(level("INFO").unwrap(), "warn,otlake=info");
    assert_eq!(level("error").unwrap(), "error");
    assert_eq!(level("info,h2=debug").unwrap(), "info,h2=debug");
    for bad in ["inof", "otlake=loud", ""] {
        assert!(
            level(bad).unwrap_err().contains("is not a log level"),
            "{bad}"
        );
    }
    let with = |args: &[&str], rust_log: &str| {
        Config::load(flags(args), None, variables(&[("RUST_LOG", rust_log)]))
    };
    assert_eq!(with(&[], "trace").unwrap().log.level.to_string(), "trace");
    assert_eq!(
        with(&["--log-level", "warn"], "trace")
            .unwrap()
            .log
            .level
            .to_string(),
        "warn"
    );
    assert_eq!(with(&[], "").unwrap().log.level, LogLevel::default());
    assert!(
        with(&[], "otlake=loud")
            .unwrap_err()
            .to_string()
            .starts_with("RUST_LOG: ")
    );
    assert!(format!("{:?}", Secret::from("x".to_owned())).contains('*'));
}

/// Scenario: some of the settings of TLS without those that they need; then all of them.
/// Guarantees: the error names what is missing; paths become absolute; clients must show a certificate unless told
/// otherwise, and those that must need no token beside it.
#[test]
fn the_settings_of_tls_belong_together() {
    let cert = ["--tls-cert", "cert.pem"];
    let pair = ["--tls-cert", "cert.pem", "--tls-key", "/k/key.pem"];
    let needs = |args: &[&str], what: &str| assert_eq!(refusal(args), what);
    needs(&cert, "--tls-cert needs --tls-key too");
    needs(&pair[2..], "--tls-key needs --tls-cert too");
    let ca = ["--tls-client-ca", "ca.pem"];
    needs(&ca, "--tls-client-ca needs --tls-cert and --tls-key too");
    let optional = ["--tls-client-auth", "optional"];
    needs(
        &[&pair[..], &optional].concat(),
        "--tls-client-auth needs --tls-client-ca too",
    );
    assert_eq!(load(&[]).unwrap().tls, None);
    let tls = load(&pair).unwrap().tls.unwrap();
    assert!(tls.cert.is_absolute() && tls.cert.ends_with("cert.pem"));
    assert_eq!(
        (tls.key.as_path(), &tls.client_ca),
        (Path::new("/k/key.pem"), &None)
    );

    let wide = ["--grpc-listen", "0.0.0.0:0"];
    let mutual = [&pair[..], &ca, &wide].concat();
    let config = load(&mutual).unwrap();
    assert!(matches!(
        config.auth,
        Auth::Open {
            because: OpenReason::ClientCertificate
        }
    ));
    assert_eq!(
        config.tls.unwrap().client_ca.unwrap().auth,
        ClientAuth::Required
    );
    assert!(refusal(&[&mutual[..], &optional].concat()).contains("can be reached"));
    let file = ["--token-file", "tokens"];
    let config = load(&[&mutual[..], &optional, &file].concat()).unwrap();
    assert!(matches!(config.auth, Auth::Token(_)));
    let effective = config.effective();
    for line in [
        "tls-client-auth = \"optional\" ",
        "token-file = \"/",
        "tls-cert = \"/",
    ] {
        assert!(effective.contains(line), "{effective}");
    }
    assert!(refusal(&["--token-file", "tokens", "--no-auth"]).starts_with("--token-file and"));
}

/// Scenario: hosts in all forms.
/// Guarantees: names and addresses without scheme, port and path are taken, case and the root's dot do not matter; anything
/// else is refused, so that a host that never matches is not a setting.
#[test]
fn allowed_hosts_are_names_addresses_or_all() {
    let config = load(&[
        "--allowed-host",
        "A.example.,b",
        "--allowed-host",
        "[fd00::1]",
    ])
    .unwrap();
    assert_eq!(
        config.allowed_hosts.as_list(),
        ["a.example", "b", "[fd00::1]"]
    );
    for host in [
        "a.EXAMPLE",
        "b.",
        "[fd00::1]",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ] {
        assert!(config.allowed_hosts.allows(host), "{host}");
    }
    for host in ["c", "x.a.example", "", ".", "[::2]", "10.0.0.1"] {
        assert!(!config.allowed_hosts.allows(host), "{host}");
    }
    let all = load(&["--allowed-host", "*"]).unwrap().allowed_hosts;
    assert!(all.allows("anything"));
    for bad in ["https://a", "a:80", "a/b", "*.a", "u@a", "[a]", "::1", "é"] {
        assert!(
            refusal(&["--allowed-host", bad]).contains("is not a host"),
            "{bad}"
        );
    }
    assert!(refusal(&["--allowed-host", "*,a"]).contains("write it alone"));
}

/// Scenario: a lake for the group, inside the data folder and outside of it, in whole and in part.
/// Guarantees: what the group could never reach is refused, with the setting that has to change.
#[test]
fn a_lake_for_the_group_is_outside_of_the_data_folder() {
    let lake = ["--catalog", "sqlite:/srv/lake/catalog.sqlite"];
    let files = ["--data-path", "/srv/lake/files"];
    let group = ["--lake-group-readable", "--data-dir", "/srv/otlake"];
    let config = load(&[group.as_slice(), &lake, &files].concat()).unwrap();
    assert!(config.lake.is_group_readable);
    assert!(!load(&[]).unwrap().lake.is_group_readable);
    assert!(refusal(&[group.as_slice(), &files].concat()).contains("set --catalog to"));
    assert!(refusal(&[group.as_slice(), &lake].concat()).contains("set --data-path to"));
}
