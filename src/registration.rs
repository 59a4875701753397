//! One waiter in the lists of all sources of a context.

use std::borrow::Borrow;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use crate::context::Context;
use crate::error::Error;
use crate::node::{MAX_SOURCES, Node};
use crate::release::Panics;
use crate::source::Role;
use crate::waiters::Key;

type SignalDone = Pin<Box<dyn Future<Output = Error> + Send>>;

/// One waiter in the list of every source of a context, taken out again on drop.
pub(crate) struct Registration<C: Borrow<Context>> {
    ctx: C,
    /// None while nothing is registered.
    placed: Option<Placed>,
}

/// What a registration has put where.
#[derive(Default)]
pub(crate) struct Placed {
    /// What the last poll registered, which is compared before the lists are touched again.
    waker: Option<Waker>,
    /// Whether it is all there; a foreign panic can leave it half-made.
    whole: bool,
    /// A key for each source with a list, in the order of `Node::listed`.
    keys: [Option<Key>; MAX_SOURCES],
    /// The futures of the foreign signals, which have no list.
    signals: Vec<(Node, SignalDone)>,
}

impl Placed {
    fn will_wake(&self, waker: &Waker) -> bool {
        self.whole && self.waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }
}

impl<C: Borrow<Context>> Registration<C> {
    pub(crate) fn new(ctx: C) -> Self {
        Self { ctx, placed: None }
    }

    pub(crate) fn ctx(&self) -> &Context {
        self.ctx.borrow()
    }

    /// Registers first and looks then. A source that is marked after our look finds us in its list; one whose list
    /// was closed before we came was marked before that, and the look sees it.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        if !self.placed.as_ref().is_some_and(|placed| placed.will_wake(cx.waker())) {
            if let Some(err) = self.prepare() {
                self.stop();
                return Poll::Ready(err);
            }
            let placed = self.register(cx.waker());
            placed.waker = Some(cx.waker().clone());
        }
        if self.placed.as_ref().is_none_or(|placed| placed.signals.is_empty()) {
            return self.look(self.ctx().err());
        }
        let mut panics = Panics::default();
        self.poll_signals(cx, &mut panics);
        let seen = panics.catch(|| self.ctx().err()).flatten();
        let polled = self.look(seen);
        panics.resume();
        polled
    }

    /// Before anything is registered: the error, if it is finished already, but for a deadline that has passed, which
    /// the look that follows sees.
    fn prepare(&mut self) -> Option<Error> {
        let whole = self.placed.as_ref().is_some_and(|placed| placed.whole);
        // What is quiet has no foreign signals.
        let quiet = self.ctx().node.as_ref().is_none_or(Node::is_quiet_set);
        if !quiet {
            if let Some(err) = self.ctx().err() {
                return Some(err);
            }
        }
        if !whole {
            self.stop();
            if !quiet {
                self.listen();
            }
        }
        None
    }

    /// Puts `waker` into every list, in the place of the one before.
    pub(crate) fn register(&mut self, waker: &Waker) -> &mut Placed {
        let placed = self.placed.get_or_insert_default();
        // Whole again only when it is in all lists: a foreign panic may come in between.
        placed.whole = false;
        drop(placed.waker.take());
        if let Some(node) = &self.ctx.borrow().node {
            let mut keys = placed.keys.iter_mut();
            node.each_listed(|source| {
                if let Some(key) = keys.next() {
                    // A list that refused it is closed for good, and will again.
                    *key = source.register(*key, waker);
                }
            });
        }
        placed.whole = true;
        placed
    }

    /// Makes the futures of the foreign signals.
    pub(crate) fn listen(&mut self) {
        let Some(node) = &self.ctx.borrow().node else { return };
        let mut signals = Vec::new();
        for source in node.entries().iter().chain([node]) {
            if let Role::Signal { signal, .. } = source.role() {
                signals.push((source.clone(), signal.done()));
            }
        }
        self.placed = Some(Placed { signals, ..Placed::default() });
    }

    /// A future that panics is let go; the next `poll` begins anew, with another.
    fn poll_signals(&mut self, cx: &mut task::Context<'_>, panics: &mut Panics) {
        let Some(placed) = &mut self.placed else { return };
        let mut next = 0;
        while let Some((_, done)) = placed.signals.get_mut(next) {
            let polled = panics.catch(|| done.as_mut().poll(cx));
            if let Some(Poll::Pending) = polled {
                next += 1;
                continue;
            }
            let (source, done) = placed.signals.swap_remove(next);
            match (polled, source.cell()) {
                (Some(Poll::Ready(err)), Some(cell)) => drop(cell.mark(err)),
                _ => placed.whole = false,
            }
            panics.catch(|| drop(done));
        }
    }

    fn look(&mut self, seen: Option<Error>) -> Poll<Error> {
        match seen {
            Some(err) => {
                self.stop();
                Poll::Ready(err)
            }
            None => Poll::Pending,
        }
    }

    /// As `poll`, for a task that nobody watches: the panic of a signal has been reported by the hook, and must keep
    /// neither the other signals nor the deadline from being seen.
    pub(crate) fn poll_alarms(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        let mut unheard = Panics::default();
        self.poll_signals(cx, &mut unheard);
        let seen = unheard.catch(|| self.ctx().err()).flatten();
        self.look(seen)
    }

    #[inline]
    pub(crate) fn stop(&mut self) {
        if self.placed.is_some() {
            self.withdraw();
        }
    }

    /// Takes everything out again, also where a waker or the future of a signal panics when it is dropped.
    fn withdraw(&mut self) {
        let Some(mut placed) = self.placed.take() else { return };
        let mut panics = Panics::default();
        if let Some(node) = &self.ctx.borrow().node {
            let mut keys = placed.keys.iter();
            node.each_listed(|source| {
                if let Some(key) = keys.next().copied().flatten() {
                    panics.catch(|| source.deregister(key));
                }
            });
        }
        panics.catch(|| drop(placed.waker.take()));
        for signal in placed.signals {
            panics.catch(|| drop(signal));
        }
        panics.resume();
    }
}

impl<C: Borrow<Context>> Drop for Registration<C> {
    fn drop(&mut self) {
        self.stop();
    }
}
