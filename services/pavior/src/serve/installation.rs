//! Which installation this process belongs to, and whether its databases, folders and keys are all of that one.
//!
//! A process would start over a swapped or emptied database, or with a new key, and then lose data: secrets could not be
//! opened any more, and tenants would be served from an empty database. So every database and folder records the id of
//! its installation, and all ids are compared before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use pavior_core::id_gen::IdGen;
use pavior_store::Store;
use pavior_store::installation::{self, Claim, Survey};

use super::config::Config;
use super::role::Role;

/// The name of the file in which a folder says to which installation it belongs.
const FILE: &str = "installation";

/// The databases of a process as they were found, and the installation that they are to belong to.
#[derive(Debug)]
pub(super) struct Installation {
    /// The databases, connected.
    pub(super) stores: BTreeMap<Role, Store>,
    /// What each database records about itself.
    surveys: BTreeMap<Role, Survey>,
    /// The id of the installation.
    pub(super) id: String,
    /// No database is in use yet, so that keys may be made.
    pub(super) first_start: bool,
    /// Every role runs in this process.
    whole: bool,
}

/// Check values of keys, by service and name of the key, with where the key comes from.
pub(super) type KeyChecks = BTreeMap<Role, Vec<KeyCheck>>;

/// A key as a database remembers it.
#[derive(Debug, Clone)]
pub(super) struct KeyCheck {
    pub(super) name: &'static str,
    /// A value that is derived from the key and identifies it.
    pub(super) value: String,
    /// The values of former keys that are configured.
    pub(super) former: Vec<String>,
    /// Where it is configured.
    pub(super) place: String,
}

impl Installation {
    /// Connects to the databases of the roles and looks at them. Changes nothing in them.
    pub(super) async fn survey(config: &Config, roles: &[Role], ids: &dyn IdGen) -> anyhow::Result<Self> {
        fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot make `{}`", config.data_dir.display()))?;
        let (mut stores, mut surveys) = (BTreeMap::new(), BTreeMap::new());
        for (role, database) in config.databases() {
            if !roles.contains(&role) {
                continue;
            }
            let failed = || format!("the database of {}", role.name());
            let store = Store::connect(database, role.name()).await.with_context(failed)?;
            surveys.insert(role, installation::survey(&store).await.with_context(failed)?);
            stores.insert(role, store);
        }
        let first_start = !surveys.values().any(Survey::in_use);
        let id = id(config, roles, &surveys, ids)?;
        Ok(Self { stores, surveys, id, first_start, whole: roles.len() == Role::ALL.len() })
    }

    /// Refuses databases of another installation or service.
    pub(super) fn check_owners(&self) -> anyhow::Result<()> {
        for (role, survey) in &self.surveys {
            let name = role.name();
            if let Some(claim) = &survey.claim {
                ensure!(
                    claim.role == name,
                    "`{name}.database.url` is the database of {}: give each service its own",
                    claim.role
                );
                ensure!(
                    claim.installation == self.id,
                    "the database of {name} belongs to installation {}, this is installation {}: point \
                     `{name}.database.url` to the database of this installation, or use the keys and folders of that one",
                    claim.installation,
                    self.id
                );
            }
        }
        Ok(())
    }

    /// Refuses a database that is empty beside others that are not.
    pub(super) fn check_losses(&self) -> anyhow::Result<()> {
        match self.lost().first() {
            None => Ok(()),
            Some(lost) => bail!(
                "the database of {lost} is empty, but {} in use: this is no new installation. Point \
                 `{lost}.database.url` to its database or put a copy of it back (of SQLite after the empty file, its `-wal` \
                 and its `-shm` were removed); if there is none, `pavior restore` goes on without what was in it",
                self.others(lost),
                lost = lost.name()
            ),
        }
    }

    /// The roles whose database holds nothing although others are in use.
    fn lost(&self) -> Vec<Role> {
        let used = |survey: &Survey| survey.in_use();
        let claimed = |survey: &Survey| survey.claim.as_ref().is_some_and(|claim| claim.established);
        let any = |of: &dyn Fn(&Survey) -> bool| self.surveys.values().any(of);
        let lost = |survey: &Survey| {
            // Without claims, one with tables may be of a time before there were any.
            survey.is_empty() && (any(&claimed) || (any(&used) && !survey.has_schema))
        };
        self.surveys.iter().filter(|(_, survey)| lost(survey)).map(|(role, _)| *role).collect()
    }

    fn others(&self, lost: &Role) -> String {
        let used: Vec<_> = self
            .surveys
            .iter()
            .filter(|(role, s)| *role != lost && s.in_use())
            .map(|(r, _)| r.name())
            .collect();
        format!("{} {}", used.join(", "), if used.len() == 1 { "is" } else { "are" })
    }

    /// Refuses keys that do not fit to what is stored.
    pub(super) fn check_keys(&self, keys: &KeyChecks) -> anyhow::Result<()> {
        for (role, survey) in &self.surveys {
            let known = survey.claim.as_ref().map(|claim| &claim.keys);
            for key in keys.get(role).into_iter().flatten() {
                let Some(value) = known.and_then(|known| known.get(key.name)) else { continue };
                ensure!(
                    *value == key.value || key.former.contains(value),
                    "the {} ({}) is not the one that the database of {} was used with: put that one back; if it is lost, \
                     `pavior restore --accept-keys` goes on with this one, and what the other protected stays closed",
                    key.name,
                    key.place,
                    role.name()
                );
            }
        }
        Ok(())
    }

    /// Brings the tables up to date and writes into every database and folder whom it belongs to.
    pub(super) async fn claim(&self, config: &Config, keys: &KeyChecks) -> anyhow::Result<()> {
        // The folders first: a folder of another installation stops all of it.
        let keys_folder = config.internal.public_key_dir.as_deref().context("no folder for public keys")?;
        if read(&keys_folder.join(FILE))?.is_none() && self.whole {
            write(&keys_folder.join(FILE), &self.id)?;
        }
        claim_folder(&config.data_dir, &self.id)?;
        if let (Some(folder), true) = (&config.audit.checkpoints_dir, self.stores.contains_key(&Role::Audit))
        {
            claim_folder(folder, &self.id)?;
        }
        // A start that is cut off half-way leaves some of the databases claimed: they count as in use only when all
        // of them are.
        for established in [false, true] {
            for (role, store) in &self.stores {
                let failed = || format!("the database of {}", role.name());
                if !established {
                    role.migrate(store).await.with_context(failed)?;
                }
                let own = keys.get(role).into_iter().flatten();
                let claim = Claim {
                    installation: self.id.clone(),
                    role: role.name().to_owned(),
                    established: established || self.surveys.get(role).is_some_and(Survey::in_use),
                    keys: own.map(|key| (key.name.to_owned(), key.value.clone())).collect(),
                };
                if self.surveys.get(role).and_then(|survey| survey.claim.as_ref()) != Some(&claim) {
                    installation::claim(store, claim).await.with_context(failed)?;
                }
            }
        }
        Ok(())
    }
}

/// The id of the installation. It lies with the public keys, which every service is given; where everything runs in
/// this process it is made at the first start, and taken from the databases when the file is gone.
fn id(
    config: &Config,
    roles: &[Role],
    surveys: &BTreeMap<Role, Survey>,
    ids: &dyn IdGen,
) -> anyhow::Result<String> {
    let folder = config.internal.public_key_dir.as_deref().context("no folder for public keys")?;
    if let Some(id) = read(&folder.join(FILE))? {
        return Ok(id);
    }
    let claimed: BTreeSet<_> =
        surveys.values().filter_map(|survey| Some(survey.claim.as_ref()?.installation.clone())).collect();
    let mut claimed = claimed.into_iter();
    let id = match (claimed.next(), claimed.next()) {
        (Some(_), Some(_)) => bail!(
            "the databases belong to different installations, and `{}` does not say which one this is",
            folder.join(FILE).display()
        ),
        (Some(id), None) => id,
        _ if roles.len() < Role::ALL.len() => bail!(
            "`{}` is missing; `pavior keys` writes it beside the keys of all services, and keeps those that there are",
            folder.join(FILE).display()
        ),
        _ => ids.uuid().to_string(),
    };
    Ok(id)
}

/// Makes the id of an installation, unless there is one.
pub(super) fn generate(folder: &Path, ids: &dyn IdGen) -> anyhow::Result<()> {
    match read(&folder.join(FILE))? {
        Some(_) => Ok(()),
        None => write(&folder.join(FILE), &ids.uuid().to_string()),
    }
}

/// Refuses a folder of another installation; one that belongs to nobody is this one's from now on.
fn claim_folder(folder: &Path, id: &str) -> anyhow::Result<()> {
    match read(&folder.join(FILE))? {
        Some(found) if found == id => Ok(()),
        Some(found) => bail!(
            "the folder `{}` belongs to installation {found}, this is installation {id}: point the configuration to the \
             folder of this installation",
            folder.display()
        ),
        None => write(&folder.join(FILE), id),
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    ensure!(
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        "`{}` does not hold the id of an installation",
        path.display()
    );
    Ok(Some(text))
}

/// Writes the file atomically.
fn write(path: &Path, id: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{}`", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::File::create(&new).with_context(failed)?;
    writeln!(file, "{id}").and_then(|()| file.sync_all()).with_context(failed)?;
    fs::rename(&new, path).with_context(failed)
}
