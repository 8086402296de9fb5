//! The line that makes layers: while some artifacts still arrive, those that are there are unpacked, and components whose
//! artifacts are all unpacked are packed.
//!
//! Downloading has threads of its own (it waits), unpacking and packing share `jobs` threads (they compute). The largest work
//! that is ready goes first, so that all threads are busy to the end; the last layer gets all of them. Which thread did what
//! and when does not show in a layer. Memory: one compressor a job; disk: what was unpacked is forgotten once it is packed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bundle::Digest;

use crate::http::Arrived;
use crate::layer_cache::CachedLayer;
use crate::pick::Picked;

/// One piece of work.
pub(super) enum Work {
    /// An artifact is in the cache: pick what its users take.
    Unpack(Digest),
    /// All that a component is made of is unpacked.
    Pack {
        /// Its place.
        component: usize,
        /// Its files.
        files: Vec<Picked>,
        /// Threads to compress with.
        workers: u32,
    },
    /// All users of an artifact are packed.
    Forget(Digest),
}

/// What a piece of work came to.
pub(super) enum Done {
    /// Files by component.
    Unpacked(Vec<(usize, Vec<Picked>)>),
    /// A layer.
    Packed(Box<CachedLayer>),
    /// Nothing more to say.
    Forgotten,
}

/// What is to be made, and how far it is.
pub(super) struct Line {
    state: Mutex<State>,
    changed: Condvar,
    jobs: usize,
}

struct State {
    /// Artifacts that a component still waits for.
    awaited: BTreeMap<usize, BTreeSet<Digest>>,
    /// Components that will read what was unpacked of an artifact.
    readers: BTreeMap<Digest, BTreeSet<usize>>,
    sizes: BTreeMap<Digest, u64>,
    files: BTreeMap<usize, Vec<Picked>>,
    /// With an estimate of its size.
    ready: Vec<(u64, Task)>,
    running: usize,
    layers: Vec<(usize, CachedLayer)>,
    /// Nothing arrives any more.
    closed: bool,
    failure: Option<anyhow::Error>,
}

#[derive(Clone, Copy)]
enum Task {
    Unpack(Digest),
    Pack(usize),
    Forget(Digest),
}

/// Ends the line however the thread that feeds it ends: those that wait must not wait for ever.
struct Closing<'a>(&'a Line);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}

impl Line {
    /// `wanted`: components by place with the artifacts they are made of; `sizes` of the artifacts.
    pub(super) fn new(wanted: BTreeMap<usize, BTreeSet<Digest>>, sizes: BTreeMap<Digest, u64>, jobs: usize) -> Self {
        let mut readers: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
        for (component, artifacts) in &wanted {
            for artifact in artifacts {
                readers.entry(*artifact).or_default().insert(*component);
            }
        }
        // What is made of nothing but links waits for nothing.
        let at_once = wanted.iter().filter(|(_, artifacts)| artifacts.is_empty());
        let ready = at_once.map(|(component, _)| (0, Task::Pack(*component))).collect();
        let state = State {
            awaited: wanted,
            readers,
            sizes,
            files: BTreeMap::new(),
            ready,
            running: 0,
            layers: Vec::new(),
            closed: false,
            failure: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), jobs: jobs.max(1) }
    }

    /// Runs `fetch`, which says what has arrived, and beside it `work` on `jobs` threads. The first failure ends all.
    pub(super) fn run(
        self,
        fetch: impl FnOnce(&Arrived<'_>) -> anyhow::Result<()>,
        work: impl Fn(Work) -> anyhow::Result<Done> + Sync,
    ) -> anyhow::Result<Vec<(usize, CachedLayer)>> {
        let threads = self.jobs;
        self.run_with(threads, fetch, work)
    }

    fn run_with(
        self,
        threads: usize,
        fetch: impl FnOnce(&Arrived<'_>) -> anyhow::Result<()>,
        work: impl Fn(Work) -> anyhow::Result<Done> + Sync,
    ) -> anyhow::Result<Vec<(usize, CachedLayer)>> {
        let arrived = |file: &crate::http::Fetched| self.arrived(file.sha256);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((task, todo)) = self.next() {
                        // A thread that panics must not leave the others waiting for it.
                        let running = Running(&self);
                        let done = work(todo);
                        self.finished(task, done);
                        drop(running);
                    }
                });
            }
            let _closing = Closing(&self);
            if let Err(error) = fetch(&arrived) {
                self.state().failure.get_or_insert(error);
            }
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failure.map_or(Ok(state.layers), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, artifact: Digest) -> ControlFlow<()> {
        let mut state = self.state();
        if state.readers.contains_key(&artifact) {
            // Archives hold about three times their size.
            let size = state.sizes.get(&artifact).map_or(0, |size| size.saturating_mul(3));
            state.ready.push((size, Task::Unpack(artifact)));
            self.changed.notify_all();
        }
        if state.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The largest work that is ready; waits for some, `None` when there will be none.
    fn next(&self) -> Option<(Task, Work)> {
        let mut state = self.state();
        loop {
            if state.failure.is_some() {
                return None;
            }
            let largest = (0..state.ready.len()).max_by_key(|at| state.ready[*at].0);
            if let Some(at) = largest {
                let (_, task) = state.ready.swap_remove(at);
                state.running += 1;
                return Some((task, state.work(task, self.jobs)));
            }
            if state.closed && state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self, task: Task, done: anyhow::Result<Done>) {
        let mut state = self.state();
        match (task, done) {
            (_, Err(error)) => drop(state.failure.get_or_insert(error)),
            (Task::Unpack(artifact), Ok(Done::Unpacked(files))) => state.has_unpacked(artifact, files),
            (Task::Pack(component), Ok(Done::Packed(layer))) => state.has_packed(component, *layer),
            (_, Ok(_)) => {}
        }
    }
}

/// One thread at work; says so to the others when it is not any more.
struct Running<'a>(&'a Line);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.changed.notify_all();
    }
}

impl State {
    fn work(&mut self, task: Task, jobs: usize) -> Work {
        match task {
            Task::Unpack(artifact) => Work::Unpack(artifact),
            Task::Forget(artifact) => Work::Forget(artifact),
            Task::Pack(component) => {
                // Layers that are not made yet, this one among them, share the threads.
                let open = self.awaited.len().max(1);
                let workers = u32::try_from(jobs / open.min(jobs).max(1)).unwrap_or(1).max(1);
                Work::Pack { component, files: self.files.remove(&component).unwrap_or_default(), workers }
            }
        }
    }

    fn has_unpacked(&mut self, artifact: Digest, files: Vec<(usize, Vec<Picked>)>) {
        for (component, files) in files {
            self.files.entry(component).or_default().extend(files);
        }
        for component in self.readers.get(&artifact).into_iter().flatten() {
            let Some(awaited) = self.awaited.get_mut(component) else { continue };
            awaited.remove(&artifact);
            if awaited.is_empty() {
                let size = crate::output::total(self.files.get(component).into_iter().flatten().map(|file| file.size));
                self.ready.push((size, Task::Pack(*component)));
            }
        }
    }

    fn has_packed(&mut self, component: usize, layer: CachedLayer) {
        self.awaited.remove(&component);
        self.layers.push((component, layer));
        for (artifact, readers) in &mut self.readers {
            if readers.remove(&component) && readers.is_empty() {
                self.ready.push((0, Task::Forget(*artifact)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use bundle::layer::PackedLayer;

    use super::*;
    use crate::elf::ElfFiles;
    use crate::http::Fetched;

    fn fetched(name: &str) -> Fetched {
        Fetched { path: name.into(), size: 1, sha256: Digest::of(name.as_bytes()) }
    }

    fn layer() -> Done {
        let nothing = Digest::of(b"");
        let layer = PackedLayer { digest: nothing, size: 0, diff_id: nothing, unpacked_size: 0, files: Vec::new() };
        Done::Packed(Box::new(CachedLayer { layer, elf: ElfFiles::new(), path: "x".into() }))
    }

    /// Components 0, 1, … of these artifacts.
    fn line(components: &[&[&str]], jobs: usize) -> Line {
        let artifacts = |names: &&[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect();
        Line::new(components.iter().map(artifacts).enumerate().collect(), BTreeMap::new(), jobs)
    }

    #[test]
    fn a_component_is_packed_while_artifacts_of_others_still_arrive() {
        let (packed, seen) = mpsc::channel();
        let made = line(&[&["a"], &["a", "b"], &[]], 1).run(
            |arrived| {
                assert!(arrived(&fetched("a")).is_continue());
                // The second file arrives only after components were packed: one that waited for all would never come here.
                let early: BTreeSet<usize> =
                    (0..2).map(|_| seen.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
                assert_eq!(early, BTreeSet::from([0, 2]));
                assert!(arrived(&fetched("b")).is_continue());
                assert!(arrived(&fetched("for nobody here")).is_continue());
                Ok(())
            },
            |work| match work {
                Work::Unpack(_) => Ok(Done::Unpacked(Vec::new())),
                Work::Pack { component, .. } => {
                    packed.send(component).unwrap();
                    Ok(layer())
                }
                Work::Forget(_) => Ok(Done::Forgotten),
            },
        );
        let made: BTreeSet<usize> = made.unwrap().into_iter().map(|(component, _)| component).collect();
        assert_eq!(made, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn what_was_unpacked_is_forgotten_after_its_last_reader_and_the_last_layer_gets_all_threads() {
        let order = Mutex::new(Vec::new());
        let note = |text: String| order.lock().unwrap().push(text);
        let made = line(&[&["a"], &["a"]], 1);
        let made = Line { jobs: 4, ..made }.run_with(
            1,
            |arrived| {
                let _ = arrived(&fetched("a"));
                Ok(())
            },
            |work| match work {
                Work::Unpack(_) => Ok(Done::Unpacked(Vec::new())),
                Work::Pack { workers, .. } => {
                    note(format!("packed with {workers}"));
                    Ok(layer())
                }
                Work::Forget(_) => {
                    note("forgotten".into());
                    Ok(Done::Forgotten)
                }
            },
        );
        assert_eq!(made.unwrap().len(), 2);
        assert_eq!(*order.lock().unwrap(), ["packed with 2", "packed with 4", "forgotten"]);
    }

    #[test]
    fn the_first_failure_ends_downloads_and_work() {
        let (failed, seen) = mpsc::channel();
        let result = line(&[&["a"], &["b"]], 2).run(
            |arrived| {
                let _ = arrived(&fetched("a"));
                seen.recv_timeout(Duration::from_secs(20)).unwrap();
                let deadline = std::time::Instant::now() + Duration::from_secs(20);
                while arrived(&fetched("nobody's")).is_continue() {
                    assert!(std::time::Instant::now() < deadline, "the downloads go on");
                    std::thread::yield_now();
                }
                anyhow::bail!("a later failure")
            },
            |_| {
                failed.send(()).unwrap();
                anyhow::bail!("the first failure")
            },
        );
        assert_eq!(result.unwrap_err().to_string(), "the first failure");
    }
}
