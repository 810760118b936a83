//! A container engine in memory, for tests: containers run until the test ends them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::io::ReaderStream;

use super::credentials::Credentials;
use super::streams::{Output, Process, Size, Streams, Terminal};
use super::{
    Container, ContainerSpec, Description, ExecOutcome, Exit, Image, InRoot, LogOptions, Resources,
    Role, Runtime, RuntimeError, Sighting, State, StoredImage,
};

/// The engine; tests reach into it.
pub struct FakeRuntime {
    state: Arc<Mutex<Inner>>,
    news: broadcast::Sender<String>,
    ended: Notify,
    /// How commands end; none: they run on.
    held: watch::Sender<Option<i64>>,
    /// How many changes of containers begin or end before the engine hangs; none: it does not.
    left: watch::Sender<Option<usize>>,
    /// Changes that hang.
    hanging: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, (ContainerSpec, Container)>,
    images: BTreeMap<String, Image>,
    /// Images of the registry and who may have them.
    private: BTreeMap<String, String>,
    /// By image: the user that it says.
    users: BTreeMap<String, String>,
    /// By image: what a start of it answers.
    start_errors: BTreeMap<String, String>,
    /// Where links of images lead: by the image's id, then the path.
    links: BTreeMap<(String, String), String>,
    /// What files of images hold, by the same.
    files: BTreeMap<(String, String), Vec<u8>>,
    /// By image: what is in it.
    archives: BTreeMap<String, Bytes>,
    made: u32,
    /// Ignores the stop signal.
    stubborn: bool,
    /// What was executed in containers.
    commands: Vec<String>,
    /// How commands have ended that were run with streams, by their ids.
    exits: BTreeMap<String, i64>,
    /// What was told of terminals.
    sizes: Vec<(String, u16, u16)>,
}

impl Default for FakeRuntime {
    fn default() -> FakeRuntime {
        FakeRuntime {
            state: Arc::default(),
            news: broadcast::channel(64).0,
            ended: Notify::new(),
            held: watch::Sender::new(Some(0)),
            left: watch::Sender::new(None),
            hanging: AtomicUsize::new(0),
        }
    }
}

impl FakeRuntime {
    /// Puts an image on the node.
    pub fn add_image(&self, reference: &str) {
        let id = format!("sha256:{reference}");
        let mut inner = self.inner();
        let image = Image {
            id,
            has_origin: false,
            user: inner.users.get(reference).cloned().unwrap_or_default(),
            volumes: Vec::new(),
            working_dir: String::new(),
        };
        inner.images.insert(reference.to_owned(), image);
    }

    /// Says what is in an image.
    pub fn add_archive(&self, reference: &str, archive: Vec<u8>) {
        let id = format!("sha256:{reference}");
        self.inner().archives.insert(id, archive.into());
    }

    /// Says whether an image came from a registry.
    pub fn set_origin(&self, reference: &str, has_origin: bool) {
        if let Some(image) = self.inner().images.get_mut(reference) {
            image.has_origin = has_origin;
        }
    }

    /// Says as which user an image runs that is not there yet.
    pub fn set_user(&self, reference: &str, user: &str) {
        let mut inner = self.inner();
        inner.users.insert(reference.to_owned(), user.to_owned());
    }

    /// Puts an image into the registry, for that user.
    pub fn add_private(&self, reference: &str, user: &str) {
        let mut inner = self.inner();
        inner.private.insert(reference.to_owned(), user.to_owned());
    }

    /// Has commands run until they are ended.
    pub fn hold_commands(&self) {
        self.held.send_replace(None);
    }

    /// Ends every command that runs, and those to come, with this code.
    pub fn end_commands(&self, code: i64) {
        self.held.send_replace(Some(code));
    }

    /// Puts a link into an image of the node.
    pub fn add_link(&self, reference: &str, path: &str, target: &str) {
        let key = (format!("sha256:{reference}"), path.to_owned());
        self.inner().links.insert(key, target.to_owned());
    }

    /// Puts a file into an image of the node.
    pub fn add_file(&self, reference: &str, path: &str, holds: &str) {
        let key = (format!("sha256:{reference}"), path.to_owned());
        self.inner().files.insert(key, holds.into());
    }

    /// Has the image ask for a volume.
    pub fn add_image_volume(&self, reference: &str, path: &str) {
        if let Some(image) = self.inner().images.get_mut(reference) {
            image.volumes.push(path.to_owned());
        }
    }

    /// What the container of that name was made of.
    pub fn spec(&self, name: &str) -> Option<ContainerSpec> {
        let inner = self.inner();
        let mut all = inner.containers.values();
        all.find_map(|(spec, _)| (spec.identity.name == name).then(|| spec.clone()))
    }

    /// Makes every start of an image fail.
    pub fn fail_starts(&self, image: &str, message: &str) {
        self.inner()
            .start_errors
            .insert(image.to_owned(), message.to_owned());
    }

    /// Has the engine hang after so many steps: the beginning and the end of a change of a container are one each.
    pub fn hang_after(&self, steps: usize) {
        self.left.send_replace(Some(steps));
    }

    /// How many containers there were in all.
    pub fn made(&self) -> usize {
        self.inner().made as usize
    }

    /// Has it go on with what hangs.
    pub fn go_on(&self) {
        self.left.send_replace(None);
    }

    /// Whether somebody waits for a change.
    pub fn hangs(&self) -> bool {
        self.hanging.load(Ordering::Relaxed) > 0
    }

    /// The beginning or the end of a change of a container.
    async fn step(&self) {
        let mut left = self.left.subscribe();
        let mut hangs = Hanging::default();
        loop {
            let taken = self.left.send_if_modified(|left| match left {
                None | Some(0) => false,
                Some(steps) => {
                    *steps -= 1;
                    true
                }
            });
            if taken || left.borrow_and_update().is_none() {
                return;
            }
            hangs.count(&self.hanging);
            if left.changed().await.is_err() {
                return;
            }
        }
    }

    /// Containers ignore the stop signal from now on.
    pub fn be_stubborn(&self) {
        self.inner().stubborn = true;
    }

    /// Ends the running container of that name (empty: the sandbox).
    pub fn end(&self, name: &str, code: i32, at: Timestamp) {
        let mut inner = self.inner();
        let running = inner
            .containers
            .values_mut()
            .map(|(_, container)| container);
        for container in running.filter(|it| it.is_running() && it.identity.name == name) {
            finish(container, code, at);
        }
        drop(inner);
        self.tell();
    }

    /// Ends every process that is waited for; the engine does not know yet.
    pub fn end_processes(&self) {
        self.ended.notify_waiters();
    }

    /// What was executed in containers, in order.
    pub fn commands(&self) -> Vec<String> {
        self.inner().commands.clone()
    }

    /// Says of which process a running container is.
    pub fn set_pid(&self, id: &str, number: u32) {
        if let Some((_, container)) = self.inner().containers.get_mut(id)
            && let State::Running { pid, .. } = &mut container.state
        {
            *pid = number;
        }
    }

    /// What terminals were told, in order: whose, columns, lines.
    pub fn sizes(&self) -> Vec<(String, u16, u16)> {
        self.inner().sizes.clone()
    }

    /// Everything there is, as the engine's own listing has it.
    pub fn all(&self) -> Vec<Container> {
        self.inner()
            .containers
            .values()
            .map(|(_, container)| container.clone())
            .collect()
    }

    /// Makes a container; one of the same name that never ran is replaced, as by the Engine.
    fn make(&self, spec: &ContainerSpec) -> String {
        let mut inner = self.inner();
        inner.made += 1;
        let id = format!("c{:04}", inner.made);
        let same = |(other, it): &(ContainerSpec, Container)| {
            let (own, other) = (&spec.identity, &other.identity);
            let name =
                (own.role, &own.name, own.attempt) == (other.role, &other.name, other.attempt);
            name && it.state == State::Created
        };
        inner.containers.retain(|_, it| !same(it));
        let container = Container {
            id: id.clone(),
            identity: spec.identity.clone(),
            image: spec.image.clone(),
            image_id: format!("sha256:{}", spec.image),
            created_at: Timestamp::now(),
            log_path: None,
            resources: Some(spec.resources),
            state: State::Created,
        };
        inner
            .containers
            .insert(id.clone(), (spec.clone(), container));
        id
    }

    fn run_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut inner = self.inner();
        let errors = inner.start_errors.clone();
        let found = inner.containers.get_mut(id);
        let (_, container) = found.ok_or_else(|| RuntimeError::NotFound(id.to_owned()))?;
        let now = Timestamp::now();
        if let Some(message) = errors.get(&container.image) {
            finish(container, 127, now);
            if let State::Exited(exit) = &mut container.state {
                exit.start_error = Some(message.clone());
            }
            return Err(RuntimeError::Refused {
                status: 400,
                message: message.clone(),
            });
        }
        container.state = State::Running {
            // No process has this number.
            pid: 0,
            started_at: now,
        };
        drop(inner);
        self.tell();
        Ok(())
    }

    fn end_container(&self, id: &str, kill: bool) {
        let mut inner = self.inner();
        let stubborn = inner.stubborn;
        if let Some((_, container)) = inner.containers.get_mut(id)
            && container.is_running()
            && (kill || !stubborn)
        {
            finish(container, if kill { 137 } else { 0 }, Timestamp::now());
        }
        drop(inner);
        self.tell();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let inner = self.inner();
        let uids: Vec<String> = inner
            .containers
            .values()
            .map(|it| it.0.pod.uid.clone())
            .collect();
        drop(inner);
        for uid in uids {
            // Nobody may be listening.
            let _ = self.news.send(uid);
        }
    }
}

/// Counts one that hangs, until it is dropped.
#[derive(Default)]
struct Hanging<'a>(Option<&'a AtomicUsize>);

impl<'a> Hanging<'a> {
    fn count(&mut self, hanging: &'a AtomicUsize) {
        if self.0.is_none() {
            hanging.fetch_add(1, Ordering::Relaxed);
            self.0 = Some(hanging);
        }
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        if let Some(hanging) = self.0 {
            hanging.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn finish(container: &mut Container, code: i32, at: Timestamp) {
    let started_at = match container.state {
        State::Running { started_at, .. } => started_at,
        _ => container.created_at,
    };
    let exit = Exit {
        code,
        oom_killed: false,
        start_error: None,
        started_at,
        finished_at: at,
    };
    container.state = State::Exited(exit);
}

impl Runtime for FakeRuntime {
    async fn describe(&self) -> Result<Description, RuntimeError> {
        Ok(Description {
            version: "docker://fake".to_owned(),
            cgroup_driver: String::new(),
        })
    }

    async fn pods(&self) -> Result<Vec<Sighting>, RuntimeError> {
        let inner = self.inner();
        let mut pods: BTreeMap<String, Sighting> = BTreeMap::new();
        for (spec, container) in inner.containers.values() {
            let sighting = pods
                .entry(spec.pod.uid.clone())
                .or_insert_with(|| Sighting {
                    pod: spec.pod.clone(),
                    addrs: None,
                    fingerprint: String::new(),
                });
            sighting.addrs = sighting.addrs.or(container.identity.addrs);
            let running = container.is_running();
            sighting
                .fingerprint
                .push_str(&format!("{}:{running} ", container.id));
        }
        Ok(pods.into_values().collect())
    }

    async fn containers(&self, uid: &str) -> Result<Vec<Container>, RuntimeError> {
        let inner = self.inner();
        let own = inner
            .containers
            .values()
            .filter(|(spec, _)| spec.pod.uid == uid);
        Ok(own.map(|(_, container)| container.clone()).collect())
    }

    fn events(&self) -> BoxStream<'static, Result<String, RuntimeError>> {
        let news = self.news.subscribe();
        futures::stream::unfold(news, async |mut news| {
            let uid = news.recv().await.ok()?;
            Some((Ok(uid), news))
        })
        .boxed()
    }

    async fn ended(&self, _: u32) {
        self.ended.notified().await;
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, RuntimeError> {
        self.step().await;
        let id = self.make(spec);
        self.step().await;
        Ok(id)
    }

    async fn root_of(&self, image: &str) -> Result<String, RuntimeError> {
        Ok(image.to_owned())
    }

    async fn path_in_root(&self, id: &str, path: &str) -> Result<InRoot, RuntimeError> {
        let inner = self.inner();
        let link = inner.links.get(&(id.to_owned(), path.to_owned()));
        Ok(link.cloned().map_or(InRoot::Other, InRoot::Link))
    }

    async fn file_in_root(
        &self,
        id: &str,
        path: &str,
        _: usize,
    ) -> Result<Option<Vec<u8>>, RuntimeError> {
        let key = (id.to_owned(), path.to_owned());
        Ok(self.inner().files.get(&key).cloned())
    }

    fn export(&self, id: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let archive = self.inner().archives.get(id).cloned();
        let archive = archive.ok_or_else(|| RuntimeError::NotFound(id.to_owned()));
        futures::stream::once(async { archive }).boxed()
    }

    async fn resize_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        if let Some((_, container)) = self.inner().containers.get_mut(id) {
            container.resources = Some(*resources);
        }
        self.tell();
        Ok(())
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.step().await;
        self.run_container(id)?;
        self.step().await;
        Ok(())
    }

    async fn signal(&self, id: &str, kill: bool) -> Result<(), RuntimeError> {
        self.step().await;
        self.end_container(id, kill);
        self.step().await;
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.step().await;
        self.inner().containers.remove(id);
        self.tell();
        self.step().await;
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.inner().images.get(reference).cloned())
    }

    /// Gives an image of the registry to its user, who is remembered as a command.
    async fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), RuntimeError> {
        let mut inner = self.inner();
        let user = credentials.map_or("", |it| &it.username);
        inner
            .commands
            .push(format!("pull {reference} {user}").trim_end().to_owned());
        if inner
            .private
            .get(reference)
            .is_some_and(|owner| owner == user)
        {
            drop(inner);
            self.add_image(reference);
            return Ok(());
        }
        Err(RuntimeError::Pull(format!("no such image: {reference}")))
    }

    async fn images(&self) -> Result<Vec<StoredImage>, RuntimeError> {
        let inner = self.inner();
        let used = |name: &String| {
            inner
                .containers
                .values()
                .any(|(spec, _)| spec.image == *name)
        };
        let images = inner.images.iter().map(|(name, image)| StoredImage {
            id: image.id.clone(),
            names: vec![name.clone()],
            size_bytes: 1,
            has_origin: image.has_origin,
            is_used: used(name),
        });
        Ok(images.collect())
    }

    async fn remove_image(&self, image: &StoredImage) -> Result<(), RuntimeError> {
        self.inner().images.retain(|_, it| it.id != image.id);
        Ok(())
    }

    async fn image_root(&self) -> Result<PathBuf, RuntimeError> {
        Ok(PathBuf::from("/"))
    }

    async fn pause_image(&self) -> Result<String, RuntimeError> {
        Ok("orchestrator/pause:fake".to_owned())
    }

    fn logs(&self, id: &str, _: &LogOptions) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let text = Bytes::from(format!("log of {id}\n"));
        futures::stream::iter([Ok(text)]).boxed()
    }

    async fn exec(
        &self,
        _: &str,
        command: &[String],
        _: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        self.inner().commands.push(command.join(" "));
        let mut held = self.held.subscribe();
        // The sender lives as long as this engine.
        let code = held.wait_for(Option::is_some).await;
        let code = code.ok().and_then(|code| *code).unwrap_or(-1);
        Ok(ExecOutcome {
            code,
            output: String::new(),
        })
    }

    /// Runs it on this machine.
    async fn run(
        &self,
        _: &str,
        command: &[String],
        _: Streams,
    ) -> Result<(String, Process), RuntimeError> {
        let mut inner = self.inner();
        inner.commands.push(command.join(" "));
        let id = format!("e{}", inner.commands.len());
        drop(inner);
        let (state, name) = (self.state.clone(), id.clone());
        let process = spawn(command, move |code| {
            let mut inner = state.lock().unwrap_or_else(PoisonError::into_inner);
            inner.exits.insert(name, code);
        })?;
        Ok((id, process))
    }

    async fn exit_code(&self, command: &str) -> Result<Option<i64>, RuntimeError> {
        Ok(self.inner().exits.get(command).copied())
    }

    /// What the container reads, it writes.
    async fn attach(&self, _: &str, _: Streams) -> Result<Process, RuntimeError> {
        spawn(&["cat".to_owned()], |_| {})
    }

    async fn has_terminal(&self, id: &str) -> Result<bool, RuntimeError> {
        let inner = self.inner();
        Ok(inner.containers.get(id).is_some_and(|(spec, _)| spec.tty))
    }

    async fn resize(&self, terminal: Terminal<'_>, size: Size) -> Result<(), RuntimeError> {
        let (Terminal::Command(id) | Terminal::Container(id)) = terminal;
        let told = (id.to_owned(), size.width, size.height);
        self.inner().sizes.push(told);
        Ok(())
    }
}

/// A process of this machine with its streams; `ended` is told its exit code before its output ends.
fn spawn(
    command: &[String],
    ended: impl FnOnce(i64) + Send + 'static,
) -> Result<Process, RuntimeError> {
    let refused = |message: String| RuntimeError::Refused {
        status: 400,
        message,
    };
    let (program, words) = command
        .split_first()
        .ok_or_else(|| refused("no command".to_owned()))?;
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(false)
        .spawn()
        .map_err(|error| refused(error.to_string()))?;
    let (Some(input), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(refused("a process without streams".to_owned()));
    };
    let lost = |error: std::io::Error| RuntimeError::Unreachable(error.to_string());
    let stdout = ReaderStream::new(stdout).map(move |piece| piece.map(Output::Stdout));
    let stderr = ReaderStream::new(stderr).map(move |piece| piece.map(Output::Stderr));
    let output = futures::stream::select(stdout, stderr).map(move |piece| piece.map_err(lost));
    let last = futures::stream::once(async move {
        let status = child.wait().await;
        let code = status.ok().and_then(|status| status.code());
        ended(code.map_or(-1, i64::from));
    });
    let last = last.filter_map(|()| async { None });
    Ok(Process {
        input: Box::pin(input),
        output: output.chain(last).boxed(),
    })
}

/// How many containers of a role run.
pub fn running(containers: &[Container], role: Role) -> usize {
    containers
        .iter()
        .filter(|it| it.is_running() && it.identity.role == role)
        .count()
}
