use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Driver, DriverInfo, TypeSchema};

/// The drivers of a process, by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    drivers: Arc<BTreeMap<String, Arc<dyn Driver>>>,
}

impl Registry {
    /// A registry of these drivers; of two with the same id the last one stays.
    #[must_use]
    pub fn new(drivers: impl IntoIterator<Item = Arc<dyn Driver>>) -> Self {
        let drivers = drivers.into_iter().map(|driver| (driver.info().id, driver)).collect();
        Self { drivers: Arc::new(drivers) }
    }

    /// The same registry with one driver more.
    #[must_use]
    pub fn with(&self, driver: Arc<dyn Driver>) -> Self {
        let mut drivers = BTreeMap::clone(&self.drivers);
        drivers.insert(driver.info().id, driver);
        Self { drivers: Arc::new(drivers) }
    }

    /// One driver.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<dyn Driver>> {
        self.drivers.get(id).cloned()
    }

    /// Driver ids in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.drivers.keys().map(String::as_str)
    }

    /// Every driver in order of its id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Driver>> {
        self.drivers.values()
    }

    /// What every driver says about itself, in order of id.
    #[must_use]
    pub fn infos(&self) -> Vec<DriverInfo> {
        self.drivers.values().map(|driver| driver.info()).collect()
    }

    /// The schema of one type as one driver makes it.
    #[must_use]
    pub fn type_schema(&self, driver: &str, resource_type: &str) -> Option<TypeSchema> {
        self.drivers.get(driver)?.info().resource_type(resource_type).cloned()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.drivers.keys()).finish()
    }
}
