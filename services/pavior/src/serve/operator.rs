//! Who runs a command on this machine, for the record of what no caller did.

use std::fs;

use pavior_core::principal::installation_name;
use rustix::process::getuid;

/// The account and the machine, as `organizations/pavior/operators/root@host-1`: what the system says, not the environment.
pub(super) fn name() -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    named(&accounts, getuid().as_raw(), machine.trim())
}

/// An account that has no name is called by its number.
fn named(accounts: &str, uid: u32, machine: &str) -> String {
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let account = name.map_or_else(|| uid.to_string(), str::to_owned);
    let installation = installation_name();
    match machine {
        "" => format!("{installation}/operators/{account}"),
        machine => format!("{installation}/operators/{account}@{machine}"),
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn account_is_named_as_the_system_names_it() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\n:x:7:\nda:x:1000:1000::/home/da:/bin/sh\n";
        assert_eq!(named(accounts, 0, "host-1"), "organizations/pavior/operators/root@host-1");
        assert_eq!(named(accounts, 1000, ""), "organizations/pavior/operators/da");
        assert_eq!(named(accounts, 7, "host-1"), "organizations/pavior/operators/7@host-1");
        assert_eq!(named("", 12, "host-1"), "organizations/pavior/operators/12@host-1");
    }
}
