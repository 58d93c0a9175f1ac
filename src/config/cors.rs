//! Which browser origins may send.

/// The origins that pass the `Origin` check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// No request with an `Origin` header is let in.
    None,
    /// Exactly these, lower case, such as `https://app.example.com` or `http://localhost:3000`.
    Exact(Vec<String>),
    /// All of them (`*`).
    Any,
}

impl CorsOrigins {
    /// Whether a request with this `Origin` header is let in.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            CorsOrigins::None => false,
            CorsOrigins::Exact(origins) => origins
                .iter()
                .any(|known| known.eq_ignore_ascii_case(origin)),
            CorsOrigins::Any => true,
        }
    }

    /// The origins as they are written in the settings.
    pub(super) fn as_list(&self) -> Vec<String> {
        match self {
            CorsOrigins::None => Vec::new(),
            CorsOrigins::Exact(origins) => origins.clone(),
            CorsOrigins::Any => vec!["*".to_owned()],
        }
    }

    /// Reads a list of origins; `Err` says what is wrong with the first bad one.
    pub(super) fn from_list(list: &[String]) -> Result<CorsOrigins, String> {
        let mut exact = Vec::with_capacity(list.len());
        for origin in list
            .iter()
            .map(|origin| origin.trim())
            .filter(|origin| !origin.is_empty())
        {
            if origin == "*" && list.len() > 1 {
                return Err("`*` allows every origin: write it alone".to_owned());
            }
            if origin == "*" {
                return Ok(CorsOrigins::Any);
            }
            if !is_origin(origin) {
                return Err(format!(
                    "`{origin}` is not an origin: write scheme://host or scheme://host:port without a path, such as https://app.example.com, or `*`"
                ));
            }
            let origin = origin.to_ascii_lowercase();
            if !exact.contains(&origin) {
                exact.push(origin);
            }
        }
        Ok(if exact.is_empty() {
            CorsOrigins::None
        } else {
            CorsOrigins::Exact(exact)
        })
    }
}

/// Whether the text has the form browsers send: scheme, host and perhaps a port (RFC 6454, section 6.1).
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 host are inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_ok = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        }
    };
    scheme_ok && host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok())
}
