//! The ports that workloads have.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use pavior_driver::{Failure, FailureCode};

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
    /// A port that nobody has: the wanted one if it is free, else one from the system.
    pub(super) fn take(&self, wanted: Option<u16>) -> Result<Port, Failure> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for candidate in wanted.into_iter().chain(std::iter::repeat_n(0, 64)) {
            let bound =
                TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).and_then(|socket| socket.local_addr());
            if let Ok(address) = bound
                && taken.insert(address.port())
            {
                return Ok(Port { number: address.port(), ports: self.clone() });
            }
        }
        Err(Failure::new(FailureCode::Unavailable, "no free port"))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
