//! One waiter in the lists of all sources of a context.

use std::borrow::Borrow;
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use crate::context::Context;
use crate::error::Error;
use crate::release::Panics;
use crate::source::{Listening, MAX_SOURCES, Source, Upstream};
use crate::sync::Arc;
use crate::timer::Timer;
use crate::waiters::Key;

/// One waiter in the list of every source of a context, taken out again on drop.
pub(crate) struct Registration<C: Borrow<Context>> {
    ctx: C,
    /// What the last poll registered, which is compared before the lists are touched again.
    waker: Option<Waker>,
    /// A key for each of the first sources, foreign signals aside.
    keys: [Key; FEW],
    rare: Option<Box<Rare>>,
    /// Whether anything may be in a list.
    placed: bool,
    /// Whether all is there; a foreign panic can leave it half-made.
    whole: bool,
    /// Whether the finish has been seen.
    finished: bool,
}

const FEW: usize = if MAX_SOURCES < 3 { MAX_SOURCES } else { 3 };

/// What few registrations need.
#[derive(Default)]
struct Rare {
    /// Those of the other sources.
    keys: [Key; MAX_SOURCES - FEW],
    /// The futures of the foreign signals, which have no list.
    signals: Vec<(Arc<Source>, Listening)>,
    timer: Option<Pin<Box<Timer>>>,
}

impl<C: Borrow<Context>> Registration<C> {
    #[inline]
    pub(crate) fn new(ctx: C) -> Self {
        let keys = [Key::default(); FEW];
        Self { ctx, waker: None, keys, rare: None, placed: false, whole: false, finished: false }
    }

    #[inline]
    pub(crate) fn ctx(&self) -> &Context {
        self.ctx.borrow()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Registers first and looks then. A source that is marked after our look finds us in its list; one whose list was not
    /// open any more when we came was marked before that, and the look sees it.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        if !(self.whole && self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker()))) {
            if let Some(err) = self.prepare() {
                return self.look(Some(err));
            }
            self.register(cx.waker());
            self.waker = Some(cx.waker().clone());
        }
        if self.rare.as_ref().is_none_or(|rare| rare.signals.is_empty()) {
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
        // What is pending at a glance has no foreign signals.
        let pending = self.ctx().view().is_pending();
        if !pending {
            if let Some(err) = self.ctx().err() {
                return Some(err);
            }
        }
        if !self.whole {
            // The timer of a wait that has begun stays.
            let timer = self.rare.as_mut().and_then(|rare| rare.timer.take());
            self.stop();
            if timer.is_some() {
                self.placed = true;
                self.rare.get_or_insert_default().timer = timer;
            }
            if !pending {
                self.listen();
            }
        }
        None
    }

    /// Puts `waker` into every list, in the place of the one before.
    pub(crate) fn register(&mut self, waker: &Waker) {
        // Whole again only when it is in all lists: a foreign panic may come in between.
        self.whole = false;
        self.placed = true;
        drop(self.waker.take());
        let Self { ctx, keys, rare, .. } = self;
        each_listed((*ctx).borrow(), |index, source| {
            let key = match keys.get_mut(index) {
                Some(key) => key,
                None => &mut rare.get_or_insert_default().keys[index - FEW],
            };
            // A list that refused it is not open any more, and will refuse it again.
            *key = source.list_to_wait_in().map_or(Key::default(), |list| list.register(*key, waker));
        });
        self.whole = true;
    }

    /// Makes the futures of the foreign signals.
    pub(crate) fn listen(&mut self) {
        let listen = |source: &Arc<Source>| Some((Arc::clone(source), source.as_other().and_then(Upstream::listen)?));
        let signals: Vec<_> = self.ctx().set.view().sources().filter_map(listen).collect();
        if !signals.is_empty() {
            self.placed = true;
            self.rare.get_or_insert_default().signals = signals;
        }
    }

    /// A future that panics is let go; the next `poll` begins anew, with another.
    fn poll_signals(&mut self, cx: &mut task::Context<'_>, panics: &mut Panics) {
        let Some(rare) = &mut self.rare else { return };
        let mut next = 0;
        while let Some((_, done)) = rare.signals.get_mut(next) {
            let polled = panics.catch(|| done.as_mut().poll(cx));
            if let Some(Poll::Pending) = polled {
                next += 1;
                continue;
            }
            let (source, done) = rare.signals.swap_remove(next);
            match polled {
                Some(Poll::Ready(err)) => drop(source.mark(err)),
                _ => self.whole = false,
            }
            panics.catch(|| drop(done));
        }
    }

    #[inline]
    fn look(&mut self, seen: Option<Error>) -> Poll<Error> {
        match seen {
            Some(err) => {
                self.stop();
                self.finished = true;
                Poll::Ready(err)
            }
            None => Poll::Pending,
        }
    }

    /// As `poll`, for a task that nobody watches: the panic of a signal has been reported by the hook, and must keep
    /// neither the other signals nor the deadline from being seen.
    pub(crate) fn poll_without_lists(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        let mut ignoring_panics = Panics::default();
        self.poll_signals(cx, &mut ignoring_panics);
        let seen = ignoring_panics.catch(|| self.ctx().err()).flatten();
        self.look(seen)
    }

    /// The timer of the deadline, made when it is first asked for; it goes with the rest.
    pub(crate) fn timer(&mut self) -> Pin<&mut Timer> {
        self.placed = true;
        let timer = &mut self.rare.get_or_insert_default().timer;
        timer.get_or_insert_with(|| Box::pin(Timer::Off)).as_mut()
    }

    #[inline]
    pub(crate) fn stop(&mut self) {
        if self.placed {
            self.withdraw();
        }
    }

    /// Takes everything out again, also where a waker or the future of a signal panics when it is dropped.
    fn withdraw(&mut self) {
        (self.placed, self.whole) = (false, false);
        let mut panics = Panics::default();
        let rare = self.rare.take();
        let keys = std::mem::take(&mut self.keys);
        each_listed(self.ctx(), |index, source| {
            let more = || rare.as_ref().map_or(Key::default(), |rare| rare.keys[index - FEW]);
            let key = keys.get(index).copied().unwrap_or_else(more);
            if let Some(waker) = source.list().and_then(|list| list.deregister(key)) {
                panics.catch(|| drop(waker));
            }
        });
        panics.catch(|| drop(self.waker.take()));
        if let Some(Rare { signals, timer, .. }) = rare.map(|rare| *rare) {
            panics.catch(|| drop(timer));
            for signal in signals {
                panics.catch(|| drop(signal));
            }
        }
        panics.resume();
    }
}

/// The sources that may have a list: no more than `MAX_SOURCES`.
#[inline]
fn each_listed(ctx: &Context, mut f: impl FnMut(usize, &Source)) {
    let mut index = 0;
    ctx.set.view().each(|source| {
        if !source.is_foreign() {
            f(index, source);
            index += 1;
        }
    });
}

impl<C: Borrow<Context>> Drop for Registration<C> {
    #[inline]
    fn drop(&mut self) {
        self.stop();
    }
}
