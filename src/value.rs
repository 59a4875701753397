//! What a context carries besides its sources: values, in a list in which the nearest of a type wins, and a name.

use std::any::Any;
use std::sync::Arc;

use crate::error::Name;
use crate::release::Panics;

type AnyLink = Link<dyn Any + Send + Sync>;

/// A link and its value in one allocation, whatever the value's type.
pub(crate) struct Link<T: ?Sized> {
    parent: Option<Arc<AnyLink>>,
    /// The nearest name from here on, so that no look for it walks the list.
    name: Option<Name>,
    value: T,
}

/// The value of a link that is there for its name.
struct Named;

#[derive(Clone, Default)]
pub(crate) struct Values {
    nearest: Option<Arc<AnyLink>>,
}

impl Values {
    pub(crate) fn with<T: Send + Sync + 'static>(&self, value: T) -> Self {
        self.link(self.name().cloned(), value)
    }

    pub(crate) fn named(&self, name: Name) -> Self {
        self.link(Some(name), Named)
    }

    fn link<T: Send + Sync + 'static>(&self, name: Option<Name>, value: T) -> Self {
        Self { nearest: Some(Arc::new(Link { parent: self.nearest.clone(), name, value })) }
    }

    /// What is made below here is born under it.
    #[inline]
    pub(crate) fn name(&self) -> Option<&Name> {
        self.nearest.as_ref()?.name.as_ref()
    }

    pub(crate) fn nearest<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.links().find_map(|link| link.value.downcast_ref())
    }

    /// Whether the nearest value of all is a `T`.
    pub(crate) fn ends_in<T: Send + Sync + 'static>(&self) -> bool {
        self.links().next().is_some_and(|link| link.value.is::<T>())
    }

    pub(crate) fn len(&self) -> usize {
        self.links().filter(|link| !link.value.is::<Named>()).count()
    }

    fn links(&self) -> impl Iterator<Item = &AnyLink> {
        std::iter::successors(self.nearest.as_deref(), |link| link.parent.as_deref())
    }
}

impl<T: ?Sized> Drop for Link<T> {
    fn drop(&mut self) {
        release(self.parent.take());
    }
}

/// Lets a list go link by link. `Link::drop` finds nothing to do for a link whose parent was taken here; where two
/// threads let go of the last two handles of a link at once, the later of them goes on from there. A value whose drop
/// panics does not keep the others from being dropped.
fn release(mut next: Option<Arc<AnyLink>>) {
    let mut panics = Panics::default();
    while let Some(mut link) = next {
        next = Arc::get_mut(&mut link).and_then(|link| link.parent.take());
        panics.catch(|| drop(link));
    }
    panics.resume();
}
