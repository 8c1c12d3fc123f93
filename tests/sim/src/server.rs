//! The way to the API server and back: HTTP in, HTTP out, and everything that can go wrong between.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, future::BoxFuture};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    scene::Scene,
    store::{Change, Key, Kind, Refusal},
};

/// How probable what is, for one call or one delivery. Each seed draws its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// 500, 503, 429 with Retry-After, or the plain 404 of a server that has just started; nothing was done.
    pub refused: f64,
    /// The connection breaks before the call arrives.
    pub reset: f64,
    /// It was done, and the answer is lost: the connection breaks, stays silent, or says 504.
    pub lost: f64,
    /// The call, or its answer, takes up to 12 s.
    pub slow: f64,
    /// A watch tells late, by up to 5 s, now and then by up to 40 s.
    pub late: f64,
    /// A watch ends: politely, in the middle of a line, or with 410.
    pub cut: f64,
    /// A watch from "0" begins with what was true a while ago.
    pub stale: f64,
    /// A controller dies before or after one of its calls.
    pub crash: f64,
    /// Somebody annotates a lease just before its status is written: a conflict.
    pub nudge: f64,
}

/// The connection notices after that long that nobody is there: 20 s until a ping, 15 s for its answer (koncli/connect).
const DEAD_PEER: Duration = Duration::from_secs(35);

/// A body of an answer.
type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// One actor's way to the API server.
pub struct Link {
    /// Whose it is.
    pub name: String,
    scene: Arc<Scene>,
    weather: Weather,
    chance: Mutex<fastrand::Rng>,
    /// Until when nothing gets through.
    cut_off: Mutex<Option<Instant>>,
    /// Until when watches of this kind tell nothing, while everything else is well: one cache is old beside fresh ones.
    stalled: Mutex<Option<(Kind, Instant)>>,
    /// The process has died: nothing that it began goes on.
    dead: AtomicBool,
    /// Whether the process may die in the middle of a call, and how that is told.
    mortal: bool,
    died: Notify,
}

impl Link {
    /// A way for somebody.
    #[must_use]
    pub fn new(name: String, scene: Arc<Scene>, weather: Weather, seed: u64, mortal: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            scene,
            weather,
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            cut_off: Mutex::default(),
            stalled: Mutex::default(),
            dead: AtomicBool::new(false),
            mortal,
            died: Notify::new(),
        })
    }

    /// A client of kube's that goes this way.
    #[must_use]
    pub fn client(self: &Arc<Self>) -> kube::Client {
        let link = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let link = link.clone();
            async move { link.call(request).await }
        });
        kube::Client::new(service, crate::NAMESPACE)
    }

    /// Nothing gets through for so long.
    pub fn cut_off(&self, span: Duration) {
        *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + span);
    }

    /// The watches of a kind tell nothing for so long.
    pub fn stall(&self, kind: Kind, span: Duration) {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some((kind, Instant::now() + span));
    }

    fn is_stalled(&self, kind: Kind) -> bool {
        let stalled = *self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        stalled.is_some_and(|(of, until)| of == kind && until > Instant::now())
    }

    /// Everything gets through.
    pub fn heal(&self) {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The process is dead: nothing it has begun is done or answered any more.
    pub fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.died.notify_one();
        }
    }

    /// Waits until the process has died.
    pub async fn died(&self) {
        self.died.notified().await;
    }

    fn cut_off_until(&self) -> Option<Instant> {
        let until = *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether something of this probability happens. When all is quiet it does not.
    fn happens(&self, probability: f64) -> bool {
        !self.scene.is_quiet() && self.draw(|chance| chance.f64() < probability)
    }

    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.draw(|chance| chance.u64(range)))
    }

    /// A way through the network: hundreds of microseconds, now and then many seconds.
    async fn travel(&self) {
        let micros = self.draw(|chance| chance.u64(200..2_000));
        let mut pause = Duration::from_micros(micros);
        if self.happens(self.weather.slow) {
            pause += self.millis(50..12_000);
            self.scene.fault(&self.name, format!("slow: {pause:.3?}"));
        }
        sleep(pause).await;
    }

    /// Where the process may die.
    async fn may_die(&self, when: &str) {
        if self.mortal && self.happens(self.weather.crash) {
            self.scene.fault(&self.name, format!("dies {when}"));
            self.die();
        }
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits where there is no way: until the connection is given up, or it is refused.
    async fn no_way(&self) -> io::Error {
        if self.draw(fastrand::Rng::bool) {
            return silence().await;
        }
        sleep(Duration::from_millis(5)).await;
        io::Error::other("no route to host")
    }

    async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<Answer>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        let asked = Asked::read(&parts, &body)?;
        self.may_die(&format!("before it can {asked}")).await;
        {
            let mut state = self.scene.lock();
            state.figures.calls += 1;
            *state.calls.entry(self.name.clone()).or_default() += 1;
        }
        self.scene.trace((&self.name, asked.to_string()));
        if self.cut_off_until().is_some() {
            return Err(self.no_way().await);
        }
        self.travel().await;
        if self.happens(self.weather.reset) {
            self.scene.fault(&self.name, format!("the connection breaks before it can {asked}"));
            return Err(io::Error::other("connection reset by peer"));
        }
        if self.happens(self.weather.refused) {
            return Ok(self.refuse(&asked));
        }
        self.may_die("on the way").await;
        if let What::Watch(watching) = &asked.what {
            return Ok(self.watch(asked.kind, watching));
        }
        let answer = self.apply(&asked);
        self.may_die(&format!("after it could {asked}")).await;
        if self.happens(self.weather.lost) {
            self.scene.fault(&self.name, format!("the answer is lost to: {asked}"));
            return match self.draw(|chance| chance.u8(0..3)) {
                0 => Err(silence().await),
                1 => Err(io::Error::other("connection reset by peer")),
                _ => Ok(refusal(&Refusal::new(504, "Timeout", None, None, "request timed out"))),
            };
        }
        self.travel().await;
        if self.cut_off_until().is_some() {
            return Err(self.no_way().await);
        }
        self.may_die("before it hears the answer").await;
        Ok(match answer {
            Ok(answer) => response(200, whole(answer.into_bytes())),
            Err(refused) => refusal(&refused),
        })
    }

    fn refuse(&self, asked: &Asked) -> Response<Answer> {
        let (code, reason) = match self.draw(|chance| chance.u8(0..4)) {
            0 => (500, "InternalError"),
            1 => (503, "ServiceUnavailable"),
            2 => (429, "TooManyRequests"),
            _ => (404, ""),
        };
        self.scene.fault(&self.name, format!("refused with {code}: {asked}"));
        if code == 404 {
            return response(404, whole(b"404 page not found\n".to_vec()));
        }
        let mut answer = refusal(&Refusal::new(code, reason, None, None, "simulated"));
        if code == 429 {
            answer.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
        }
        answer
    }

    /// Does what was asked, at once.
    fn apply(&self, asked: &Asked) -> Result<String, Refusal> {
        let (kind, key, scene) = (asked.kind, &asked.key, &self.scene);
        let now = scene.seconds();
        let text = |object: Arc<Value>| object.to_string();
        match &asked.what {
            What::List { field, label, limit, after, meta } => {
                let state = scene.lock();
                // A page of a list that was begun shows what was when it was begun.
                let (version, from) = after.clone().unwrap_or((state.store.version(), String::new()));
                let mut objects = state.store.at(kind, version).into_iter();
                let mut items = Vec::new();
                let mut more = None;
                for ((namespace, name), object) in &mut objects {
                    let place = format!("{namespace}/{name}");
                    let ours = key.0.is_empty() || key.0 == namespace;
                    if !ours || place <= from || !selected(&object, field, label) {
                        continue;
                    }
                    if limit.is_some_and(|limit| items.len() >= limit) {
                        more = items.last().map(|_: &Value| format!("{version}:{}", last_place(&items)));
                        break;
                    }
                    items.push(if *meta {
                        json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
                    } else {
                        (*object).clone()
                    });
                }
                let mut answer = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": version.to_string() }, "items": items });
                if let Some(more) = more {
                    answer["metadata"]["continue"] = json!(more);
                }
                Ok(answer.to_string())
            }
            What::Get => scene.lock().store.get(kind, key).map(text),
            What::Create(object) => {
                let what = format!("create {} {}", kind.plural(), object["metadata"]["name"]);
                scene.write(&self.name, &what, |store| store.create(kind, &key.0, object.clone(), now)).map(text)
            }
            What::Replace(object) => {
                if kind == Kind::Lease && self.happens(self.weather.nudge) {
                    let note =
                        json!({ "metadata": { "annotations": { "seen": object["metadata"]["resourceVersion"] } } });
                    scene.fault("somebody", format!("annotates {} just before its status is written", key.1));
                    let _ = scene.write("somebody", "annotate", |store| store.patch(kind, key, &note, false, now));
                }
                scene.write(&self.name, &asked.to_string(), |store| store.replace_status(kind, key, object)).map(text)
            }
            What::Patch { patch, status } => scene
                .write(&self.name, &asked.to_string(), |store| store.patch(kind, key, patch, *status, now))
                .map(text),
            What::Delete(options) => scene
                .write(&self.name, &asked.to_string(), |store| store.delete(kind, key, options))
                .map(|done| done.to_string()),
            What::Watch(_) => Err(Refusal::new(400, "BadRequest", None, None, "a watch is no call")),
        }
    }

    fn watch(self: &Arc<Self>, kind: Kind, watching: &Watching) -> Response<Answer> {
        let (now, compacted) = {
            let state = self.scene.lock();
            (state.store.version(), state.store.compacted())
        };
        let mut waiting = VecDeque::new();
        let mut seen = watching.from;
        if seen == 0 {
            seen = now;
            if self.happens(self.weather.stale) {
                seen = now.saturating_sub(self.draw(|chance| chance.i64(1..20))).max(compacted);
                self.scene.fault(&self.name, format!("its watch of {} begins in the past", kind.plural()));
            }
            for object in self.scene.lock().store.at(kind, seen).into_values() {
                if watching.shows(&object) {
                    waiting.push_back(line("ADDED", &object));
                }
            }
        } else if seen < compacted {
            let expired = Refusal::new(410, "Expired", None, None, "too old resource version");
            if self.draw(fastrand::Rng::bool) {
                return refusal(&expired);
            }
            waiting.push_back(line("ERROR", &expired.body));
        }
        let stream = Delivery {
            link: self.clone(),
            kind,
            watching: watching.clone(),
            seen,
            waiting,
            ends: Instant::now() + self.millis(20_000..290_000),
            bookmark: Instant::now() + self.millis(5_000..60_000),
            over: false,
        };
        response(200, StreamBody::new(stream.into_stream()).boxed_unsync())
    }
}

/// No answer comes, and after a while the connection is given up.
async fn silence() -> io::Error {
    sleep(DEAD_PEER).await;
    io::Error::other("connection timed out")
}

fn last_place(items: &[Value]) -> String {
    let meta = items.last().map(|item| &item["metadata"]);
    let text = |field: &str| meta.and_then(|meta| meta[field].as_str()).unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn line(what: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({ "type": what, "object": object })))
}

fn whole(bytes: Vec<u8>) -> Answer {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn response(code: u16, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

fn refusal(refusal: &Refusal) -> Response<Answer> {
    response(refusal.code, whole(refusal.body.to_string().into_bytes()))
}

fn selected(object: &Value, field: &Option<String>, label: &Option<(String, String)>) -> bool {
    let name = field.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str());
    name && label.as_ref().is_none_or(|(label, value)| object["metadata"]["labels"][label] == value.as_str())
}

/// What one watch asks for.
#[derive(Debug, Clone)]
struct Watching {
    namespace: String,
    from: i64,
    field: Option<String>,
    label: Option<(String, String)>,
    bookmarks: bool,
}

impl Watching {
    fn shows(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace.as_str())
            && selected(object, &self.field, &self.label)
    }
}

/// One watch, being told.
struct Delivery {
    link: Arc<Link>,
    kind: Kind,
    watching: Watching,
    /// Up to which version the changes were looked at.
    seen: i64,
    waiting: VecDeque<Bytes>,
    ends: Instant,
    bookmark: Instant,
    over: bool,
}

impl Delivery {
    fn into_stream(self) -> impl Stream<Item = io::Result<http_body::Frame<Bytes>>> + Send {
        futures::stream::unfold(self, |mut delivery| async move {
            let next = delivery.next().await?;
            Some((next.map(http_body::Frame::data), delivery))
        })
    }

    fn next(&mut self) -> BoxFuture<'_, Option<io::Result<Bytes>>> {
        self.tell().boxed()
    }

    async fn tell(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        loop {
            self.link.may_die("while it watches").await;
            if self.link.cut_off_until().is_some()
                && let Err(error) = self.silence().await
            {
                self.over = true;
                return Some(Err(error));
            }
            while self.link.is_stalled(self.kind) {
                sleep(Duration::from_millis(50)).await;
            }
            if let Some(line) = self.waiting.pop_front() {
                return Some(Ok(line));
            }
            let link = self.link.clone();
            let changed = link.scene.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(change) = self.look() {
                if let Some(end) = self.travel(&change).await {
                    return end;
                }
                continue;
            }
            let wake = self.ends.min(self.bookmark);
            if timeout_at(wake, changed).await.is_ok() {
                continue;
            }
            if Instant::now() >= self.ends {
                return None;
            }
            self.bookmark = Instant::now() + link.millis(5_000..60_000);
            if self.watching.bookmarks {
                return Some(Ok(line("BOOKMARK", &self.kind.bookmark(self.seen))));
            }
        }
    }

    /// The next change that this watch shows.
    fn look(&mut self) -> Option<Change> {
        let state = self.link.scene.lock();
        for change in state.store.after(self.seen) {
            self.seen = change.version;
            if change.kind == self.kind && self.watching.shows(&change.object) {
                return Some(change.clone());
            }
        }
        None
    }

    /// The change on its way. Returns the watch's end, if it does not arrive.
    async fn travel(&mut self, change: &Change) -> Option<Option<io::Result<Bytes>>> {
        let (link, weather) = (self.link.clone(), self.link.weather);
        if link.happens(weather.cut) {
            self.over = true;
            let how = link.draw(|chance| chance.u8(0..4));
            link.scene.fault(
                &link.name,
                format!("its watch of {} ends ({how}) before {}", self.kind.plural(), change.version),
            );
            return Some(match how {
                0 => None,
                1 => Some(Err(io::Error::other("connection reset by peer"))),
                2 => Some(Ok(Bytes::from_static(b"{\"type\":\"MODI"))),
                _ => {
                    Some(Ok(line("ERROR", &Refusal::new(410, "Expired", None, None, "too old resource version").body)))
                }
            });
        }
        let mut pause = Duration::from_micros(link.draw(|chance| chance.u64(200..2_000)));
        if link.happens(weather.late) {
            let most = if link.draw(|chance| chance.u8(0..8)) == 0 { 40_000 } else { 5_000 };
            pause += link.millis(100..most);
            link.scene
                .fault(&link.name, format!("hears of {} {} late: {pause:.3?}", self.kind.plural(), change.version));
        }
        sleep(pause).await;
        link.scene.trace((&link.name, "sees", change.version));
        let told = format!("{{\"type\":\"{}\",\"object\":{}}}\n", change.did.word(), change.text);
        self.waiting.push_back(Bytes::from(told));
        None
    }

    /// Nothing gets through: the watch is silent until that is over, or until the connection is given up.
    async fn silence(&self) -> io::Result<()> {
        let given_up = Instant::now() + DEAD_PEER;
        // It may be healed before its time.
        while self.link.cut_off_until().is_some() {
            if Instant::now() >= given_up {
                return Err(io::Error::other("connection timed out"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Some connections live through it.
        if self.link.draw(fastrand::Rng::bool) { Ok(()) } else { Err(io::Error::other("connection reset by peer")) }
    }
}

/// What a call asks for.
#[derive(Debug, Clone)]
struct Asked {
    kind: Kind,
    key: Key,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    List {
        field: Option<String>,
        label: Option<(String, String)>,
        limit: Option<usize>,
        after: Option<(i64, String)>,
        meta: bool,
    },
    Watch(Watching),
    Get,
    Create(Value),
    Replace(Value),
    Patch {
        patch: Value,
        status: bool,
    },
    Delete(Value),
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match &self.what {
            What::List { .. } => "list",
            What::Watch(_) => "watch",
            What::Get => "get",
            What::Create(_) => "create",
            What::Replace(_) => "put the status of",
            What::Patch { status: true, .. } => "patch the status of",
            What::Patch { .. } => "patch",
            What::Delete(_) => "delete",
        };
        // An Event's name has real time in it, and two runs of a seed are to say the same.
        let name = if self.kind == Kind::Event { "" } else { &self.key.1 };
        write!(f, "{verb} {} {name}", self.kind.plural())
    }
}

impl Asked {
    fn read(parts: &http::request::Parts, body: &[u8]) -> Result<Self, io::Error> {
        let unknown =
            || io::Error::other(format!("the simulated API server does not know {} {}", parts.method, parts.uri));
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let rest = match path.as_slice() {
            ["api", "v1", rest @ ..] | ["apis", _, "v1", rest @ ..] => rest,
            _ => return Err(unknown()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (kind, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Err(unknown()),
        };
        let kind = Kind::of_plural(kind).ok_or_else(unknown)?;
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let parsed: Value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(body).map_err(io::Error::other)? };
        let field = match query.get("fieldSelector") {
            None => None,
            Some(selector) => Some(selector.strip_prefix("metadata.name=").ok_or_else(unknown)?.to_owned()),
        };
        let label = match query.get("labelSelector") {
            None => None,
            Some(selector) => Some(
                selector
                    .split_once('=')
                    .map(|(label, value)| (label.to_owned(), value.to_owned()))
                    .ok_or_else(unknown)?,
            ),
        };
        let is_watch = query.get("watch").is_some_and(|watch| watch == "true");
        let accepts = parts.headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let what = match (&parts.method, name.is_empty(), subresource) {
            (&Method::GET, true, "") if is_watch => What::Watch(Watching {
                namespace: namespace.to_owned(),
                from: query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0),
                field,
                label,
                bookmarks: query.get("allowWatchBookmarks").is_some_and(|allowed| allowed == "true"),
            }),
            (&Method::GET, true, "") => What::List {
                field,
                label,
                limit: query.get("limit").and_then(|limit| limit.parse().ok()),
                after: query.get("continue").and_then(|token| {
                    let (version, place) = token.split_once(':')?;
                    Some((version.parse().ok()?, place.to_owned()))
                }),
                meta: accepts.contains("PartialObjectMetadata"),
            },
            (&Method::GET, false, "") => What::Get,
            (&Method::POST, true, "") => What::Create(parsed),
            (&Method::PUT, false, "status") => What::Replace(parsed),
            (&Method::PATCH, false, "" | "status") => What::Patch { patch: parsed, status: subresource == "status" },
            (&Method::DELETE, false, "") => What::Delete(parsed),
            _ => return Err(unknown()),
        };
        Ok(Self { kind, key: (namespace.to_owned(), name.to_owned()), what })
    }
}
