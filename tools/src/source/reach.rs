//! Which addresses may be reached. Where somebody else says what is fetched, none on this machine or in a private network
//! may: not by its number, not by a name, and not by a redirect.

use std::net::{IpAddr, ToSocketAddrs};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Whom the program may talk to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Everybody.
    #[default]
    All,
    /// Nobody on this machine or in a private network.
    Public,
}

impl Reach {
    /// Whether all addresses of a URL's host may be reached. A host that cannot be found is the download's own error.
    pub fn allows(self, url: &str) -> bool {
        if self == Reach::All {
            return true;
        }
        let Some((scheme, rest)) = url.split_once("://") else { return false };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = if scheme == "http" { 80 } else { 443 };
        let ported = host.contains(':') && !host.ends_with(']');
        let target = if ported { host.to_string() } else { format!("{host}:{port}") };
        !target.to_socket_addrs().is_ok_and(|mut all| all.any(|a| is_private(a.ip())))
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || shared
        }
        IpAddr::V6(ip) => {
            let local = (ip.segments()[0] & 0xfe00) == 0xfc00 || (ip.segments()[0] & 0xffc0) == 0xfe80;
            ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || local || ip.to_ipv4_mapped().is_some()
        }
    }
}

/// Finds the addresses of every connection, and refuses those out of reach.
#[derive(Debug, Default)]
pub struct Gate {
    reach: Reach,
    resolver: DefaultResolver,
}

impl Gate {
    /// A gate with this reach.
    pub fn new(reach: Reach) -> Gate {
        Gate { reach, resolver: DefaultResolver::default() }
    }
}

impl Resolver for Gate {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        // A proxy is somebody whom the user has named.
        let direct = self.reach == Reach::Public && config.proxy().is_none();
        if direct && found.iter().any(|a| is_private(a.ip())) {
            return Err(Error::BadUri("the address is of a private network".into()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses() {
        let private = [
            "http://127.0.0.1/x",
            "https://[::1]:80/",
            "http://10.0.0.1",
            "http://169.254.169.254/latest",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost:5000/x",
            "x",
        ];
        for url in private {
            assert!(!Reach::Public.allows(url), "{url}");
            assert!(Reach::All.allows(url), "{url}");
        }
        assert!(Reach::Public.allows("https://93.184.216.34/x"));
    }

    #[test]
    fn connections_go_through_the_gate() {
        let agent = |reach| {
            let config = ureq::Agent::config_builder().proxy(None).build();
            ureq::Agent::with_parts(config, ureq::unversioned::transport::DefaultConnector::default(), Gate::new(reach))
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let refused = agent(Reach::Public).get(&url).call().unwrap_err().to_string();
        assert!(refused.contains("private network"), "{refused}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody has connected");
    }
}
