//! The ports that workloads have.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use pavior_driver::{Failure, FailureCode};

/// Where ports are looked for. The system takes ports for outgoing connections from a range of its own and holds them for
/// a minute after their end: a workload with one of those could not come back to it after a restart.
const WHERE: Range<u16> = 15_000..30_000;
/// With fewer than this left of it, ports are the system's choice.
const ENOUGH: usize = 1000;
/// How often a free one is looked for, in each way.
const TRIES: usize = 64;

/// All that are given out. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports(Arc<Mutex<HashSet<u16>>>);

/// One that nobody else is given until this is dropped: whoever supervises a process owns its port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) number: u16,
    ports: Ports,
}

impl Ports {
    /// A port that nobody has.
    pub(super) fn any(&self) -> Result<Port, Failure> {
        let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let ours = beside(&outgoing);
        let chosen = (0..TRIES).filter(|_| ours.len() >= ENOUGH).map(|_| fastrand::u16(ours.clone()));
        let found = chosen.chain(std::iter::repeat_n(0, TRIES)).find_map(|number| self.bind(number));
        found.ok_or_else(|| Failure::new(FailureCode::Unavailable, "no free port"))
    }

    /// The port that a workload answers on. Callers know it, so another one is as bad as none, and looks better.
    pub(super) fn take(&self, own: u16) -> Result<Port, Failure> {
        let taken = || format!("port {own}, which it answers on, is taken by something else");
        self.bind(own).ok_or_else(|| Failure::new(FailureCode::Unavailable, taken()))
    }

    fn bind(&self, number: u16) -> Option<Port> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        let number = socket.local_addr().ok()?.port();
        taken.insert(number).then(|| Port { number, ports: self.clone() })
    }
}

/// What of the range the system does not take for outgoing connections, by its file of the first and the last of those.
fn beside(outgoing: &str) -> Range<u16> {
    let mut bounds = outgoing.split_whitespace().map_while(|word| word.parse::<u16>().ok());
    let (Some(first), Some(last)) = (bounds.next(), bounds.next()) else { return WHERE };
    let below = WHERE.start..first.clamp(WHERE.start, WHERE.end);
    let above = last.saturating_add(1).clamp(WHERE.start, WHERE.end)..WHERE.end;
    if below.len() >= above.len() { below } else { above }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_outgoing_connections() {
        for (outgoing, want) in [
            ("32768\t60999\n", 15_000..30_000),
            ("1024 65535", 15_000..15_000),
            ("16000 65535", 15_000..16_000),
            ("1024 19999", 20_000..30_000),
            ("20000 21000", 21_001..30_000),
            ("nonsense", 15_000..30_000),
            ("", 15_000..30_000),
        ] {
            assert_eq!(beside(outgoing), want, "{outgoing}");
        }
    }

    #[test]
    fn a_port_is_given_out_once() {
        let ports = Ports::default();
        let port = ports.any().unwrap();
        let number = port.number;
        assert_eq!(ports.take(number).unwrap_err().code, FailureCode::Unavailable);
        drop(port);
        assert_eq!(ports.take(number).unwrap().number, number);
    }
}
