//! `ip_chain` and `client_ip`: the addresses of `x_forwarded_for`, and which of them is the client's.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// What `x_forwarded_for` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain<'a> {
    /// Every address, cleaned; what is none, as it is.
    pub(super) addresses: Vec<Cow<'a, str>>,
    /// The client's, as far as the trusted proxies can be believed.
    pub(super) client: Option<Cow<'a, str>>,
    /// Whether there is no client because what should be one is no address.
    pub(super) unparseable: bool,
}

/// Reads a list of addresses, nearest proxy last.
pub(super) fn read<'a>(list: &'a str, trusted_proxies: &[IpNet]) -> Chain<'a> {
    // As a set of one: the search for a single character is made for longer texts.
    let tokens = list.split([',']).map(str::trim).filter(|token| !token.is_empty());
    let hops: Vec<(Cow<'a, str>, Option<IpAddr>)> = tokens.map(clean).collect();
    // From the right: what a proxy appended is worth as much as the proxy is trusted; what stands left of the first
    // untrusted address was sent by the client and may say anything.
    let stop = hops.iter().rposition(|(_, address)| {
        address.is_none_or(|address| !trusted_proxies.iter().any(|network| network.contains(&address)))
    });
    let found = stop.or(if hops.is_empty() { None } else { Some(0) }).map(|at| &hops[at]);
    let unparseable = found.is_some_and(|(_, address)| address.is_none());
    let client = if unparseable { None } else { found.map(|(text, _)| text.clone()) };
    Chain { addresses: hops.into_iter().map(|(text, _)| text).collect(), client, unparseable }
}

/// The address of a token, without port, brackets and zone, in its usual spelling.
fn clean(token: &str) -> (Cow<'_, str>, Option<IpAddr>) {
    // As nearly all are written. The text of an IPv4 address is its only spelling.
    if let Ok(address) = token.parse::<Ipv4Addr>() {
        return (Cow::Borrowed(token), Some(address.into()));
    }
    let Some((text, address)) = parse(token) else { return (Cow::Borrowed(token), None) };
    let address = address.to_canonical();
    if address.is_ipv4() && !text.contains(':') {
        return (Cow::Borrowed(text), Some(address));
    }
    let usual = address.to_string();
    (if usual == text { Cow::Borrowed(text) } else { Cow::Owned(usual) }, Some(address))
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, each IPv6 address with or without `%zone`.
fn parse(token: &str) -> Option<(&str, IpAddr)> {
    let host = if let Some(rest) = token.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        host
    } else {
        match token.split_once(':') {
            Some((host, port)) if is_port(port) && host.contains('.') => host,
            _ => token,
        }
    };
    let (text, zone) = match host.split_once('%') {
        Some((text, zone)) => (text, Some(zone)),
        None => (host, None),
    };
    let address: IpAddr = text.parse().ok()?;
    let fits = if token.starts_with('[') || zone.is_some() { address.is_ipv6() } else { true };
    (fits && zone != Some("")).then_some((text, address))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain<'a>(list: &'a str, trusted: &[&str]) -> Chain<'a> {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        read(list, &trusted)
    }

    #[test]
    fn tokens_lose_port_brackets_and_zone() {
        for (token, expected) in [
            ("192.0.2.10:51234", "192.0.2.10"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:c000:201]:80", "192.0.2.1"),
            ("::1", "::1"),
        ] {
            let chain = chain(token, &[]);
            assert_eq!(chain.addresses, [expected], "{token}");
            assert_eq!(chain.client.as_deref(), Some(expected), "{token}");
        }
    }

    #[test]
    fn what_is_no_address_is_kept_as_it_is_and_names_no_client() {
        for token in [
            "unknown",
            "_hidden",
            "192.0.2.1:port",
            "192.0.2.1:99999",
            "192.0.2.1:",
            "192.0.2.1:+80",
            "192.0.2.256",
            "192.0.2.01",
            "[192.0.2.1]",
            "[::1]x",
            "[::1",
            "::1%",
            "192.0.2.1%eth0",
        ] {
            let chain = chain(token, &["0.0.0.0/0", "::/0"]);
            assert_eq!(chain.addresses, [token]);
            assert_eq!((chain.client, chain.unparseable), (None, true), "{token}");
        }
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        let list = "192.0.2.66, 203.0.113.9, 198.51.100.7";
        assert_eq!(chain(list, &["198.51.100.0/24"]).client.as_deref(), Some("203.0.113.9"));
        assert_eq!(chain(list, &[]).client.as_deref(), Some("198.51.100.7"));
        assert_eq!(chain("::ffff:198.51.100.7", &["198.51.100.0/24"]).client.as_deref(), Some("198.51.100.7"));
        assert_eq!(
            chain("192.0.2.1,::ffff:198.51.100.7", &["198.51.100.0/24"]).client.as_deref(),
            Some("192.0.2.1"),
            "a mapped address is matched as the IPv4 address it is"
        );
    }

    #[test]
    fn where_all_are_trusted_the_leftmost_is_the_client() {
        let chain = chain("198.51.100.1, 198.51.100.2", &["198.51.100.0/24"]);
        assert_eq!(chain.client.as_deref(), Some("198.51.100.1"));
    }

    #[test]
    fn what_is_no_address_is_never_skipped_past_but_may_stand_left_of_the_client() {
        let met = chain("192.0.2.1, unknown, 198.51.100.7", &["198.51.100.0/24"]);
        assert_eq!((met.client, met.unparseable), (None, true));
        let left = chain("unknown, 192.0.2.1, 198.51.100.7", &["198.51.100.0/24"]);
        assert_eq!((left.client.as_deref(), left.unparseable), (Some("192.0.2.1"), false));
    }

    #[test]
    fn empty_tokens_are_dropped() {
        assert_eq!(chain(" , ,192.0.2.1,, ", &[]).addresses, ["192.0.2.1"]);
        assert_eq!(chain(" , ", &[]), Chain::default());
    }
}
