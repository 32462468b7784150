//! IP addresses and networks, read as event-ruler reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    mask_bits: u32,
}

impl Network {
    /// The network of an address alone.
    pub fn host(text: &str) -> Option<Self> {
        let address = address(text)?;
        Some(Self { address, mask_bits: width(address) })
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let (address_text, bits) = text
            .trim_end_matches('/')
            .split_once('/')
            .ok_or("a CIDR block is an address, `/` and a number of bits, such as `10.0.0.0/8`")?;
        let address =
            address(address_text).ok_or_else(|| format!("`{address_text}` is not an IP address"))?;
        let bits_max = width(address) - 1;
        let mask_bits = bits.parse().ok().filter(|bits| *bits <= bits_max);
        let mask_bits =
            mask_bits.ok_or_else(|| format!("`{bits}` is not a number of bits from 0 to {bits_max}"))?;
        Ok(Self { address, mask_bits })
    }

    pub fn contains(&self, text: &str) -> bool {
        address(text).is_some_and(|address| match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - self.mask_bits).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.mask_bits).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        })
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address as Java reads it: leading zeros are decimal, and an IPv4 address mapped into IPv6 is the IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let address = ipv6(text)?;
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    ipv4(text).map(IpAddr::V4)
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    const LENGTH_MAX: usize = 15;
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    if text.len() > LENGTH_MAX {
        return None;
    }
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Groups of hexadecimal digits only; an address with a dotted end is a plain text to event-ruler.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let groups = |part: &str| -> Option<Vec<u16>> {
        if part.is_empty() {
            return Some(Vec::new());
        }
        part.split(':').map(group).collect()
    };
    let Some((head, tail)) = text.split_once("::") else {
        let all: [u16; 8] = groups(text)?.try_into().ok()?;
        return Some(all.into());
    };
    let (head, tail) = (groups(head)?, groups(tail)?);
    let mut all = [0; 8];
    let zeros = 8_usize.checked_sub(head.len() + tail.len()).filter(|zeros| *zeros > 0)?;
    all[..head.len()].copy_from_slice(&head);
    all[head.len() + zeros..].copy_from_slice(&tail);
    Some(all.into())
}

fn group(digits: &str) -> Option<u16> {
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hexadecimal { None } else { u16::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_share_its_bits() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.0.0.0/8", "10.0.0.010", true),
            ("10.0.0.0/8", "::ffff:a00:1", true),
            ("10.0.0.0/8", "10.0.0", false),
            ("10.0.0.0/8", "10.0.0.256", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1:2:3:4:5:6:7:8", true),
            ("::/0", "1.2.3.4", false),
            ("2001:db8::/32", "2001:0DB8:0:1::5", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:db8::/32", "2001:db8:::", false),
            ("2001:db8::/32", "2001:db8", false),
        ] {
            let parsed = Network::parse(network).expect("a network");
            assert_eq!(parsed.contains(address), expected, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/32",
            "10.0.0.0/-1",
            "10.0.0.0/x",
            "10.0.0/8",
            "999.0.0.1/8",
            "::1/128",
            ":/8",
            "/8",
            "",
            "::ffff:10.0.0.0/8",
            "10.0.0.0/8/8",
            "1:2:3:4:5:6:7:8:9/8",
            "1::2::3/8",
            "+1.0.0.0/8",
        ] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
