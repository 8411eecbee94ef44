//! Sources of keys under names that a person recognises.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// A provider under a name that a person recognises.
pub(super) struct Named<P> {
    name: String,
    inner: P,
}

impl<P> Named<P> {
    pub(super) fn new(name: impl Into<String>, inner: P) -> Self {
        Self {
            name: name.into(),
            inner,
        }
    }
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.inner.data()?;
        // A null means "not given" and must not cover a lower layer.
        for dict in data.values_mut() {
            drop_empty(dict);
        }
        Ok(data)
    }
}

fn drop_empty(dict: &mut Dict) {
    dict.retain(|_, value| !matches!(value, Value::Empty(..)));
    for value in dict.values_mut() {
        if let Value::Dict(_, inner) = value {
            drop_empty(inner);
        }
    }
}
