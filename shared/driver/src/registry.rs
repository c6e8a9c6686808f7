use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Driver, DriverInfo, TypeSchema};

type Drivers = BTreeMap<String, Arc<dyn Driver>>;
/// By endpoint: who joined, and who is still awaited.
type Others = BTreeMap<String, Option<Arc<dyn Driver>>>;

/// The drivers of a process, by id. Cheap to clone. Drivers in other processes join when they are there; all clones
/// see them.
#[derive(Clone, Default)]
pub struct Registry {
    own: Arc<Drivers>,
    others: Arc<RwLock<Others>>,
}

impl Registry {
    /// A registry of these drivers; of two with the same id the last one stays.
    #[must_use]
    pub fn new(drivers: impl IntoIterator<Item = Arc<dyn Driver>>) -> Self {
        let own = drivers.into_iter().map(|driver| (driver.info().id, driver)).collect();
        Self { own: Arc::new(own), others: Arc::default() }
    }

    /// The same registry with one driver more.
    #[must_use]
    pub fn with(&self, driver: Arc<dyn Driver>) -> Self {
        let mut own = Drivers::clone(&self.own);
        own.insert(driver.info().id, driver);
        Self { own: Arc::new(own), others: self.others.clone() }
    }

    /// One driver is to join from this endpoint. What it is called is not known before it does.
    pub fn expect(&self, endpoint: &str) {
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.entry(endpoint.to_owned()).or_default();
    }

    /// The driver of an endpoint joins; false when there is another one of its id.
    pub fn join(&self, endpoint: &str, driver: Arc<dyn Driver>) -> bool {
        let id = driver.info().id;
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let mut rest = others.iter().filter(|(other, _)| *other != endpoint);
        let taken = self.own.contains_key(&id) || rest.any(|(_, other)| is(other.as_ref(), &id));
        if !taken {
            others.insert(endpoint.to_owned(), Some(driver));
        }
        !taken
    }

    /// The driver of an endpoint, if it has joined.
    #[must_use]
    pub fn joined(&self, endpoint: &str) -> Option<Arc<dyn Driver>> {
        self.others.read().unwrap_or_else(PoisonError::into_inner).get(endpoint)?.clone()
    }

    /// Whether drivers are awaited: one that is not here may be one of them.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.others.read().unwrap_or_else(PoisonError::into_inner).values().any(Option::is_none)
    }

    /// One driver.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<dyn Driver>> {
        let others = || {
            let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
            others.values().find(|other| is(other.as_ref(), id)).cloned().flatten()
        };
        self.own.get(id).cloned().or_else(others)
    }

    /// Every driver in order of its id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<dyn Driver>> {
        let mut all = Drivers::clone(&self.own);
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        all.extend(others.values().flatten().map(|driver| (driver.info().id, driver.clone())));
        all.into_values().collect()
    }

    /// What every driver says about itself, in order of id.
    #[must_use]
    pub fn infos(&self) -> Vec<DriverInfo> {
        self.all().iter().map(|driver| driver.info()).collect()
    }

    /// The schema of one type as one driver makes it.
    #[must_use]
    pub fn type_schema(&self, driver: &str, resource_type: &str) -> Option<TypeSchema> {
        self.get(driver)?.info().resource_type(resource_type).cloned()
    }
}

fn is(driver: Option<&Arc<dyn Driver>>, id: &str) -> bool {
    driver.is_some_and(|driver| driver.info().id == id)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.infos().iter().map(|info| &info.id)).finish()
    }
}
