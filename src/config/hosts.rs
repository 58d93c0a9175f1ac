//! Under which names a listener on a loopback address may be reached.
//!
//! Whoever owns a domain can let its name point to 127.0.0.1 once a page from it is loaded (DNS rebinding). To the
//! browser such a page and the server on this machine are then one site, and no `Origin` tells them apart; but the name
//! is still in the request. A name that only this machine gives away, or an address, cannot be taken over so.

use std::net::IpAddr;

/// The hosts that pass the `Host` check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Loopback addresses, `localhost`, everything below it, and these names, lower case.
    Named(Vec<String>),
    /// All of them (`*`).
    Any,
}

impl AllowedHosts {
    /// Whether a request for this host is let in. The host is without its port; IPv6 may have its brackets.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let AllowedHosts::Named(names) = self else {
            return true;
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>()
            && ip.to_canonical().is_loopback()
        {
            return true;
        }
        let host = canonical(host);
        host == "localhost" || host.ends_with(".localhost") || names.contains(&host)
    }

    /// The names as they are written in the settings.
    pub(super) fn as_list(&self) -> Vec<String> {
        match self {
            AllowedHosts::Named(names) => names.clone(),
            AllowedHosts::Any => vec!["*".to_owned()],
        }
    }

    /// Reads a list of hosts; `Err` says what is wrong with the first bad one.
    pub(super) fn from_list(list: &[String]) -> Result<AllowedHosts, String> {
        let mut names = Vec::with_capacity(list.len());
        for host in list
            .iter()
            .map(|host| host.trim())
            .filter(|host| !host.is_empty())
        {
            if host == "*" && list.len() > 1 {
                return Err("`*` allows every host: write it alone".to_owned());
            }
            if host == "*" {
                return Ok(AllowedHosts::Any);
            }
            if !is_host(host) {
                return Err(format!(
                    "`{host}` is not a host: write a name or an address without scheme, port and path, such as telemetry.example.com or [fd00::1], or `*`"
                ));
            }
            let host = canonical(host);
            if !names.contains(&host) {
                names.push(host);
            }
        }
        Ok(AllowedHosts::Named(names))
    }
}

/// Names are the same whatever their case, and with the root's dot or without.
fn canonical(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Whether the text can be the host of a URL (RFC 3986, section 3.2.2), as clients send it.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')),
    }
}
