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
    /// A port that nobody has.
    pub(super) fn any(&self) -> Result<Port, Failure> {
        let found = std::iter::repeat_n(0, 64).find_map(|any| self.bind(any));
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

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
